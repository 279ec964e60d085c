"""Newer products and behaviour for the scorers, without a tournament."""

from __future__ import annotations

from prefect import flow

from esci_tournament.flows import preparation
from esci_tournament.flows.governed import data_of_run, workspace_of_run
from esci_tournament.flows.progress import published


@flow(name="refresh", flow_run_name="newer data for the champion", validate_parameters=False)
def refresh(data: str | None = None) -> str:
    """Load and validate newer data, and have scorers take it up, or ask a reviewer; nothing is judged or promoted.

    Args:
        data: Folder, URL or `sql`; default: the setting `data`.

    Returns:
        The version of the data.

    Raises:
        DataError: If the data cannot be fetched or used, or a critical check fails.
    """
    workspace = workspace_of_run()
    with published(workspace):
        source = preparation.load(workspace, preparation.fetch(workspace, data_of_run(workspace, data)))
        preparation.validate(workspace, source)
        preparation.serve(workspace, source, "tournament champion refresh", by_hand=True)
        return source.version
