"""Every command that a page tells to type is one that the program takes: its words, its options, its values."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from esci_tournament.deployments.cli import build_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
BLOCK = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)`tournament (?!\w+:)([^`]+)`(?!`)")
PARSER = build_parser()


def typed(text: str) -> list[list[str]]:
    """Return the words after `tournament` of every line in the page's blocks of shell."""
    found = []
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if command := re.search(r"(?:^|[|&;$] ?|\bbin/|=\S+ )tournament (.*)", line):
                words = shlex.split(command[1], comments=True)
                ends = [words.index(mark) for mark in (">", "&", "|", "&&", ";", "2>") if mark in words]
                found.append(words[: min(ends, default=len(words))])
    return found


def complaint(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        PARSER.parse_args(words)
    except SystemExit as end:
        return capsys.readouterr().err if end.code else ""
    return ""


def unknown(words: list[str], parser: argparse.ArgumentParser = PARSER) -> list[str]:
    """Return what is no part and no option of a command that may be told without its values."""
    parts = next((one for one in parser._actions if isinstance(one, argparse._SubParsersAction)), None)
    if parts and words and not words[0].startswith("-"):
        return unknown(words[1:], parts.choices[words[0]]) if words[0] in parts.choices else words[:1]
    named = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [word for word in named if word not in parser._option_string_actions]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_of_a_page_are_commands(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = {shlex.join(words): said for words in typed(text) if (said := complaint(words, capsys))}
    assert wrong == {}
    inline = typed(text) + [re.split(r"[ \n]+", found) for found in CODE.findall(text)]
    assert [words for words in inline if unknown(words)] == []


def test_pages_have_commands_and_a_wrong_one_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert sum(len(typed(page.read_text(encoding="utf-8"))) for page in PAGES) > 60
    told = "```sh\nA=1 tournament run --dta esci > out\ntournament champion shown\n```"
    assert all(complaint(words, capsys) for words in typed(told))
    assert [unknown(words.split()) for words in ("champion shown", "run --dat", "champion rollback --reason")] == [
        ["shown"],
        ["--dat"],
        [],
    ]
