"""`tournament champion`: show the champion and its history, go one champion back, and give scorers newer data."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esci_tournament.deployments.cli.common import (
    Output,
    add_common_options,
    say_where,
    served_workspace_of,
    settings_of,
    workspace_of,
)

if TYPE_CHECKING:
    from esci_tournament.registry.workspace import Workspace


def add_parser(commands: Any) -> None:
    """Add the command and its parts."""
    parser = commands.add_parser("champion", help="show the champion and its history, or go back to the one before")
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    showing = parts.add_parser("show", help="the champion, its members and how to load it")
    past = parts.add_parser("history", help="every promotion and rollback: when, by whom and why, with links")
    past.add_argument("--export", type=Path, metavar="FILE", help="write it to a .json or .csv file")
    back = parts.add_parser("rollback", help="make the champion before this one champion again")
    back.add_argument("--reason", required=True, help="why; recorded in the history")
    right = parts.add_parser("restore", help="reset aliases that were moved by hand to what the ledger says")
    newer = parts.add_parser("refresh", help="have scorers use newer products and behaviour; no model is judged")
    newer.add_argument(
        "--data", metavar="DIR|URL|sql", help="folder, archive or base address with the official files, or sql"
    )
    kept = parts.add_parser("attest", help="record which files a champion from before manifests were kept consists of")
    kept.add_argument("--reason", required=True, help="why these files are the right ones; recorded in the ledger")
    works = (
        *((showing, show), (past, history), (back, rollback)),
        *((right, put_right), (newer, refresh), (kept, attest)),
    )
    for part, work in works:
        add_common_options(part)
        part.set_defaults(work=work)


def show(options: argparse.Namespace, output: Output) -> None:
    """Show the champion that the ledger names, with a warning when the alias in MLflow disagrees.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        NotFoundError: if there is no champion yet.
    """
    from esci_tournament.registry.addresses import without_password
    from esci_tournament.registry.attestation import UNATTESTED, attested
    from esci_tournament.registry.errors import NotFoundError
    from esci_tournament.registry.promotion import drift, reconcile

    workspace = workspace_of(options)
    ledger, models = workspace.ledger, workspace.models
    reconcile(ledger, models)
    standing = ledger.standing(models.ensemble_name)
    promotion, invalid = standing.champion, standing.invalid
    if promotion is None:
        for one in invalid:
            output.say(f"warning:  {one}")
        raise NotFoundError("there is no champion yet; hold a tournament first: tournament run --help")
    version = workspace.roll.ensemble(promotion.version)
    moved = drift(ledger, models)
    differences = [text for text in workspace.roll.champion_differences().values() if text]
    uri, address = f"models:/{version.name}@champion", without_password(models.tracking_uri)
    output.say(f"champion: version {version.version} of {version.name}, since {promotion.at:%Y-%m-%d %H:%M} UTC")
    output.say(f"members:  {', '.join(version.members)}")
    output.say(f"because:  {promotion.reason}")
    output.say(f"load it:  mlflow.pyfunc.load_model({uri!r})  with MLFLOW_TRACKING_URI={address}")
    known = attested(ledger, promotion.ensemble, promotion.version)
    if known.manifest:
        output.say(f"files:    manifest {known.digest[:12]}, {known.source}; tournament doctor compares them")
    unsure = [] if known.manifest else [f"version {version.version} {UNATTESTED}"]
    for words in map(str, [*moved, *invalid, *differences, *unsure]):
        output.say(f"warning:  {words}")
    output.document(
        {
            "name": version.name,
            "version": version.version,
            "members": list(version.members),
            "tournament": version.tournament,
            "since": promotion.at.isoformat(),
            "reason": promotion.reason,
            "uri": uri,
            "tracking_uri": address,
            "drift": [str(one) for one in moved],
            "invalid": [str(one) for one in invalid],
            "differences": differences,
            "manifest": known.digest or None,
            "attested": known.source or None,
        }
    )


def history(options: argparse.Namespace, output: Output) -> None:
    """Show every promotion and rollback, oldest first, and write them to the file of `--export` if it is given."""
    from esci_tournament.registry.chronicle import chronicle, export_chronicle

    rows = chronicle(served_workspace_of(options))
    for row in rows:
        output.say(
            f"{row['sequence']:>3}  {row['at']}  {row['kind']:<8}  version {row['version']}  "
            f"by {row['by']}: {row['reason']}"
        )
        if row["invalid"]:
            output.say(f"     does not count: {row['invalid']}")
        changes = [f"{word} {', '.join(row[key])}" for key, word in (("came", "in:"), ("went", "out:")) if row[key]]
        if changes:
            output.say(f"     {'; '.join(changes)}")
        for title, address in row["links"].items():
            output.say(f"     {title}: {address}")
    if not rows:
        output.say("no champion yet")
    if options.export:
        export_chronicle(rows, options.export)
        output.say(f"written to {options.export}")
    output.document(rows)


def rollback(options: argparse.Namespace, output: Output) -> None:
    """Make the champion before this one champion again; announce it when a Prefect server is at hand."""
    from esci_tournament.registry.promotion import rollback as step_back

    workspace = served_workspace_of(options)
    promotion = step_back(workspace.ledger, workspace.models, options.reason)
    if "PREFECT_API_URL" in os.environ:
        _announce(workspace, promotion.version, options.reason)
    output.say(f"champion is version {promotion.version} again; {options.reason}")
    say_where(workspace.settings, output)
    output.document({"version": promotion.version, "sequence": promotion.sequence, "reason": options.reason})


def _announce(workspace: Workspace, version: int, reason: str) -> None:
    from esci_tournament.deployments.local import quiet_prefect

    quiet_prefect(workspace.settings)
    from esci_tournament.flows.announce import announce

    name = f"{workspace.settings.ensemble_name}/{version}"
    announce("promotion", name, {"title": f"rolled back: version {version} is champion again", "text": reason})


def refresh(options: argparse.Namespace, output: Output) -> None:
    """Load and validate newer data, and have the scorers of the home use it."""
    from esci_tournament.deployments.local import run_refresh

    version = run_refresh(settings_of(options), options.data, output.progress())
    output.say(f"scorers of this home change to data {version[:12]}: its products and its behaviour")
    output.document({"data_version": version})


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
    output.say(
        f"version {promotion.version}: manifest {manifest.digest[:12]} of {len(manifest.files)} files is recorded"
    )
    output.say("from now on they are compared with it; a scorer that runs does so from its next start")
    output.document({"version": promotion.version, "manifest": manifest.digest, "files": len(manifest.files)})
