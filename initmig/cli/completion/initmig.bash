# Completion of initmig for bash. In ~/.bashrc: source <(initmig completion bash)

_initmig() {
    local cur=${COMP_WORDS[COMP_CWORD]} flag= command= operand= word i
    local commands="@COMMANDS@"
    COMPREPLY=()

    # where the command is, what the word before asks for, and whether `--` is behind us
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
            --)
                [[ $command == exec ]] && _initmig_program $((i + 1))
                return
                ;;
            @TAKING@)
                flag=$word
                if ((i + 1 < COMP_CWORD)); then
                    [[ ${COMP_WORDS[i + 1]} == = ]] && ((i++))
                    ((i + 1 < COMP_CWORD)) && flag= && ((i++))
                fi
                ;;
            -*)
                flag=
                if [[ ${COMP_WORDS[i + 1]} == = ]]; then
                    flag=$word
                    ((i++))
                    ((i + 1 < COMP_CWORD)) && flag= && ((i++))
                fi
                ;;
            *) if [[ -z $command ]]; then command=$word; else operand=$word; fi ;;
        esac
    done

    if [[ $cur == = ]]; then
        # bash takes the sign for a word of its own
        [[ ${COMP_WORDS[COMP_CWORD - 1]} == -* ]] && flag=${COMP_WORDS[COMP_CWORD - 1]}
        cur=
    fi
    if [[ -n $flag ]]; then
        _initmig_values "$flag"
    elif [[ $cur == -* ]]; then
        _initmig_words "$(_initmig_flags "$command")"
    elif [[ -z $command ]]; then
        _initmig_words "$commands"
    elif [[ -z $operand ]]; then
        case $command in
@OPERANDS@
        esac
    fi
}

_initmig_words() {
    COMPREPLY=($(compgen -W "$1" -- "$cur"))
}

_initmig_flags() {
    case $1 in
@FLAGS@
    esac
}

_initmig_values() {
    case $1 in
@VALUES@
    esac
}

_initmig_paths() {
    compopt -o filenames 2>/dev/null
    local IFS=$'\n'
    COMPREPLY=($(compgen "$1" -- "$cur"))
}

# The word that begins at $1 is a command, with words of its own.
_initmig_program() {
    if declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset "$1"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    elif ((COMP_CWORD == $1)) && [[ $cur != */* ]]; then
        COMPREPLY=($(compgen -c -- "$cur"))
    else
        _initmig_paths -f
    fi
}

complete -F _initmig initmig
