"""`tournament champion rollback`, `set` and `undo`: changes of the champion that an operator makes, with a reason."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from esci_tournament.deployments.cli.common import Output, say_where, served_workspace_of

if TYPE_CHECKING:
    from esci_tournament.registry.records import Promotion
    from esci_tournament.registry.workspace import Workspace


def rollback(options: argparse.Namespace, output: Output) -> None:
    """Make the champion before this one, or the one of `--to`, champion again."""
    from esci_tournament.registry.promotion import rollback as step_back

    workspace = served_workspace_of(options)
    before = _sequence(workspace)
    made = step_back(workspace.ledger, workspace.models, options.reason, to=options.to)
    _tell(workspace, output, made, before, options.reason, "rolled back: version {} is champion again")


def choose(options: argparse.Namespace, output: Output) -> None:
    """Make a version champion that was approved."""
    from esci_tournament.registry.promotion import set_champion

    workspace = served_workspace_of(options)
    before = _sequence(workspace)
    made = set_champion(workspace.ledger, workspace.models, options.version, options.reason)
    _tell(workspace, output, made, before, options.reason, "version {} was set in place as champion")


def undo(options: argparse.Namespace, output: Output) -> None:
    """Take the last change of the champion back."""
    from esci_tournament.registry.promotion import undo as take_back

    workspace = served_workspace_of(options)
    before = _sequence(workspace)
    made = take_back(workspace.ledger, workspace.models, options.reason)
    _tell(workspace, output, made, before, options.reason, "the last change was undone: version {} is champion again")


def _sequence(workspace: Workspace) -> int:
    return workspace.ledger.standing(workspace.settings.ensemble_name).sequence


def _tell(workspace: Workspace, output: Output, made: Promotion, before: int, reason: str, title: str) -> None:
    """Say what was changed; announce it when a Prefect server is at hand."""
    changed = _sequence(workspace) != before
    if changed and "PREFECT_API_URL" in os.environ:
        _announce(workspace, made.version, title.format(made.version), reason)
    if changed:
        output.say(f"champion is version {made.version} now; {reason}")
    else:
        output.say(f"version {made.version} is champion already; nothing was changed")
    say_where(workspace.settings, output)
    output.document({"version": made.version, "sequence": made.sequence, "reason": reason, "changed": changed})


def _announce(workspace: Workspace, version: int, title: str, reason: str) -> None:
    from esci_tournament.deployments.local import quiet_prefect

    quiet_prefect(workspace.settings)
    from esci_tournament.flows.announce import announce

    name = f"{workspace.settings.ensemble_name}/{version}"
    announce("promotion", name, {"title": title, "text": reason})
