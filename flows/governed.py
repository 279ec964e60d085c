"""The workspace of a flow run: settings of its process under the ledger's policy, and no word of whoever asked."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from esci_tournament.registry.errors import PolicyError
from esci_tournament.registry.policies import govern
from esci_tournament.registry.settings import Settings, settings_in_force
from esci_tournament.registry.workspace import Workspace


def workspace_of_run() -> Workspace:
    """Return the workspace of this flow run.

    Its settings are those that the process was given or finds in its file and environment. A flow run's parameters
    carry none: whoever may start a run in Prefect may not say by which rules it decides.

    Raises:
        PolicyError: if a setting asks for less than the policy in the ledger does.
    """
    asked = Workspace(settings_in_force())
    with asked.ledger:
        return Workspace(governed(asked))


def governed(workspace: Workspace) -> Settings:
    """Return a workspace's settings under the ledger's policy as it is now; errors as :func:`workspace_of_run`."""
    return govern(workspace.ledger, workspace.settings, _may_name_api() and _has_api())


def _may_name_api() -> bool:
    """Return whether anything could name a Prefect API; where nothing does, Prefect takes a second to say so."""
    named = ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")
    if "prefect" in sys.modules or any(os.environ.get(name) for name in named):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    files = (Path(".env"), Path("prefect.toml"), Path("pyproject.toml"), home / "profiles.toml")
    return any(file.exists() for file in files)


def _has_api() -> bool:
    from esci_tournament.flows.links import has_api

    return has_api()


def data_of_run(workspace: Workspace, asked: str | None) -> str | None:
    """Return what a run competes on; a run of a deployment may only name the data that its worker is set to.

    Args:
        workspace: Settings and stores.
        asked: Folder, URL or `sql` as the run's parameter says, None for the setting `data`.

    Raises:
        PolicyError: if a run of a deployment names other data: its labels would decide who wins.
    """
    from prefect import runtime

    ours = workspace.settings.data
    if asked is not None and runtime.deployment.id and asked != ours:
        raise PolicyError(
            f"this run asks for the data {asked!r}, and its worker is set to {ours!r}; a run that is started in "
            "Prefect competes on the worker's data: leave the parameter out, or change the setting `data`"
        )
    return ours if asked is None else asked
