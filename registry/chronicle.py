"""The champion's history as rows, and its export: each change of the champion, when, why and by whom."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from esci_tournament.registry.errors import NotFoundError, UsageError
from esci_tournament.registry.files import disk_in_words, write_atomically
from esci_tournament.registry.records import Chapter
from esci_tournament.registry.sealing import of_record
from esci_tournament.registry.spreadsheets import harmless
from esci_tournament.registry.tournaments import published_metrics
from esci_tournament.registry.workspace import Workspace

Row = dict[str, Any]


def chronicle(workspace: Workspace) -> list[Row]:
    """Return one row for each change of the champion, oldest first.

    Args:
        workspace: The home whose ledger and model registry are read.

    Returns:
        A dict a row, moments as ISO text in UTC, with these keys:

        - `sequence`, `at`, `kind` (promote, rollback, set or undo), `version`, `replaced` (the version
          before, None for none)
        - `members`, `came`, `went`: candidate ids, the last two against the champion before; empty when neither
          ledger nor registry has the version
        - `by`, `via` (how the decision was given), `reason`
        - `invalid`: why the row does not count, "" when it does
        - `tournament`, `verdict` (its number), `outcome`, `said` (the verdict's reason); None, `said` "", without a
          verdict
        - `decided_at`, `done_at`: None without a decision, or while the alias has not moved
        - `metrics`: metric -> value on the test split, of the tournament that built the version; of the newest one that
          tells any, where that one does not; {} when none does. `measured_in`: id of that tournament, None for none
        - `links`: title -> address of the report, the MLflow version and run, and the review
    """
    rows: list[Row] = []
    before: tuple[str, ...] = ()
    replaced: int | None = None
    ensemble = workspace.settings.ensemble_name
    chapters = workspace.ledger.history(ensemble)
    told = published_metrics(workspace.ledger, ensemble, {one.promotion.version for one in chapters})
    for chapter in chapters:
        rows.append(_row(workspace, chapter, before, replaced, told[chapter.promotion.version]))
        if not chapter.complaint:
            before, replaced = tuple(rows[-1]["members"]), chapter.promotion.version
    return rows


def export_chronicle(rows: Sequence[Row], path: Path) -> None:
    """Write the history to a file, as JSON or as CSV.

    In CSV, lists are joined by spaces, each link has a column, and text that a spreadsheet would take for a formula
    starts with an apostrophe.

    Args:
        rows: What :func:`chronicle` returns.
        path: Where to; its suffix, .json or .csv, says the format. A file that is there is replaced.

    Raises:
        UsageError: If the suffix is neither .json nor .csv.
        StoreError: If the disk is full.
    """
    if path.suffix.lower() not in (".json", ".csv"):
        raise UsageError(f"--export {path}: the suffix says the format, and it is .json or .csv")
    text = json.dumps(list(rows), ensure_ascii=False, indent=1)
    if path.suffix.lower() == ".csv":
        text = _csv([_flat(row) for row in rows])
    with disk_in_words("history", path.parent):
        write_atomically(path, text.encode())


def _row(
    workspace: Workspace,
    chapter: Chapter,
    before: tuple[str, ...],
    replaced: int | None,
    told: Sequence[Mapping[str, Any]],
) -> Row:
    promotion, decision, verdict = chapter.promotion, chapter.decision, chapter.verdict
    decided = decision if promotion.kind == "promote" else None  # whoever sets a version is not who approved it
    row: Row = {
        "sequence": promotion.sequence,
        "at": promotion.at.isoformat(timespec="seconds"),
        "kind": promotion.kind,
        "version": promotion.version,
        "replaced": replaced,
        "members": [],
        "came": [],
        "went": [],
        "by": decided.reviewer if decided else promotion.who,
        "via": decided.payload.get("via", "the verdict itself") if decided else "command line",
        "reason": promotion.reason,
        "invalid": chapter.complaint,
        "tournament": verdict.tournament if verdict else None,
        "verdict": verdict.id if verdict else None,
        "outcome": verdict.outcome if verdict else None,
        "said": of_record(workspace.ledger, verdict).get("reason", "") if verdict else "",
        "decided_at": decision.at.isoformat(timespec="seconds") if decision else None,
        "done_at": chapter.done_at.isoformat(timespec="seconds") if chapter.done_at else None,
        "metrics": {},
        "measured_in": None,
        "links": {},
    }
    try:
        version = workspace.roll.ensemble(promotion.version)
    except NotFoundError:  # the ledger still knows that it was champion
        return row
    if measured := next((one for one in told if one["tournament"] == version.tournament), next(iter(told), None)):
        row["metrics"], row["measured_in"] = dict(measured["metrics"].get("all", {})), measured["tournament"]
    after = version.members
    row["members"] = list(after)
    row["came"] = [member for member in after if member not in before]
    row["went"] = [member for member in before if member not in after]
    report = workspace.settings.home / "tournaments" / version.tournament / "report.html"
    row["links"] = {"Report": str(report)} if report.is_file() else {}
    row["links"] |= workspace.models.addresses(version)
    for review in workspace.ledger.reviews(verdict.id) if verdict else ():
        if address := review.payload.get("link"):
            row["links"]["Review"] = address
    return row


def _flat(row: Row) -> Row:
    nested = ("links", "metrics")
    flat = {
        key: " ".join(value) if isinstance(value, list) else value for key, value in row.items() if key not in nested
    }
    flat |= {f"metric: {name}": value for name, value in row.get("metrics", {}).items()}
    return flat | {f"link: {title}": address for title, address in row["links"].items()}


def _csv(rows: Sequence[Row]) -> str:
    stream = io.StringIO(newline="")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(stream, columns, restval="")
    writer.writeheader()
    writer.writerows({key: harmless(value) for key, value in row.items()} for row in rows)
    return stream.getvalue()
