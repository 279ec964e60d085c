"""`tournament data`: check, download, import or synthesize a data set, and decide which one scorers use."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

from esci_tournament.deployments.cli import served_data
from esci_tournament.deployments.cli.common import Output, add_common_options, failure, settings_of
from esci_tournament.registry.errors import DataError, UsageError
from esci_tournament.registry.spelling import counted


def add_parser(commands: Any) -> None:
    """Add the command and its parts."""
    parser = commands.add_parser(
        "data", help="check, download, import or synthesize data, and say which data scorers use"
    )
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
    importing = parts.add_parser("import", help="write the official files from other tables: CSV, JSON lines, parquet")
    importing.add_argument("source", type=Path, metavar="FOLDER", help="folder with the tables, or one table")
    importing.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder that receives the two files")
    importing.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=THEIRS",
        help="read the column THEIRS as the official NAME",
    )
    importing.add_argument(
        "--label", action="append", default=[], metavar="THEIRS=E", help="what a label means: E, S, C or I"
    )
    importing.add_argument("--locale", help="locale of tables without a column for it: us, es or jp")
    importing.add_argument("--split", help="split of tables whose columns and names do not tell it (default: train)")
    served_data.add_parts(parts)
    for part, work in ((checking, check), (download, fetch), (importing, import_), (world, generate)):
        add_common_options(part, home=False)
        part.set_defaults(work=work, home=None, uses_home=False)


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
    from esci_tournament.tasks.data.reading import Reading
    from esci_tournament.tasks.data.validate import check_folder, raise_if_critical

    settings = settings_of(options)
    result = check_folder(
        options.folder,
        options.docs,
        Bounds.of(settings),
        limits=LogLimits.of(settings),
        reading=Reading.of(settings),
    )
    for one in result.checks:
        mark = "ok  " if one.passed else ("FAIL" if one.critical else "warn")
        where = [Path(one.file).name] * bool(one.file) + [one.column] * bool(one.column)
        output.say(
            f"{mark}  {one.name}: {one.sentence}" + (f" ({', '.join(where)})" if where and not one.passed else "")
        )
    if result.docs:
        output.say(f"Data Docs: {result.docs}")
    if not result.passed:
        try:
            raise_if_critical(result)
        except DataError as error:
            told = failure(str(error), type(error).__name__, error.exit_code)
            output.document({"passed": False, "checks": [asdict(one) for one in result.checks]} | told)
            raise
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


def import_(options: argparse.Namespace, output: Output) -> None:
    """Write the official files from other tables, and say what was read, made up and left out.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        UsageError: if an option makes no sense.
    """
    from dataclasses import asdict

    from esci_tournament.deployments.cli.progress import bar
    from esci_tournament.registry.labels import LABELS, class_of
    from esci_tournament.tasks.data.importing import Options, import_tables

    settings = settings_of(options)
    labels = {theirs: class_of(meant) for theirs, meant in _pairs("--label", options.label).items()}
    if wrong := [theirs for theirs, number in labels.items() if number is None]:
        raise UsageError(f"--label {wrong[0]}=...: a class is one of {', '.join(LABELS)}")
    said = Options(
        columns=_pairs("--column", options.column),
        labels={
            **settings.data_labels,
            **{theirs: LABELS[number] for theirs, number in labels.items() if number is not None},
        },
        locale=options.locale,
        split=options.split,
        most_bytes=int(settings.data_max_gib * 2**30),
    )
    with bar(output.error_console(), "import") as progress:
        found = import_tables(options.source, options.to, said, progress)
    for sentence in (*found.tables, *found.made):
        output.say(sentence)
    for one in found.left_out:
        output.say(f"left out: {counted(one.count, 'row')}, because {one.reason}: {'; '.join(one.rows)}")
    output.say(
        f"{options.to} holds {found.pairs:,} pairs ({found.test_pairs:,} to test) and {found.products:,} products"
    )
    if not found.test_pairs:
        output.say("no pair is in the test split: set test_share = 0.2 in tournament.toml (TOURNAMENT_TEST_SHARE)")
    output.say(f"next: tournament data check {options.to}")
    output.document(asdict(found))


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    pairs = dict(one.rpartition("=")[::2] if option == "--label" else one.partition("=")[::2] for one in given)
    if "" in pairs or "" in pairs.values():
        raise UsageError(
            f"{option} is spelt NAME=VALUE, such as {option} {'3=E' if option == '--label' else 'query=term'}"
        )
    return pairs


def generate(options: argparse.Namespace, output: Output) -> None:
    """Generate a data set in a folder."""
    from esci_tournament.tasks.data.synthesize import synthesize

    behaviour: bool | Literal["shuffled"] = "shuffled" if options.behaviour == "shuffled" else options.behaviour == "on"
    synthesize(options.to, queries=options.queries, seed=options.seed, noise=options.noise, behaviour=behaviour)
    output.say(f"{options.to} holds a generated data set; next: tournament run --data {options.to} --candidates FILE")
    output.document({"folder": str(options.to)})
