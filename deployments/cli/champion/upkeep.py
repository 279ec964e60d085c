"""`tournament champion restore`, `refresh` and `attest`: what serves is put right, and no version is changed."""

from __future__ import annotations

import argparse

from esci_tournament.deployments.cli.common import Output, say_where, settings_of, workspace_of
from esci_tournament.registry.spelling import counted


def refresh(options: argparse.Namespace, output: Output) -> None:
    """Load and validate newer data, and have the scorers of the home use it."""
    from esci_tournament.deployments.local import run_refresh
    from esci_tournament.registry.live_data import is_served

    version = run_refresh(settings_of(options), options.data, output.progress())
    serves, short = is_served(workspace_of(options).ledger, version), version[:12]
    if serves:
        output.say(f"scorers of this home change to data {short}: its products and its behaviour")
        output.say("back to the data before: tournament data undo --reason WHY")
    else:
        output.say(f"data {short} passed its checks and waits for a reviewer: tournament data served")
    output.document({"data_version": version, "serves": serves})


def put_right(options: argparse.Namespace, output: Output) -> None:
    """Reset the aliases to what the ledger says, and show those that were wrong."""
    from esci_tournament.registry.promotion import restore

    workspace = workspace_of(options)
    found = restore(workspace.ledger, workspace.models)
    for one in found:
        output.say(f"alias {one.alias!r}: {one.mlflow or 'nothing'} -> {one.ledger or 'nothing'}")
    if not found:
        output.say("the aliases agree with the ledger; nothing was changed")
    say_where(workspace.settings, output)
    output.document([{"alias": one.alias, "was": one.mlflow, "is": one.ledger} for one in found])


def attest(options: argparse.Namespace, output: Output) -> None:
    """Record the manifest of the files that MLflow holds of the champion, which was promoted without one.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        NotFoundError: if there is no champion.
    """
    from esci_tournament.registry.attestation import attest as record
    from esci_tournament.registry.errors import NotFoundError

    workspace = workspace_of(options)
    promotion = workspace.ledger.standing(workspace.models.ensemble_name).champion
    if promotion is None:
        raise NotFoundError("there is no champion, so there is nothing to attest")
    manifest = record(workspace, workspace.models.ensemble(promotion.version), options.reason)
    files = counted(len(manifest.files), "file")
    output.say(f"version {promotion.version}: manifest {manifest.digest[:12]} of {files} is recorded")
    output.say("from now on they are compared with it; a scorer that runs does so from its next start")
    output.document({"version": promotion.version, "manifest": manifest.digest, "files": len(manifest.files)})
