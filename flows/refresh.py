"""Newer products and behaviour for the scorers, without a tournament."""

from __future__ import annotations

from typing import Any

from prefect import flow

from esci_tournament.flows import preparation
from esci_tournament.flows.progress import published
from esci_tournament.registry.settings import read_settings
from esci_tournament.registry.workspace import Workspace


@flow(name="refresh", flow_run_name="newer data for the champion", validate_parameters=False)
def refresh(data: str | None = None, settings: dict[str, Any] | None = None) -> str:
    """Load and validate newer data, and have scorers take it up; nothing is judged or promoted.

    Args:
        data: Folder, URL or `sql`; default: the setting `data`.
        settings: Settings that differ from those of the environment.

    Returns:
        The version of the data.

    Raises:
        DataError: If the data cannot be fetched or used, or a critical check fails.
    """
    workspace = Workspace(read_settings(**(settings or {})))
    with published(workspace):
        source = preparation.load(workspace, preparation.fetch(workspace, data))
        preparation.validate(workspace, source)
        preparation.serve(workspace, source)
        return source.version
