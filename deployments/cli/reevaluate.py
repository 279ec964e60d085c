"""`tournament reevaluate`: evaluate champion and bench again on the newest data."""

from __future__ import annotations

import argparse
from typing import Any

from esci_tournament.deployments.cli.common import (
    Output,
    add_tournament_options,
    command,
    settings_of,
    tournament_settings,
)

DESCRIPTION = """\
Fetch the newest data, note how it has drifted, and evaluate the champion's members and the bench (models once evicted
or refused) on it, with the models they have: nothing is fitted again unless the setting `refit` says so. Then the same
challenger, judgement, verdict and review as in any tournament. When nothing has changed it says so and ends.

This is what the deployment reevaluate/weekly runs by itself.

examples:
  tournament reevaluate                                 data from where the setting `data` says
  tournament reevaluate --data esci-week-48/
  tournament reevaluate --data https://data.example.com/esci.tar.gz --json > result.json
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "reevaluate", work, "evaluate champion and bench again on the newest data", DESCRIPTION)
    parser.add_argument(
        "--data", metavar="DIR|URL|sql", help="folder, archive or base address with the official files, or sql"
    )
    add_tournament_options(parser)


def work(options: argparse.Namespace, output: Output) -> None:
    """Evaluate again and show what came of it."""
    from esci_tournament.deployments.local import run_reevaluation

    settings = settings_of(options, **tournament_settings(options))
    show(run_reevaluation(settings, options.data, output.progress()), output)


def show(renewed: Any, output: Output) -> None:
    """Show what a re-evaluation came to: the table of its tournament, and the champion before and after."""
    import json

    from esci_tournament.tasks.report.renewal import in_words
    from esci_tournament.tasks.report.table import render_table

    outcome = renewed.outcome
    if not outcome.unchanged:
        render_table(outcome.summary, output.console())
    output.say(in_words(renewed.facts))
    if outcome.summary.drift:
        output.say(outcome.summary.drift["sentence"])
    for candidate, reason in renewed.facts.get("excluded", {}).items():
        output.say(f"not on the bench: {candidate} ({reason})")
    output.say(f"report: {outcome.report}")
    document = json.loads(outcome.summary.to_json())
    more = {"report": str(outcome.report), "unchanged": outcome.unchanged, "reevaluation": renewed.facts}
    output.document(document | more)
