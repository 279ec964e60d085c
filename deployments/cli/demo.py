"""`tournament demo`: two tournaments on a small generated data set."""

from __future__ import annotations

import argparse
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from esci_tournament.deployments.cli.common import Output, command, settings_of

DESCRIPTION = """\
Generate a small ESCI-like data set in three languages, hold a tournament of three language models and three graph
networks, and register the champion; then hold a second tournament with one more candidate. Nothing is downloaded.
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "demo", work, "hold two tournaments on a small generated data set", DESCRIPTION)
    parser.add_argument("--queries", type=int, default=1500, help="judged queries of the data set (default: 1500)")
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
    world = settings.home / f"world-{options.queries}-{options.seed}"
    if not (world / "world.json").is_file():
        synthesize(world, queries=options.queries, seed=options.seed)
    output.say(f"1. a data set of {options.queries:,} queries in three languages: {world}")
    specs = read_specs(Path(str(files("esci_tournament.deployments") / "demo.toml")))
    *first, newcomer = specs
    output.say(f"2. a tournament of {', '.join(spec.name for spec in first)}")
    outcome = run_tournament(settings, world, first, output.progress())
    if output.as_json:
        show_table(outcome, output)
    else:
        show(outcome, output)
    output.say(f"3. a tournament with one more candidate, {newcomer.name}")
    show(run_tournament(settings, world, [newcomer], output.progress()), output)
    without = f"env -u {MLFLOW_VARIABLE} " if elsewhere else ""
    output.say(f"next: {without}tournament champion show --home {settings.home}")


def show_table(outcome: Any, output: Output) -> None:
    """Show the table of the first tournament; the JSON document is that of the second one.

    Args:
        outcome: a :class:`~esci_tournament.flows.context.TournamentOutcome`.
        output: where the table goes.
    """
    from esci_tournament.tasks.report.table import render_table

    render_table(outcome.summary, output.console())
