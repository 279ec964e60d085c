"""`tournament champion`: show the champion and its history, change it with a reason, and look after what serves."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from esci_tournament.deployments.cli.champion import changing, showing, upkeep
from esci_tournament.deployments.cli.common import add_common_options

DESCRIPTION = """\
Show the champion, compare versions of the ensemble, and change the champion with a reason. Every change is recorded,
and scorers follow within seconds.

examples:
  tournament champion show
  tournament champion compare 4                                version 4 and the champion
  tournament champion compare 4 2 --json
  tournament champion rollback --reason "slower than it looked"
  tournament champion rollback --to 2 --reason "since 3 the labels of es are off"
  tournament champion set 4 --reason "4 was fine, the logs were at fault"
  tournament champion undo --reason "typed the wrong number"   two undos are a redo
  tournament champion history --export history.csv
"""


def version_number(text: str) -> int:
    """Return the number that a version was given by, as `3`, `v3` or `esci-ensemble/3`."""
    number = text.rpartition("/")[2].removeprefix("v")
    if not number.isdecimal() or not int(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no version; it is a number such as 3, see: champion history")
    return int(number)


def add_parser(commands: Any) -> None:
    """Add the command and its parts."""
    parser = commands.add_parser(
        "champion",
        help="show the champion and its history, compare versions, or change it with a reason",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    shown = parts.add_parser("show", help="the champion, its members, its numbers and how to load it")
    past = parts.add_parser("history", help="every change: when, by whom and why, with numbers and links")
    past.add_argument("--export", type=Path, metavar="FILE", help="write it to a .json or .csv file")
    beside = parts.add_parser("compare", help="two versions side by side: members, numbers, cost, data, verdict")
    beside.add_argument("version", type=version_number, metavar="A", help="a version")
    beside.add_argument("other", type=version_number, nargs="?", metavar="B", help="default: the champion")
    back = parts.add_parser("rollback", help="make the champion before this one, or an earlier one, champion again")
    back.add_argument("--to", type=version_number, metavar="VERSION", help="one that was champion before this one")
    chosen = parts.add_parser("set", help="make any version champion that was approved")
    chosen.add_argument("version", type=version_number, metavar="VERSION", help="see: champion history")
    undone = parts.add_parser("undo", help="take the last promotion, rollback, set or undo back")
    for part in (back, chosen, undone):
        part.add_argument("--reason", required=True, help="why; recorded in the history")
    right = parts.add_parser("restore", help="reset aliases that were moved by hand to what the ledger says")
    newer = parts.add_parser("refresh", help="have scorers use newer products and behaviour; no model is judged")
    newer.add_argument(
        "--data", metavar="DIR|URL|sql", help="folder, archive or base address with the official files, or sql"
    )
    kept = parts.add_parser("attest", help="record which files a champion from before manifests were kept consists of")
    kept.add_argument("--reason", required=True, help="why these files are the right ones; recorded in the ledger")
    works = (
        *((shown, showing.show), (past, showing.history), (beside, showing.compare)),
        *((back, changing.rollback), (chosen, changing.choose), (undone, changing.undo)),
        *((right, upkeep.put_right), (newer, upkeep.refresh), (kept, upkeep.attest)),
    )
    for part, work in works:
        name = part.prog.rpartition(" ")[2]
        lines = [line for line in DESCRIPTION.splitlines() if line.startswith(f"  tournament champion {name}")]
        part.formatter_class = argparse.RawDescriptionHelpFormatter
        part.epilog = "\n".join(["examples:", *lines]) if lines else None
        add_common_options(part)
        part.set_defaults(work=work)
