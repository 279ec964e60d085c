"""The help of every command has examples, and each of them is a command line that the program takes."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest

from esci_tournament.deployments.cli import build_parser
from esci_tournament.deployments.cli.examples import EXAMPLES, parts_of

COMMAND = re.compile(r"^  (tournament (?:.*\\\n)*.*)$", re.MULTILINE)
REMARK = re.compile(r" {2,}\S.*$")


def leaves(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = list(parts_of(parser))
    for word, part in below:
        yield from leaves(part, f"{name} {word}".strip())
    if not below:
        yield name, parser


def examples_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return the command lines in the help of a command, without the remarks beside them."""
    found = [one.replace("\\\n", " ") for one in COMMAND.findall(f"{parser.description}\n{parser.epilog}")]
    return [REMARK.sub("", re.sub(r"(?<= ) +(?=--)", "", one)) for one in found]


LEAVES = dict(leaves(build_parser()))


@pytest.mark.parametrize("name", LEAVES)
def test_a_command_has_examples_that_it_takes(name: str) -> None:
    found = examples_of(LEAVES[name])
    own = [one for one in found if f"{one} ".startswith(f"tournament {name} ")]
    assert own, LEAVES[name].format_help()
    for one in found:
        words = shlex.split(one.partition(" > ")[0].partition(" | ")[0])
        options = build_parser().parse_args(words[1:])
        assert callable(options.work), one


def test_no_example_is_of_a_command_that_is_gone() -> None:
    assert EXAMPLES.keys() - LEAVES.keys() == set()


def test_a_group_shows_an_example_of_its_parts() -> None:
    groups = {name: parser for name, parser in parts_of(build_parser()) if list(parts_of(parser))}
    assert [name for name, parser in groups.items() if not examples_of(parser)] == []
