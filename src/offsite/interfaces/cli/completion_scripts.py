"""The scripts that shells load so that they ask `offsite complete`. Each passes what was typed, and evaluates nothing.

Status 4 of `offsite complete` stands for names of files.
"""

from __future__ import annotations

_BASH = r"""_offsite() {
    local candidates
    candidates=$(
        COMP_WORDBREAKS="$COMP_WORDBREAKS" offsite complete --bash -- "${COMP_LINE:0:COMP_POINT}" 2>/dev/null
    )
    case $? in
        0) [ -n "$candidates" ] && mapfile -t COMPREPLY <<<"$candidates" ;;
        4) compopt -o default ;;
    esac
}
complete -F _offsite offsite
"""

_ZSH = r"""#compdef offsite
_offsite() {
    local candidates
    candidates=$(offsite complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)
    case $? in
        0) [ -n "$candidates" ] && compadd -- "${(@f)candidates}" ;;
        4) _files ;;
    esac
}
compdef _offsite offsite
"""

_FISH = r"""function __offsite_complete
    set -l typed (commandline -opc) (commandline -ct)
    offsite complete -- $typed[2..-1] 2>/dev/null
    test $status -eq 4; and __fish_complete_path (commandline -ct)
end
complete -c offsite -f -a '(__offsite_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
