"""`tournament completion`: a script with which bash, zsh or fish completes commands and options."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from esci_tournament.deployments.cli.common import Output, command

DESCRIPTION = """\
Print a script with which a shell completes commands, options and their values. It asks nothing of this program while
you type; print it again after an upgrade.

examples:
  tournament completion bash > ~/.local/share/bash-completion/completions/tournament
  tournament completion zsh > "${fpath[1]}/_tournament"
  tournament completion fish > ~/.config/fish/completions/tournament.fish
or, for this shell alone: source <(tournament completion bash)
"""


@dataclass(frozen=True)
class Option:
    """An option: its spellings, what its help says, the values it takes.

    Attributes:
        spellings: Such as ("-h", "--help").
        help: One line.
        takes_value: Whether a word follows.
        choices: The values that there are, () for any.
    """

    spellings: tuple[str, ...]
    help: str
    takes_value: bool
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """What may follow some words of a command line.

    Attributes:
        at: The words: "tournament champion".
        words: Word that may come next -> its help: commands, parts, or the values of an argument.
        options: The options that may be given there.
        goes_on: Whether the words lead to places of their own.
    """

    at: str
    words: dict[str, str] = field(default_factory=dict)
    options: tuple[Option, ...] = ()
    goes_on: bool = False


def add_parser(commands: Any) -> None:
    """Add the command."""
    help = "print a script with which bash, zsh or fish completes commands and options"
    parser = command(commands, "completion", work, help, DESCRIPTION, home=False)
    parser.add_argument("shell", choices=tuple(SCRIPTS), help="the shell")


def work(options: argparse.Namespace, output: Output) -> None:
    """Print the script of a shell, or its document."""
    from esci_tournament.deployments.cli import build_parser

    script = SCRIPTS[options.shell](list(places(build_parser(), "tournament")))
    if not output.as_json:
        output.say(script.rstrip("\n"))
    output.document({"shell": options.shell, "script": script})


def places(parser: argparse.ArgumentParser, at: str) -> Iterator[Place]:
    """Yield what may follow, at a parser and at all below it.

    Args:
        parser: Parser of the words.
        at: The words that lead to it.
    """
    formatter = parser._get_formatter()
    words: dict[str, str] = {}
    options: list[Option] = []
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            below = list(action.choices.items())
            words |= {one.dest: _line(one.help) for one in action._choices_actions}
            continue
        help = "" if action.help in (None, argparse.SUPPRESS) else _line(formatter._expand_help(action))
        choices = tuple(map(str, action.choices or ()))
        if action.option_strings:
            options.append(Option(tuple(action.option_strings), help, action.nargs != 0, choices))
        else:
            words |= dict.fromkeys(choices, help)
    yield Place(at, words, tuple(options), bool(below))
    for name, part in below:
        yield from places(part, f"{at} {name}")


def bash(known: Sequence[Place]) -> str:
    """Return the script for bash; where nothing is known, files are completed."""
    lines = [
        "# bash completion of tournament",
        "_tournament() {",
        "    local word words='' at=tournament current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}",
        "    COMPREPLY=()",
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        f'        case "$at $word" in {_steps(known)}) at="$at $word" ;; esac',
        "    done",
        '    case "$at $previous" in',
        *(f"        {pattern}) {_bash_values(choices)}return ;;" for pattern, choices in _values(known)),
        "    esac",
        '    case "$at/$current" in',
    ]
    for place in known:
        spellings = " ".join(spelling for option in place.options for spelling in option.spellings)
        lines.append(f"        {_quoted(place.at + '/-')}*) words={_quoted(spellings)} ;;")
        lines.append(f"        {_quoted(place.at + '/')}*) words={_quoted(' '.join(place.words))} ;;")
    return "\n".join(
        [
            *lines,
            "    esac",
            '    COMPREPLY=($(compgen -W "$words" -- "$current"))',
            "}",
            "complete -o bashdefault -o default -F _tournament tournament\n",
        ]
    )


def zsh(known: Sequence[Place]) -> str:
    """Return the script for zsh, as a file of `fpath` or to be sourced after `compinit`."""
    lines = [
        "#compdef tournament",
        "_tournament() {",
        "    local word at=tournament",
        "    local -a offered",
        "    for word in ${words[2,CURRENT-1]}; do",
        f'        case "$at $word" in {_steps(known)}) at="$at $word" ;; esac',
        "    done",
        '    case "$at ${words[CURRENT-1]}" in',
        *(
            f"        {pattern}) {'compadd -- ' + ' '.join(map(_quoted, choices)) if choices else '_files'}; return ;;"
            for pattern, choices in _values(known)
        ),
        "    esac",
        '    case "$at/$PREFIX" in',
    ]
    for place in known:
        options = [(spelling, option.help) for option in place.options for spelling in option.spellings]
        for mark, rows in (("/-", options), ("/", list(place.words.items()))):
            told = " ".join(_quoted(f"{word}:{help}") for word, help in rows)
            lines.append(f"        {_quoted(place.at + mark)}*) offered=({told}) ;;")
    return "\n".join(
        [
            *lines,
            "    esac",
            "    if (( $#offered )); then _describe -t words tournament offered; else _files; fi",
            "}",
            'if [[ $funcstack[1] == _tournament ]]; then _tournament "$@"; else compdef _tournament tournament; fi\n',
        ]
    )


def fish(known: Sequence[Place]) -> str:
    """Return the script for fish."""
    lines = [
        "# fish completion of tournament",
        "function __tournament_at",
        "    set -l at tournament",
        "    for word in (commandline -opc)[2..-1]",
        '        switch "$at $word"',
        f"            case {' '.join(_quoted(place.at) for place in known[1:])}",
        '                set at "$at $word"',
        "        end",
        "    end",
        '    test "$at" = "$argv"',
        "end",
    ]
    for place in known:
        here = f"complete -c tournament -n {_quoted('__tournament_at ' + place.at)}"
        files = "-f " if place.words else ""
        for word, help in place.words.items():
            lines.append(f"{here} {files}-a {_quoted(word)} -d {_fish(help)}")
        for option in place.options:
            names = " ".join(
                f"-l {spelling[2:]}" if spelling.startswith("--") else f"-s {spelling[1:]}"
                for spelling in option.spellings
            )
            value = f" -x -a {_quoted(' '.join(option.choices))}" if option.choices else " -r" * option.takes_value
            lines.append(f"{here} {names}{value} -d {_fish(option.help)}")
    return "\n".join(lines) + "\n"


SCRIPTS = {"bash": bash, "zsh": zsh, "fish": fish}


def _steps(known: Sequence[Place]) -> str:
    """Return the pattern of all places but the first one, for `case` of bash and zsh."""
    return "|".join(_quoted(place.at) for place in known[1:])


def _values(known: Sequence[Place]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the pattern of a place and an option that takes a value, and the values that there are."""
    for place in known:
        for option in place.options:
            if option.takes_value:
                yield "|".join(_quoted(f"{place.at} {spelling}") for spelling in option.spellings), option.choices


def _bash_values(choices: Sequence[str]) -> str:
    """Return the command that offers the values of an option, "" where files are completed."""
    return f'COMPREPLY=($(compgen -W {_quoted(" ".join(choices))} -- "$current")); ' if choices else ""


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _quoted(text: str) -> str:
    """Return a text as one word of bash, zsh or fish that none of them reads anything in."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
