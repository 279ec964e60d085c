"""The weekly re-evaluation: a tournament of champion and bench on the newest data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from prefect import flow

from esci_tournament.flows import preparation, renewal
from esci_tournament.flows.announce import announce
from esci_tournament.flows.context import Renewed, TournamentOutcome
from esci_tournament.flows.governed import data_of_run, workspace_of_run
from esci_tournament.flows.links import this_run
from esci_tournament.flows.progress import publish_outcome, published
from esci_tournament.flows.tournament import compete
from esci_tournament.flows.turn import turn
from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.workspace import Workspace


@flow(name="reevaluate", flow_run_name="champion and bench again", validate_parameters=False)
def reevaluate(data: str | None = None, trial: bool = False) -> Renewed:
    """Evaluate champion and bench again, on data that may be newer; nothing is trained that need not be.

    Args:
        data: Folder, URL or `sql`; default: the setting `data`.
        trial: Whether nothing that serves may change by it: scorers keep their data, and a challenger that passes waits
            for a person whatever the settings say.

    Returns:
        The outcome of the tournament, and the facts that the ledger has of it.

    Raises:
        TournamentError: Any of our errors that ends the run early; it is announced as a failure.
    """
    with _told():
        workspace = workspace_of_run()
        data = data_of_run(workspace, data)
    with _told(), turn(workspace, "a re-evaluation"), published(workspace):
        renewed = again(workspace, data, trial)
        publish_outcome(renewed.outcome)
        renewal.publish(renewed)
        return renewed


def again(workspace: Workspace, data: str | None, trial: bool = False) -> Renewed:
    """Evaluate champion and bench again, inside a flow that holds the locks.

    Args:
        workspace: Settings and stores.
        data: Folder, URL or `sql`; None for the setting `data`.
        trial: As for :func:`reevaluate`.

    Returns:
        The outcome of the tournament, and the facts that the ledger has of it.
    """
    folder = preparation.fetch(workspace, data)
    source = preparation.load(workspace, folder)
    checked = preparation.validate(workspace, source)
    serves = not trial and preparation.serve(workspace, source, "the re-evaluation")
    roles = preparation.split(workspace, source)
    drift = preparation.drift(workspace, source)
    context = preparation.enter(workspace, source, roles, [], again=True, drift=drift)
    before = renewal.champion_before(workspace, context)
    context = replace(context, trial=trial)
    outcome: TournamentOutcome = context.unchanged or compete(workspace, context, checked)
    return renewal.record(workspace, context, outcome, before, drift, serves)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Announce the error that ends a run."""
    try:
        yield
    except TournamentError as error:
        content = {"title": "The re-evaluation ended early", "text": str(error), "links": this_run()}
        announce("failure", "reevaluation", content)
        raise
