"""`tournament run`: hold one tournament."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from esci_tournament.deployments.cli.common import (
    Output,
    add_tournament_options,
    checked_specs,
    command,
    settings_of,
    tournament_settings,
    warn_of_another,
)

DESCRIPTION = """\
Hold one tournament: validate the data, train and score every candidate that is new, rank all members by SHAP,
keep as many as the budget carries, test the challenger against the champion, and promote it if it is better.

A run that was interrupted or killed continues where it stopped; one with nothing new trains nothing.

examples:
  tournament run --data esci/ --candidates candidates.toml
  tournament run --data esci/                              the candidates that `tournament register` registered
  tournament run --data esci/ --candidates c.toml --budget-latency-ms 50 --json > result.json
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "run", work, "hold a tournament on a data folder", DESCRIPTION)
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR|URL|sql",
        help="folder, archive or base address with the ESCI files, or sql",
    )
    parser.add_argument("--candidates", type=Path, metavar="FILE", help="TOML file with [[candidate]] tables")
    add_tournament_options(parser)


def work(options: argparse.Namespace, output: Output) -> None:
    """Hold the tournament and show its outcome."""
    from esci_tournament.deployments.local import run_tournament

    settings = settings_of(options, **tournament_settings(options))
    specs = checked_specs(options.candidates, settings) if options.candidates else []
    outcome = run_tournament(settings, options.data, specs, output.progress())
    show(outcome, output)
    warn_of_another(settings, output)


def show(outcome: Any, output: Output) -> None:
    """Show the outcome of a tournament: its table and where its report is.

    Args:
        outcome: a :class:`~esci_tournament.flows.context.TournamentOutcome`.
        output: where the table or the document go.
    """
    import json

    from esci_tournament.tasks.report.table import render_table

    if outcome.unchanged:
        output.say("Nothing has changed since this tournament was held; nothing was trained.")
    render_table(outcome.summary, output.console())
    output.say(f"report: {outcome.report}")
    if outcome.summary.awaits_review:
        output.say("it waits for a reviewer: tournament review list")
    document = json.loads(outcome.summary.to_json()) | {"report": str(outcome.report), "unchanged": outcome.unchanged}
    output.document(document)
