"""Shell completion of command lines: the script that a shell reads, and the next words."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rrl.config.choices import groups
from rrl.errors import ConfigError

WORDS = {
    "rrl-train": ("--help", "--cfg", "--completion", "--multirun", "resume=", "dry_run=true"),
    "rrl-sft": ("--help",),
    "rrl-evaluate": ("--help", "from_run=", "against=", "output=", "judgements="),
    "rrl-demo": ("--help",),
}
"""The commands with completion, and the words that each accepts beside the keys of the configuration."""
BASH = """\
_rrl() {
    local line=${COMP_LINE:0:$COMP_POINT} IFS=$'\\n' word head=
    word=${line##*[[:space:]]}
    # Bash completes the part after the last = or : of a word, so the part before it is removed.
    [[ $COMP_WORDBREAKS == *=* ]] && head=${word%"${word##*[=:]}"}
    COMPREPLY=($("${1%rrl-*}rrl-train" --complete "$line" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$head"}")
}
complete -o nospace -o default -F _rrl COMMANDS
"""
ZSH = """\
autoload -Uz compinit && compinit
_rrl() {
    local -a found=(${(f)"$(${words[1]%rrl-*}rrl-train --complete "${words[1,CURRENT-1]} $PREFIX" 2>/dev/null)"})
    if (( $#found )); then compadd -S '' -a found; else compset -P '*='; _files; fi
}
compdef _rrl COMMANDS
"""
FISH = """\
function __rrl
    set -l words (rrl-train --complete (commandline -cp | string collect) 2>/dev/null)
    if not set -q words[1]
        set -l token (commandline -ct)
        set -l head (string replace -r '[^=]*$' '' -- $token)
        set words $head(__fish_complete_path (string replace -r '.*=' '' -- $token))
    end
    printf '%s\\n' $words
end
for command in COMMANDS
    complete -c $command -f -a '(__rrl)'
end
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def answer(option: str, argument: str = "") -> str:
    """The output of ``--completion SHELL`` (the shell's script) and ``--complete LINE`` (the words, a line each)."""
    if option == "--complete":
        return "".join(f"{word}\n" for word in candidates(argument))
    if argument not in SCRIPTS:
        raise ConfigError(f"--completion: got {argument!r}; expected one of {', '.join(SCRIPTS)}")
    return SCRIPTS[argument].replace("COMMANDS", " ".join(WORDS))


def candidates(line: str) -> list[str]:
    """The completions of the last word of a command line; none for a path or a free value."""
    try:
        command, *given = shlex.split(line)
    except ValueError:  # within a quotation
        return []
    last = given.pop() if given and not line[-1].isspace() else ""
    known = WORDS.get(command.rpartition("/")[2], ())
    overrides = [word for word in given if not word.startswith(known)]
    key, equals, _ = last.partition("=")
    words = [word for word in known if word.startswith("-") == last.startswith("-")]
    if not last.startswith("-"):
        words += _assignments(key, overrides) if equals else _keys(key.rpartition(".")[0], overrides)
    return sorted({word for word in words if word.startswith(last) and word != last})


def _assignments(key: str, overrides: Sequence[str]) -> list[str]:
    """The key with each of its values, for groups and booleans."""
    if key in groups():
        return [f"{key}={choice}" for choice in groups()[key]]
    return [f"{key}=true", f"{key}=false"] if isinstance(_find(key, _composed(overrides)), bool) else []


def _keys(parent: str, overrides: Sequence[str]) -> Iterator[str]:
    """The keys directly below a dotted one, with ``=`` if they take a value, with ``.`` if there are keys below."""
    if not parent:
        yield from (f"{group}=" for group in groups())
    config = _composed(overrides)
    node = _find(parent, config) if parent else config
    for name, value in node.items() if isinstance(node, Mapping) else ():
        if name != "_target_":
            yield (f"{parent}." if parent else "") + name + ("." if isinstance(value, Mapping) else "=")


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration with these overrides, or without them where they cannot be composed."""
    from rrl.config.compose import compose

    try:
        return compose("evaluate", overrides).config  # which includes all keys of training
    except ConfigError:  # still being typed; the command itself reports faults
        return compose("evaluate", []).config


def _find(key: str, config: Mapping[str, Any]) -> Any:
    """The value of a dotted key, None without one."""
    node: Any = config
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node
