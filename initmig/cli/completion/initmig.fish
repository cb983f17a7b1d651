# Completion of initmig for fish. In ~/.config/fish/config.fish: initmig completion fish | source

# The words before the cursor, without the program and the values of flags.
function __initmig_operands
    set -l skip no
    for word in (commandline -opc)[2..-1]
        if test $skip = yes
            set skip no
            continue
        end
        switch $word
            case @TAKING@
                set skip yes
            case --
                printf '%s\n' --
            case '-*'
            case '*'
                printf '%s\n' $word
        end
    end
end

# Whether the command is one of these; '' is none.
function __initmig_command
    set -l operands (__initmig_operands)
    contains -- -- $operands; and return 1
    contains -- "$operands[1]" $argv
end

# Whether the next word would be the first after one of these commands.
function __initmig_after
    test (count (__initmig_operands)) = 1; and __initmig_command $argv
end

# Whether the words after `--` are another command's line.
function __initmig_in_program
    set -l operands (__initmig_operands)
    test "$operands[1]" = exec; and contains -- -- $operands
end

function __initmig_program
    set -l words (commandline -opc)
    set -l line $words[(math (contains -i -- -- $words) + 1)..-1] (commandline -ct)
    complete -C (string join ' ' -- (string escape -- $line[1..-2]) $line[-1])
end

complete -c initmig -f
complete -c initmig -n __initmig_in_program -a '(__initmig_program)'
@COMMANDS@
@FLAGS@
