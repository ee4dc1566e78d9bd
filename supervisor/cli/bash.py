"""The completion script of bash; click's own takes a task's name for two words, as bash does at a colon."""

from __future__ import annotations

__all__ = ["SCRIPT"]

SCRIPT = r"""_jobvisor_completion() {
    local IFS=$'\n' response completion type value current prefix i
    local -a words=()
    # Bash ends a word at a colon, and the name of a task has one: what it has taken apart is put together.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        if [[ $i -gt 1 && (${COMP_WORDS[i]} == :* || ${words[-1]} == *:) ]]; then
            words[-1]+=${COMP_WORDS[i]}
        else
            words+=("${COMP_WORDS[i]}")
        fi
    done
    current=${words[-1]}
    prefix=
    [[ $current == *:* && $COMP_WORDBREAKS == *:* ]] && prefix=${current%"${current##*:}"}
    response=$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) \
        _JOBVISOR_COMPLETE=bash_complete "$1" 2> /dev/null)
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"$prefix"}") ;;
        esac
    done
}
complete -o nosort -F _jobvisor_completion jobvisor
"""
