"""`tournament data`: check, download or synthesize a data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

from esci_tournament.deployments.cli.common import Output, add_common_options, settings_of


def add_parser(commands: Any) -> None:
    """Add the command and its three parts."""
    parser = commands.add_parser("data", help="check, download or synthesize a data set")
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    checking = parts.add_parser("check", help="validate a data folder and list everything that is wrong with it")
    checking.add_argument("folder", type=Path, help="folder with the official file names")
    checking.add_argument("--docs", type=Path, metavar="DIR", help="write Great Expectations' Data Docs here")
    download = parts.add_parser("download", help="fetch the Shopping Queries Dataset; resumable, checksummed")
    download.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder that receives the two files")
    download.add_argument("--base-url", help="another address that serves the same files")
    world = parts.add_parser("synthesize", help="generate a small ESCI-like data set with behaviour events")
    world.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder that receives the files")
    world.add_argument("--queries", type=int, default=1200, help="judged queries (default: 1200)")
    world.add_argument("--noise", type=float, default=0.05, help="share of labels that are wrong (default: 0.05)")
    world.add_argument("--seed", type=int, default=0, help="seed; the same one gives the same files (default: 0)")
    world.add_argument(
        "--behaviour",
        choices=("on", "off", "shuffled"),
        default="on",
        help="customers' events; shuffled: without information about relevance (default: on)",
    )
    for part, work in ((checking, check), (download, fetch), (world, generate)):
        add_common_options(part, home=False)
        part.set_defaults(work=work, home=None)


def check(options: argparse.Namespace, output: Output) -> None:
    """Show the outcome of every check of a data folder.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        DataError: if a critical check failed.
    """
    from dataclasses import asdict

    from esci_tournament.tasks.data.bounds import Bounds
    from esci_tournament.tasks.data.logs import LogLimits
    from esci_tournament.tasks.data.validate import check_folder, raise_if_critical

    settings = settings_of(options)
    result = check_folder(options.folder, options.docs, Bounds.of(settings), limits=LogLimits.of(settings))
    for one in result.checks:
        mark = "ok  " if one.passed else ("FAIL" if one.critical else "warn")
        output.say(f"{mark}  {one.name}: {one.sentence}")
    if result.docs:
        output.say(f"Data Docs: {result.docs}")
    if not result.passed:
        output.document({"passed": False, "checks": [asdict(one) for one in result.checks]})
    raise_if_critical(result)
    output.document({"passed": True, "checks": [asdict(one) for one in result.checks], "data_docs": result.docs})


def fetch(options: argparse.Namespace, output: Output) -> None:
    """Download the official files into a folder."""
    from esci_tournament.deployments.cli.progress import bar
    from esci_tournament.tasks.data.download import BASE_URL, download

    settings_of(options)
    with bar(output.error_console(), "download") as progress:
        paths = download(options.to, base_url=options.base_url or BASE_URL, progress=progress)
    output.say(f"{options.to} holds the data set; next: tournament data check {options.to}")
    output.document({"files": [str(path) for path in paths]})


def generate(options: argparse.Namespace, output: Output) -> None:
    """Generate a data set in a folder."""
    from esci_tournament.tasks.data.synthesize import synthesize

    behaviour: bool | Literal["shuffled"] = "shuffled" if options.behaviour == "shuffled" else options.behaviour == "on"
    synthesize(options.to, queries=options.queries, seed=options.seed, noise=options.noise, behaviour=behaviour)
    output.say(f"{options.to} holds a generated data set; next: tournament run --data {options.to} --candidates FILE")
    output.document({"folder": str(options.to)})
