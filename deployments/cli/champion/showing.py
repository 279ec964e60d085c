"""`tournament champion show`, `history` and `compare`: nothing is changed by them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from esci_tournament.deployments.cli.common import Output, served_workspace_of, workspace_of

if TYPE_CHECKING:
    from esci_tournament.registry.records import Standing

HOW = {"rollback": "rolled back", "set": "set in place", "undo": "by an undo, in place"}


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
    from esci_tournament.registry.live_data import live_data
    from esci_tournament.registry.promotion import drift, reconcile
    from esci_tournament.registry.tournaments import find_tournament, metrics_of_champion

    workspace = workspace_of(options, shows=True)
    ledger, models = workspace.ledger, workspace.models
    reconcile(ledger, models)
    standing = ledger.standing(models.ensemble_name)
    promotion, invalid, change = standing.champion, standing.invalid, standing.change
    if promotion is None or change is None:
        for one in invalid:
            output.say(f"warning:  {one}")
        raise NotFoundError("there is no champion yet; hold a tournament first: tournament run --help")
    version = workspace.roll.ensemble(promotion.version)
    moved = drift(ledger, models)
    differences = [text for text in workspace.roll.champion_differences().values() if text]
    uri, address = f"models:/{version.name}@champion", without_password(models.tracking_uri)
    measured = metrics_of_champion(ledger, models.ensemble_name, promotion.version)
    metrics = measured.get("metrics", {}).get("all", {})
    output.say(f"champion: version {version.version} of {version.name}, since {change.at:%Y-%m-%d %H:%M} UTC")
    if change.kind in HOW:
        output.say(
            f"          {HOW[change.kind]} {_was(standing)} on {change.at:%Y-%m-%d} by {change.who}: {change.reason}"
        )
    output.say(f"members:  {', '.join(version.members)}")
    output.say(f"because:  {promotion.reason}")
    told = f"{in_words(metrics)} (test split of {measured['tournament']})" if metrics else "none were published"
    output.say(f"metrics:  {told}")
    held = find_tournament(ledger, version.tournament)
    data = live_data(ledger, held) if held else None
    if held and data:
        newer = "newer than its tournament's" if data != held.data_version else "that of its tournament"
        output.say(f"data:     scorers use {data[:12]}, {newer}; tournament data served")
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
            "since": change.at.isoformat(),
            "installed": promotion.at.isoformat(),
            "reason": promotion.reason,
            "change": {
                "kind": change.kind,
                "from": standing.replaced,
                "at": change.at.isoformat(),
                "by": change.who,
                "reason": change.reason,
            },
            "metrics": metrics,
            "measured_in": measured.get("tournament"),
            "data_served": data,
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
    """Show every change of the champion, oldest first, and write them to the file of `--export` if it is given."""
    from esci_tournament.registry.chronicle import chronicle, export_chronicle

    workspace = served_workspace_of(options, shows=True)
    rows, primary = chronicle(workspace), workspace.settings.primary_metric
    for row in rows:
        output.say(
            f"{row['sequence']:>3}  {row['at']}  {row['kind']:<8}  version {row['version']}  "
            f"{_one(row['metrics'], primary):<18}  by {row['by']}: {row['reason']}"
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


def compare(options: argparse.Namespace, output: Output) -> None:
    """Show two versions side by side; without a second one, the champion is it.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        NotFoundError: if a version is unknown, or there is no champion to compare with.
    """
    from esci_tournament.registry.errors import NotFoundError
    from esci_tournament.tasks.report.comparison import compare as side_by_side

    workspace, other = workspace_of(options, shows=True), options.other
    if other is None:
        champion = workspace.ledger.champion(workspace.settings.ensemble_name)
        if champion is None:
            raise NotFoundError("there is no champion to compare with; name a second version: champion compare A B")
        other = champion.version
    found = side_by_side(workspace, options.version, other)
    sides = (found["first"], found["second"])
    heads = [f"version {side['version']}{' (champion)' if side['is_champion'] else ''}" for side in sides]
    _line(output, "", heads)
    _line(output, "members in", [", ".join(found["came"]) or "-", ", ".join(found["went"]) or "-"])
    _line(output, "members in both", [", ".join(found["stayed"]) or "-", ""])
    for title, key in (("tournament", "tournament"), ("data version", "data_version")):
        _line(output, title, [str(side[key] or "not known")[:24] for side in sides])
    for title, key, unit in (("memory", "memory_mib", "MiB"), ("a page of 40", "milliseconds", "ms")):
        _line(output, title, [f"{side['cost'][key]:,.1f} {unit}" if side["cost"] else "not known" for side in sides])
    _line(output, "verdict", [side["verdict"].get("outcome", "none") for side in sides])
    where = [side["measured"] for side in sides]
    _line(output, "measured in", [one["tournament"] if one else "nothing was published" for one in where])
    for row in found["metrics"]:
        values = [_number(row["first"]), _number(row["second"])]
        gap = "" if row["difference"] is None else f"{row['difference']:+.4f}"
        _line(output, f"{row['metric']}, {row['scope']}", [*values, gap])
    if found["metrics"] and not found["same_pairs"]:
        output.say("no tournament has published numbers of both, so these are of different pairs: no differences")
    output.document(found)


def in_words(metrics: Mapping[str, float]) -> str:
    """Return metrics and their values as text.

    Example:
        >>> in_words({"macro_f1": 0.51234, "accuracy": 0.6})
        'macro_f1 0.5123, accuracy 0.6000'
    """
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _one(metrics: Mapping[str, float], wanted: str) -> str:
    return f"{wanted} {metrics[wanted]:.4f}" if wanted in metrics else "no published number"


def _was(standing: Standing) -> str:
    assert standing.change is not None
    before = "no version" if standing.replaced is None else f"version {standing.replaced}"
    return f"{'from' if standing.change.kind == 'rollback' else 'of'} {before}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _line(output: Output, title: str, values: list[Any]) -> None:
    first, *others = (str(value) for value in values)
    output.say(f"{title:<24} {first:<28} {'  '.join(others)}".rstrip())
