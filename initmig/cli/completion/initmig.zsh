#compdef initmig
# Completion of initmig for zsh. In ~/.zshrc, after compinit: source <(initmig completion zsh)

_initmig() {
    local command= word
    local -a initmig_commands flags operands
    integer i dashes=${words[(i)--]}
    initmig_commands=(
@COMMANDS@
    )

    for ((i = 2; i < CURRENT; i++)); do
        word=$words[i]
        case $word in
            (@TAKING@) ((i++)) ;;
            (-*) ;;
            (*)
                command=$word
                break
                ;;
        esac
    done

    if ((dashes < CURRENT)); then
        [[ $command == exec ]] || return 1
        shift $dashes words
        ((CURRENT -= dashes))
        _normal
        return
    fi

    case $command in
@FLAGS@
    esac
    case $command in
@OPERANDS@
        ('') operands=('1:command:_initmig_commands') ;;
        (*) operands=('1:command:_initmig_commands' '*: :_message "no more words"') ;;
    esac
    _arguments -S $flags $operands
}

_initmig_commands() {
    _describe -t commands command initmig_commands
}

if [[ $funcstack[1] == _initmig ]]; then
    _initmig "$@"
else
    compdef _initmig initmig
fi
