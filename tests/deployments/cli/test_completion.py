"""`tournament completion`: what real shells offer at some words of a command line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from esci_tournament.deployments.cli import COMMANDS, build_parser
from esci_tournament.deployments.cli.completion import SCRIPTS, Option, Place, bash, fish, places, zsh

ASK = {
    "bash": 'source "$0"; complete -p tournament >/dev/null || exit 1; COMP_WORDS=(tournament "$@"); '
    'COMP_CWORD=$#; _tournament; printf "%s\\n" "${COMPREPLY[@]}"',
    # Without a terminal zsh completes nothing: what would be offered is printed instead
    "zsh": 'autoload -Uz compinit; compinit -D; source "$0"; [[ $_comps[tournament] == _tournament ]] || exit 1; '
    "_describe() { print -l -- ${(P)4%%:*} }; compadd() { print -l -- ${@:2} }; _files() { }; "
    'words=(tournament "$@"); CURRENT=$#words; PREFIX=$words[-1]; _tournament',
    "fish": 'source $argv[1]; complete -C "tournament $argv[2..-1]"',
}
START = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["--no-config", "-c"]}
KNOWN = list(places(build_parser(), "tournament"))


def offered(shell: str, folder: Path, *words: str, known: list[Place] = KNOWN) -> set[str]:
    """Return the words that a shell offers in place of the last one, which are those that begin like it."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = folder / f"tournament.{shell}"
    script.write_text(SCRIPTS[shell](known), encoding="utf-8")
    command = [shell, *START[shell], ASK[shell], str(script), *words]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    lines = [line.partition("\t")[0] for line in answer.stdout.splitlines() if line]
    return {line for line in lines if line.startswith(words[-1])}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_commands_parts_options_and_values_are_offered_where_they_may_stand(shell: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").touch()
    assert offered(shell, tmp_path, "") == set(COMMANDS)
    assert offered(shell, tmp_path, "re") == {"run", "reevaluate", "register", "report", "review"} - {"run"}
    assert {"show", "history", "rollback"} < offered(shell, tmp_path, "champion", "")
    assert offered(shell, tmp_path, "champion", "rollback", "--rea") == {"--reason"}
    assert offered(shell, tmp_path, "run", "--out-of-sample", "") == {"blend", "kfold"}
    assert offered(shell, tmp_path, "completion", "") == set(SCRIPTS)
    assert not offered(shell, tmp_path, "score", "--out", "") & set(COMMANDS)


@pytest.mark.parametrize("shell", SCRIPTS)
def test_no_word_of_a_help_is_run(shell: str, tmp_path: Path) -> None:
    evil = "it's $(touch ran) `touch ran`; touch ran #\\"
    known = [Place("tournament", {"go": evil}, (Option(("--far",), evil, False),), True), Place("tournament go")]
    assert offered(shell, tmp_path, "g", known=known) == {"go"}
    assert offered(shell, tmp_path, "--f", known=known) == {"--far"}
    assert not (tmp_path / "ran").exists()


def test_every_command_and_part_has_its_place() -> None:
    assert len({place.at for place in KNOWN}) == len(KNOWN)
    assert {f"tournament {name}" for name in COMMANDS} < {place.at for place in KNOWN}
    for script in (bash(KNOWN), zsh(KNOWN), fish(KNOWN)):
        assert all(place.at in script for place in KNOWN)
