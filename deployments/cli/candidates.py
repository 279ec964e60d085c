"""`tournament candidates`: every candidate and what became of it."""

from __future__ import annotations

import argparse
from typing import Any

from deployments.cli.common import Output, command, workspace_of


def add_parser(commands: Any) -> None:
    """Add the command."""
    command(commands, "candidates", work, "list every candidate and what became of it")


def work(options: argparse.Namespace, output: Output) -> None:
    """List all candidates in the order they were registered."""
    workspace = workspace_of(options)
    ledger, models = workspace.ledger, workspace.models
    champion = ledger.champion(models.ensemble_name)
    members = set(models.ensemble(champion.version).members) if champion else set()
    states = {entry.candidate: entry.tournament for entry in ledger.entries()}
    failed = {event.subject: event.payload["reason"] for event in ledger.events(kind="candidate_failed")}
    rows = []
    for version in models.candidates():
        state, why = "waiting", version.complaint
        if version.id in members:
            state = "member"
        elif version.id in failed:
            state, why = "failed", failed[version.id]
        elif version.id in states:
            state = "benched"
        elif version.complaint:
            state = "unreadable"
        rows.append(
            {
                "candidate": version.id,
                "family": version.spec.family if version.spec else "?",
                "state": state,
                "tournament": states.get(version.id, ""),
                "entered": version.entered,
                "metrics": version.metrics,
                "reason": why,
            }
        )
        output.say(f"{version.id:<28} {rows[-1]['family']:<16} {state:<10} {rows[-1]['tournament']:<20} {why}")
    if not rows:
        output.say("no candidates yet; register some: tournament register --help")
    output.document(rows)
