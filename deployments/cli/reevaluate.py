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
    warn_of_another,
)

DESCRIPTION = """\
Fetch the newest data, measure how it has drifted, and evaluate the champion's members and the bench (models that were
evicted or refused) on it. Models are not fitted again unless the setting `refit` says so. A challenger is then chosen,
tested and reviewed as in any tournament. When nothing has changed, nothing is done.

The deployment reevaluate/weekly does the same on a schedule.

Other data than that of the setting `data` is on trial: scorers keep the data that they use, and a challenger that
passes waits for a person, whatever the settings say. --serve lifts that, and --trial asks for it. A trial that refuses
its challenger spends error probability like any other look at test pairs.

examples:
  tournament reevaluate                                 on the data of the setting `data`; scorers take it up
  tournament reevaluate --data esci-week-48/            a trial
  tournament reevaluate --data https://data.example.com/esci.tar.gz --serve --json > result.json
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "reevaluate", work, "evaluate champion and bench again on the newest data", DESCRIPTION)
    parser.add_argument(
        "--data", metavar="DIR|URL|sql", help="folder, archive or base address with the official files, or sql"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--trial", action="store_true", help="change nothing that serves (default with other data)")
    how.add_argument("--serve", action="store_true", help="let scorers take up the data, as the weekly run does")
    add_tournament_options(parser)


def work(options: argparse.Namespace, output: Output) -> None:
    """Evaluate champion and bench again and show the outcome."""
    from esci_tournament.deployments.local import run_reevaluation

    settings = settings_of(options, **tournament_settings(options))
    other = options.data is not None and options.data != settings.data
    trial = options.trial or (other and not options.serve)
    show(run_reevaluation(settings, options.data, output.progress(), trial), output)
    warn_of_another(settings, output)


def show(renewed: Any, output: Output) -> None:
    """Show the outcome of a re-evaluation: the table of its tournament, and the champion before and after.

    Args:
        renewed: a :class:`~esci_tournament.flows.context.Renewed`.
        output: where the words or the document go.
    """
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
