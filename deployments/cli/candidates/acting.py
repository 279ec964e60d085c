"""`tournament candidates withdraw`, `cancel` and `retry`."""

from __future__ import annotations

import argparse

from esci_tournament.deployments.cli.common import Output, workspace_of


def withdraw(options: argparse.Namespace, output: Output) -> None:
    """Withdraw a candidate: it does not compete until it is registered again or retried."""
    from esci_tournament.registry.candidates import find_candidate, withdraw_candidate

    workspace = workspace_of(options)
    candidate = find_candidate(workspace, options.candidate)
    made, new = withdraw_candidate(workspace, candidate, options.reason)
    output.say(f"{candidate} is {'' if new else 'already '}{made}")
    output.say(f"it does not compete until it is registered again, or: tournament candidates retry {candidate}")
    output.document(_document(candidate, made, new))


def cancel(options: argparse.Namespace, output: Output) -> None:
    """Stop the training of a candidate, whose tournament goes on without it, or a tournament."""
    from esci_tournament.registry.candidates import cancel_candidate, cancel_tournament, find_candidate

    workspace = workspace_of(options)
    what = options.candidate
    if any(one.tournament == what for one in workspace.ledger.tournaments()):
        cancel_tournament(workspace, what, options.reason)
        output.say(f"tournament {what} ends within seconds; the command that held it would continue it")
        output.document({"tournament": what, "state": "cancelled", "reason": options.reason, "changed": True})
        return
    candidate = find_candidate(workspace, what)
    made, new = cancel_candidate(workspace, candidate, options.reason)
    output.say(f"{candidate} is {'' if new else 'already '}{made}")
    if new:
        output.say(f"its training stops within seconds, and {made.tournament} goes on without it")
    output.document(_document(candidate, made, new))


def retry(options: argparse.Namespace, output: Output) -> None:
    """Check refused candidates again, and put back those that failed or were withdrawn; one object for each."""
    from esci_tournament.deployments.local import quiet_prefect
    from esci_tournament.registry.candidates import find_candidate, put_back
    from esci_tournament.registry.queue import Queue

    workspace = workspace_of(options)
    quiet_prefect(workspace.settings)
    from esci_tournament.flows.intake import look_again

    queue = Queue(workspace.ledger)
    named = [find_candidate(workspace, name) for name in options.candidates]
    back = [candidate for candidate in named if put_back(workspace, candidate)]
    refused = queue.refused()
    left = [candidate for candidate in named if candidate not in back or candidate in refused]
    found = dict.fromkeys(back, "")
    if left or not named:
        found |= look_again(workspace, queue, left or None)
    for candidate, why in found.items():
        output.say(f"{candidate} is {'queued' if not why else 'still refused: ' + why}")
    if not found:
        output.say("no candidate is refused")
    if any(not why for why in found.values()):
        output.say("they compete in the next tournament: tournament run, or by themselves where tournament up runs")
    output.document([{"candidate": one, "queued": not why, "reason": why} for one, why in found.items()])


def _document(candidate: str, made: object, new: bool) -> dict[str, object]:
    from esci_tournament.registry.withdrawals import Withdrawal

    assert isinstance(made, Withdrawal)
    return {
        "candidate": candidate,
        "state": "withdrawn",
        "at": made.at.isoformat(),
        "by": made.by,
        "reason": made.reason,
        "tournament": made.tournament or None,
        "changed": new,
    }
