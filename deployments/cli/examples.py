"""Examples below the help of commands whose description has none."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator

_WIDTH = 100  # of a description that argparse would have wrapped
_OF_A_GROUP = 4
_HAS_EXAMPLES = re.compile(r"^example.*:\n(?:.*\n)*?  tournament ", re.MULTILINE)

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("tournament demo", "tournament demo --full --home /tmp/demo"),
    "down": ("tournament down", "tournament down --home .tournament/demo"),
    "deploy": ("tournament deploy", "tournament deploy --api http://prefect.example.com:4200/api"),
    "policy show": ("tournament policy show",),
    "policy history": ("tournament policy history", "tournament policy history --json"),
    "policy set": (
        'tournament policy set quorum=2 --reason "two people look after search"',
        'tournament policy set review=required reviewers=ana,ben --reason "nobody else decides"',
    ),
    "policy adopt": ('tournament policy adopt --reason "tournament.toml says it now"',),
    "policy enrol": ("tournament policy enrol ana",),
    "policy withdraw": ("tournament policy withdraw ana",),
    "ledger verify": (
        "tournament ledger verify",
        "tournament ledger verify --checkpoint /elsewhere/2026-11-26.json",
    ),
    "ledger checkpoint": (
        "tournament ledger checkpoint",
        "tournament ledger checkpoint --out /elsewhere/2026-11-26.json",
    ),
    "ledger repair": ('tournament ledger repair --reason "triggers were dropped in an upgrade of the database"',),
    "ledger migrate": ("tournament ledger migrate",),
    "ledger grant": ("tournament ledger grant worker ledger_worker",),
    "data check": ("tournament data check esci/", "tournament data check esci/ --docs docs/"),
    "data download": ("tournament data download --to esci/",),
    "data synthesize": (
        "tournament data synthesize --to world/",
        "tournament data synthesize --to world/ --queries 300 --behaviour off",
    ),
    "data import": (
        "tournament data import judgements/ --to esci/ --locale us",
        "tournament data import judgements/ --to esci/ --column query=term --label 3=E --label 0=I",
    ),
    "data served": ("tournament data served", "tournament data served --json"),
    "data serve": ('tournament data serve 0f3c9a1b22d4 --reason "the new catalogue is complete"',),
    "data refuse": ('tournament data refuse 0f3c9a1b22d4 --reason "half of the prices are missing"',),
    "data undo": ('tournament data undo --reason "scorers miss the products of last week"',),
    "review list": ("tournament review list", "tournament review list --all"),
    "review show": ("tournament review show 7", "tournament review show t-0123456789abcdef"),
    "review approve": ('tournament review approve 7 --reviewer ana --reason "better in every locale"',),
    "review refuse": ('tournament review refuse 7 --reviewer ana --reason "too slow for what it gains"',),
    "champion restore": ("tournament champion restore",),
    "champion refresh": ("tournament champion refresh", "tournament champion refresh --data esci-week-48/"),
    "champion attest": ('tournament champion attest --reason "installed by release 1.0, files compared by hand"',),
    "keys create": ("tournament keys create shop", "tournament keys create shop --rate 50"),
    "keys list": ("tournament keys list",),
    "keys revoke": ("tournament keys revoke shop",),
    "report": (
        "tournament report",
        "tournament report t-0123456789abcdef --markdown > report.md",
    ),
    "doctor": ("tournament doctor", "tournament doctor --all"),
}


def add_examples(parser: argparse.ArgumentParser, name: str = "") -> None:
    """Give examples to every command below a parser that has none; a group gets the first one of each of its parts.

    Args:
        parser: The parser of the whole command line, or of a command.
        name: The words that lead to it.
    """
    below = list(parts_of(parser))
    for word, part in below:
        add_examples(part, f"{name} {word}".strip())
    if not name or has_examples(parser):
        return
    lines = EXAMPLES.get(name, ())
    if below:
        lines = tuple(EXAMPLES[f"{name} {word}"][0] for word, _ in below)[:_OF_A_GROUP]
    parser.epilog = "\n".join(["examples:" if len(lines) > 1 else "example:", *(f"  {line}" for line in lines)])
    if parser.formatter_class is argparse.HelpFormatter:
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.description = parser.description and textwrap.fill(parser.description, _WIDTH)


def parts_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the name and the parser of each command or part that follows a parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def has_examples(parser: argparse.ArgumentParser) -> bool:
    """Tell whether the help of a command has examples."""
    return any(_HAS_EXAMPLES.search(f"{text}\n") for text in (parser.description, parser.epilog) if text)
