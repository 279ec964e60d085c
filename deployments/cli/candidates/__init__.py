"""`tournament candidates`: the candidates, their stories, and what an engineer does with them."""

from __future__ import annotations

import argparse
from typing import Any

from esci_tournament.deployments.cli.candidates import acting, listing
from esci_tournament.deployments.cli.common import add_common_options, command

DESCRIPTION = """\
List every candidate with its state: registered (not picked up yet), refused, queued, training, judged, in review,
member, benched, failed, interrupted (its tournament was killed; the same command continues it) or withdrawn. The tag
`tournament.state` of its version in MLflow has the same word. NAME alone is the newest version of that name.

examples:
  tournament candidates                                        all of them
  tournament candidates show minilm                            the story of the newest version, with the end of its log
  tournament candidates show minilm/3 --json
  tournament candidates withdraw minilm/3 --reason "trained on the wrong export"
  tournament candidates cancel minilm/3 --reason "diverges"    its training stops, and the tournament goes on
  tournament candidates cancel t-0123456789abcdef --reason "the data is old"
  tournament candidates retry                                  all that were refused are checked again
  tournament candidates retry minilm/3                         also one that failed or was withdrawn
"""


def add_parser(commands: Any) -> None:
    """Add the command and its parts; without a part, it lists."""
    parser = command(
        commands, "candidates", listing.show_list, "list every candidate, and show, withdraw, cancel or retry one"
    )
    parser.description, parser.formatter_class = DESCRIPTION, argparse.RawDescriptionHelpFormatter
    parts = parser.add_subparsers(dest="part", metavar="PART")
    works = (
        ("list", listing.show_list, "every candidate and its state"),
        ("show", listing.show, "all that is known of one: every event with its reason, numbers, its log, links"),
        ("withdraw", acting.withdraw, "have one compete no more, until it is registered again or retried"),
        ("cancel", acting.cancel, "stop the training of one, or a tournament that runs"),
        ("retry", acting.retry, "check refused ones again, and put back those that failed or were withdrawn"),
    )
    for name, work, help in works:
        # What was given before the part stands: an option that is not given here sets nothing.
        part = parts.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog=_example(name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
        )
        if name in ("show", "withdraw"):
            part.add_argument("candidate", metavar="NAME[/VERSION]", help="a candidate; the newest of its name")
        if name == "cancel":
            part.add_argument("candidate", metavar="NAME[/VERSION]|TOURNAMENT", help="what is to stop")
        if name in ("withdraw", "cancel"):
            part.add_argument("--reason", required=True, help="why; it is recorded")
        if name == "retry":
            part.add_argument(
                "candidates", nargs="*", default=[], metavar="NAME[/VERSION]", help="default: all refused"
            )
        add_common_options(part)
        part.set_defaults(work=work)


def _example(part: str) -> str:
    """Return the examples of a part, of those in the description."""
    lines = [line for line in DESCRIPTION.splitlines() if line.startswith(f"  tournament candidates {part} ")]
    return "\n".join(["examples:", *(lines or [f"  tournament candidates {part}"])])
