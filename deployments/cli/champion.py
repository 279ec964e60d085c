"""`tournament champion`: who serves, who served before, and one step back."""

from __future__ import annotations

import argparse
from typing import Any

from deployments.cli.common import Output, add_common_options, workspace_of


def add_parser(commands: Any) -> None:
    """Add the command and its parts."""
    parser = commands.add_parser("champion", help="show the champion and its history, or take one step back")
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    showing = parts.add_parser("show", help="the champion, its members and its metrics")
    past = parts.add_parser("history", help="who was champion when, by whose decision and why")
    back = parts.add_parser("rollback", help="take one step back to the champion before this one")
    back.add_argument("--reason", required=True, help="why; it stays in the history")
    for part, work in ((showing, show), (past, history), (back, rollback)):
        add_common_options(part)
        part.set_defaults(work=work)


def show(options: argparse.Namespace, output: Output) -> None:
    """Show the champion by the ledger, and say when the alias in MLflow disagrees."""
    from registry.errors import NotFoundError
    from registry.promotion import drift, reconcile

    workspace = workspace_of(options)
    ledger, models = workspace.ledger, workspace.models
    reconcile(ledger, models)
    promotion = ledger.champion(models.ensemble_name)
    if promotion is None:
        raise NotFoundError("there is no champion yet; hold a tournament first: tournament run --help")
    version = models.ensemble(promotion.version)
    moved = drift(ledger, models)
    uri = f"models:/{version.name}@champion"
    output.say(f"champion: version {version.version} of {version.name}, since {promotion.at:%Y-%m-%d %H:%M} UTC")
    output.say(f"members:  {', '.join(version.members)}")
    output.say(f"because:  {promotion.reason}")
    output.say(f"load it:  mlflow.pyfunc.load_model({uri!r})  with MLFLOW_TRACKING_URI={models.tracking_uri}")
    for one in moved:
        output.say(f"warning:  {one}")
    output.document(
        {
            "name": version.name,
            "version": version.version,
            "members": list(version.members),
            "tournament": version.tournament,
            "since": promotion.at.isoformat(),
            "reason": promotion.reason,
            "uri": uri,
            "tracking_uri": models.tracking_uri,
            "drift": [str(one) for one in moved],
        }
    )


def history(options: argparse.Namespace, output: Output) -> None:
    """Show every promotion and rollback, oldest first."""
    workspace = workspace_of(options)
    rows = []
    for chapter in workspace.ledger.history(workspace.settings.ensemble_name):
        promotion, decision = chapter.promotion, chapter.decision
        rows.append(
            {
                "sequence": promotion.sequence,
                "at": promotion.at.isoformat(timespec="seconds"),
                "kind": promotion.kind,
                "version": promotion.version,
                "by": decision.reviewer if decision else promotion.who,
                "reason": promotion.reason,
                "tournament": chapter.verdict.tournament if chapter.verdict else None,
                "done_at": chapter.done_at.isoformat(timespec="seconds") if chapter.done_at else None,
            }
        )
        last = rows[-1]
        output.say(
            f"{last['sequence']:>3}  {last['at']}  {last['kind']:<8}  version {last['version']}  "
            f"by {last['by']}: {last['reason']}"
        )
    if not rows:
        output.say("no champion yet")
    output.document(rows)


def rollback(options: argparse.Namespace, output: Output) -> None:
    """Take one step back."""
    from registry.promotion import rollback as step_back

    workspace = workspace_of(options)
    promotion = step_back(workspace.ledger, workspace.models, options.reason)
    output.say(f"champion is version {promotion.version} again; {options.reason}")
    output.document({"version": promotion.version, "sequence": promotion.sequence, "reason": options.reason})
