"""`tournament demo`: two tournaments on a small generated data set."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from esci_tournament.deployments.cli.common import Output, command, settings_of
from esci_tournament.deployments.cli.progress import Whole, estimated, minutes

DESCRIPTION = """\
Generate a small ESCI-like data set in three languages, hold a tournament of a language model and a graph network, and
register the champion; then hold a second tournament with one more graph network. With --full, three language models and
three graph networks compete in the first one. Nothing is downloaded.
"""
QUERIES = 1500


@dataclass(frozen=True)
class Demo:
    """One of the demos.

    Attributes:
        candidates: File of its candidates beside this package; the last one enters in the second tournament.
        serial_s: Seconds that no second core shortens, for :data:`QUERIES` queries.
        shared_s: Seconds of one core's work that all cores share, for the same.
        first: Share of the time until the first tournament has ended.
    """

    candidates: str
    serial_s: float
    shared_s: float
    first: float

    def seconds(self, cores: int, queries: int) -> float:
        """Return about how long it takes on cores that do nothing else; half of the work does not depend on queries."""
        return (self.serial_s + self.shared_s / cores) * (1 + queries / QUERIES) / 2


# Processor time on two cores of an AMD EPYC; FULL took 193 s there
QUICK = Demo("demo_quick.toml", serial_s=85.0, shared_s=70.0, first=0.62)
FULL = Demo("demo.toml", serial_s=105.0, shared_s=176.0, first=0.65)


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "demo", work, "hold two tournaments on a small generated data set", DESCRIPTION)
    parser.add_argument("--full", action="store_true", help="six candidates in the first tournament, not three")
    parser.add_argument("--queries", type=int, default=QUERIES, help="judged queries of the data set (default: 1500)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data set and of every model (default: 0)")


def work(options: argparse.Namespace, output: Output) -> None:
    """Hold the two tournaments of the demo."""
    from esci_tournament.deployments.cli.run import show
    from esci_tournament.deployments.local import run_tournament
    from esci_tournament.registry.addresses import without_password
    from esci_tournament.registry.settings import MLFLOW_VARIABLE
    from esci_tournament.registry.specs import read_specs
    from esci_tournament.tasks.data.synthesize import synthesize

    options.home = options.home or Path(".tournament/demo")
    # Its champion must not take the alias of the one that somebody's server holds
    if elsewhere := os.environ.pop(MLFLOW_VARIABLE, ""):
        output.say(f"{MLFLOW_VARIABLE} ({without_password(elsewhere)}) is not used: the demo's models stay in its home")
    # It is to end with a champion, also where a Prefect API asks for reviews by default.
    review = "none" if os.environ.get("PREFECT_API_URL") else None
    settings = settings_of(options, seed=options.seed, review=review)
    demo = FULL if options.full else QUICK
    expected = demo.seconds(settings.cores, options.queries)
    output.say(length_in_words(expected, demo.first * expected, settings.cores))
    whole = Whole(expected, (demo.first, 1.0))
    world = settings.home / f"world-{options.queries}-{options.seed}"
    if not (world / "world.json").is_file():
        synthesize(world, queries=options.queries, seed=options.seed)
    output.say(f"1. a data set of {options.queries:,} queries in three languages: {world}")
    specs = read_specs(Path(str(files("esci_tournament.deployments") / demo.candidates)))
    *first, newcomer = specs
    output.say(f"2. a tournament of {', '.join(spec.name for spec in first)}")
    outcome = run_tournament(settings, world, first, estimated(output.progress(), whole))
    if output.as_json:
        show_table(outcome, output)
    else:
        show(outcome, output)
    whole.next_part()
    output.say(f"3. a tournament with one more candidate, {newcomer.name}; {whole.words()}")
    show(run_tournament(settings, world, [newcomer], estimated(output.progress(), whole)), output)
    without = f"env -u {MLFLOW_VARIABLE} " if elsewhere else ""
    output.say(f"next: {without}tournament champion show --home {settings.home}")


def length_in_words(seconds: float, first: float, cores: int) -> str:
    """Return the demo's first line: how long it will take.

    Args:
        seconds: All of it.
        first: Until the first result.
        cores: Cores that may be used.

    Returns:
        The line.

    Example:
        >>> length_in_words(170, 100, 2)
        'about 3 minutes on 2 idle cores, the first result after about 2 minutes; a busy machine takes longer'
    """
    on = f"{cores} idle core{'s' if cores > 1 else ''}"
    return (
        f"about {minutes(seconds)} on {on}, the first result after about {minutes(first)}; a busy machine takes longer"
    )


def show_table(outcome: Any, output: Output) -> None:
    """Show the table of the first tournament; the JSON document is that of the second one.

    Args:
        outcome: a :class:`~esci_tournament.flows.context.TournamentOutcome`.
        output: where the table goes.
    """
    from esci_tournament.tasks.report.table import render_table

    render_table(outcome.summary, output.console())
