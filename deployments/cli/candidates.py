"""`tournament candidates`: list the candidates and their states, and check refused ones again."""

from __future__ import annotations

import argparse
from typing import Any

from esci_tournament.deployments.cli.common import Output, command, workspace_of

DESCRIPTION = """\
List every candidate with its state: registered (not picked up yet), refused, queued, training, judged, in review,
member, benched or failed. The tag `tournament.state` of its version in MLflow has the same word.

A candidate that was refused is checked again from time to time by the watcher of `tournament up`, and at once by
`tournament candidates retry`: when the reason is mended (a setting, a folder, a permission, a missing package), it
is queued.

examples:
  tournament candidates
  tournament candidates retry                  all that were refused
  tournament candidates retry minilm/3
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "candidates", work, "list every candidate and its state", DESCRIPTION)
    parser.add_argument("action", nargs="?", choices=("list", "retry"), default="list", help="default: list")
    parser.add_argument("candidates", nargs="*", metavar="NAME/VERSION", help="those that are checked again")


def work(options: argparse.Namespace, output: Output) -> None:
    """List the candidates, or check again those that were refused."""
    from esci_tournament.registry.errors import UsageError

    if options.action == "retry":
        retry(options, output)
    elif options.candidates:
        raise UsageError("list takes no names; it lists every candidate")
    else:
        show_list(options, output)


def retry(options: argparse.Namespace, output: Output) -> None:
    """Check refused candidates again; the document has one object for each."""
    from esci_tournament.deployments.local import quiet_prefect
    from esci_tournament.registry.queue import Queue

    workspace = workspace_of(options)
    quiet_prefect(workspace.settings)
    from esci_tournament.flows.intake import look_again

    found = look_again(workspace, Queue(workspace.ledger), options.candidates or None)
    for candidate, why in found.items():
        output.say(f"{candidate} is {'queued' if not why else 'still refused: ' + why}")
    if not found:
        output.say("no candidate is refused")
    if any(not why for why in found.values()):
        output.say("they compete in the next tournament: tournament run, or by themselves where tournament up runs")
    document = [{"candidate": one, "queued": not why, "reason": why} for one, why in found.items()]
    output.document(document)


def show_list(options: argparse.Namespace, output: Output) -> None:
    """List all candidates in the order in which they were registered; the document has one object for each."""
    from esci_tournament.registry.states import CandidateState, states
    from esci_tournament.registry.versions import FLOW_RUN_TAG
    from esci_tournament.tasks.report.progress import read_progress

    workspace = workspace_of(options)
    known = states(workspace.ledger, workspace.settings.ensemble_name)
    running = workspace.folder("progress")
    rows = []
    for candidate in workspace.roll.candidates():
        version = candidate.version
        one = known.get(version.id, CandidateState())
        state, why = one.state, "; ".join(filter(None, [one.reason, candidate.difference]))
        if state == "registered" and version.complaint:
            state, why = "refused", version.complaint
        link = version.tags.get(FLOW_RUN_TAG, "")
        share, doing = (read_progress(running, one.flow_run) if state == "training" else None) or (None, "")
        rows.append(
            {
                "candidate": version.id,
                "family": version.spec.family if version.spec else "?",
                "state": state,
                "progress": share,
                "doing": doing,
                "tournament": one.tournament,
                "flow_run": one.flow_run,
                "link": link,
                "entered": version.entered,
                "metrics": version.metrics,
                "reason": why,
                "spec": version.spec.model_dump(mode="json") if version.spec else None,
                "differs": candidate.difference,
            }
        )
        shown = state if share is None else f"{state} {share:.0%}"
        words = "  ".join(word for word in (one.tournament, doing, why, link) if word)
        output.say(f"{version.id:<28} {rows[-1]['family']:<16} {shown:<13} {words}".rstrip())
    if not rows:
        output.say("no candidates yet; register some: tournament register --help")
    output.document(rows)
