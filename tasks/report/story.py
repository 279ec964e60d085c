"""The story of a candidate: everything that the ledger, MLflow, the reports and its log have on it, in order."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from esci_tournament.registry.chronicle import chronicle
from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.roll import Enrolled
from esci_tournament.registry.states import CandidateState, states
from esci_tournament.registry.versions import FLOW_RUN_TAG
from esci_tournament.registry.withdrawals import REINSTATED, WITHDRAWN, withdrawals
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.report import sealing
from esci_tournament.tasks.report.summary import ModelSummary

Row = dict[str, Any]
LOG_LINES, LOG_BYTES = 20, 65_536
_WORDS = {"member": "as a member of the champion", "bench": "from the bench", "newcomer": "as a newcomer"}


def story(workspace: Workspace, candidate: str) -> Row:
    """Return all that is known of a candidate.

    Args:
        workspace: The home.
        candidate: Its id, `name/version`.

    Returns:
        JSON-able, moments as ISO text in UTC: `candidate`, `family`, `state`, `reason` (why it is in this state),
        `registered` (`at`, `by`: who, by every source that says), `spec`, `member_since` (None for no member),
        `tournaments` (the last one at the end, each as :func:`_tournament` returns it), `events` (oldest first: `at`,
        `event`, `by`, `tournament`, `text`), `log` (`path`, `lines`: the last ones; None without a log), `links` (title
        -> address), `metrics` (of its run in MLflow), `differs` (in which way MLflow differs from the record, "" for
        not).

    Raises:
        NotFoundError: If neither the ledger nor MLflow has it.
    """
    known = workspace.roll.candidate(candidate)
    state = states(workspace.ledger, workspace.settings.ensemble_name).get(candidate, CandidateState())
    with suppress(NotFoundError):
        known_metrics = workspace.models.candidate(candidate).metrics
        known.version.metrics.update(known_metrics)
    spec = known.version.spec
    changes = list(_changes(workspace, candidate))
    tournaments = [_tournament(workspace, name, role, candidate) for name, role in _entered(workspace, candidate)]
    events = [*_arrivals(workspace, known), *_runs(workspace, candidate), *_told(workspace, candidate), *changes]
    for one in tournaments:
        events += one.pop("events")
    reason = state.reason or (known.version.complaint if state.state == "registered" else "")
    if state.state == "benched" and tournaments:
        reason = tournaments[-1]["reason"]
    return {
        "candidate": candidate,
        "family": spec.family if spec else None,
        "state": "refused" if state.state == "registered" and known.version.complaint else state.state,
        "reason": reason,
        "registered": {"at": known.version.entered, "by": _registrants(workspace, known)},
        "spec": spec.model_dump(mode="json") if spec else None,
        "member_since": changes[-1]["at"] if state.state == "member" and changes else None,
        "tournaments": tournaments,
        "events": sorted(events, key=lambda one: dt.datetime.fromisoformat(one["at"])),
        "log": _log(workspace, known),
        "links": _links(workspace, known, tournaments),
        "metrics": dict(known.version.metrics),
        "differs": known.difference,
    }


def _event(at: dt.datetime | str, event: str, text: str = "", by: str = "", tournament: str | None = None) -> Row:
    moment = at.isoformat() if isinstance(at, dt.datetime) else at
    return {"at": moment, "event": event, "by": by, "tournament": tournament, "text": text}


def _registrants(workspace: Workspace, known: Enrolled) -> list[str]:
    record = next((one for one in workspace.ledger.candidates() if one.candidate == known.id), None)
    if record is not None and "registered_by" in record.payload:
        return [str(name) for name in record.payload["registered_by"]]
    if known.gone:
        return []
    return workspace.models.registrants(known.version)


def _arrivals(workspace: Workspace, known: Enrolled) -> Iterator[Row]:
    yield _event(known.version.entered, "registered", by=", ".join(_registrants(workspace, known)))
    for one in Queue(workspace.ledger).arrivals([known.id]):
        words = {"queued": "it waits for a tournament", "tried": "a tournament had tried it before it was noticed"}
        yield _event(one.at, one.outcome, words.get(one.outcome) or str(one.payload.get("complaint", "")), one.who)


def _runs(workspace: Workspace, candidate: str) -> Iterator[Row]:
    for dispatch in Queue(workspace.ledger).dispatches():
        if candidate not in dispatch.candidates:
            continue
        for attempt in dispatch.attempts:
            with_whom = [one for one in dispatch.candidates if one != candidate]
            text = f"attempt {attempt.number}" + (f", with {', '.join(with_whom)}" if with_whom else "")
            yield _event(attempt.at, "sent into a tournament", text)
            if attempt.end and attempt.ended_at and (attempt.end != "completed" or attempt.reason):
                yield _event(attempt.ended_at, f"run {attempt.end.replace('_', ' ')}", attempt.reason)


def _told(workspace: Workspace, candidate: str) -> Iterator[Row]:
    gone = withdrawals(workspace.ledger, [candidate])
    for event in workspace.ledger.events():
        if event.subject != candidate:
            continue
        reason = str(event.payload.get("reason") or event.payload.get("text") or "")
        word = {WITHDRAWN: "withdrawn", REINSTATED: "reinstated", "candidate_failed": "failed"}.get(event.kind)
        if event.kind == WITHDRAWN and event.payload.get("tournament"):
            word = "cancelled"
        if event.kind == WITHDRAWN and candidate in gone and gone[candidate].event == event.id:
            reason += f"; it does not compete until: tournament candidates retry {candidate}"
        yield _event(event.at, word or event.kind.replace("_", " "), reason, event.who, event.tournament)


def _changes(workspace: Workspace, candidate: str) -> Iterator[Row]:
    """Yield when it became a member of the champion, and when it left."""
    at = {
        one.promotion.sequence: one.promotion.at for one in workspace.ledger.history(workspace.settings.ensemble_name)
    }
    for row in chronicle(workspace):
        if row["invalid"] or candidate not in (*row["came"], *row["went"]):
            continue
        came = candidate in row["came"]
        text = f"{row['kind']} {'to' if came else 'of'} version {row['version']}: {row['reason']}"
        name = "became a member" if came else "left the champion"
        yield _event(at[row["sequence"]], name, text, row["by"], row["tournament"])


def _entered(workspace: Workspace, candidate: str) -> list[tuple[str, str]]:
    return [(one.tournament, one.role) for one in workspace.ledger.entries() if one.candidate == candidate]


def _tournament(workspace: Workspace, name: str, role: str, candidate: str) -> Row:
    """Return what a tournament made of a candidate.

    Returns:
        `tournament`, `role`, `state` (finished, failed, running or interrupted), `status` (member, evicted or failed;
        None before it ended), `reason`, `fit_seconds`, `blend` (metrics on the pairs that the aggregator learns from),
        `cost`, `utility` (`share`, `low`, `high`, `all`; SHAP shares in [0, 1]), `report` (path or None), and `events`.
    """
    ledger = workspace.ledger
    entry = next(one for one in ledger.entries(name) if one.candidate == candidate)
    state = ledger.tournament_state(name)
    if state == "running" and not ledger.is_worked_on(name):
        state = "interrupted"
    folder = workspace.settings.home / "tournaments" / name
    model = _model(folder, candidate)
    row: Row = {
        "tournament": name,
        "role": role,
        "state": state,
        "status": model.status if model else None,
        "reason": model.reason if model else "",
        "fit_seconds": model.fit_seconds if model else None,
        "blend": model.blend.by_name() if model and model.blend else {},
        "cost": dict(model.cost) if model else {},
        "utility": _utility(model) if model else {},
        "report": str(folder / "report.html") if (folder / "report.html").is_file() else None,
    }
    events = [_event(entry.at, "entered", _WORDS.get(role, role), entry.who, name)]
    for one in ledger.events(name):
        if one.kind in ("failed", "continued") and not one.subject:
            text = str(one.payload.get("reason", ""))
            events.append(_event(one.at, f"tournament {one.kind}", text, one.who, name))
        elif one.kind == "finished":
            events.append(_event(one.at, "tournament finished", in_words(row), one.who, name))
    return row | {"events": events}


def in_words(row: Mapping[str, Any]) -> str:
    """Return what a tournament made of a candidate in one line, of the keys that :func:`_tournament` returns."""
    told = {"member": "kept", "evicted": "evicted", "failed": "failed"}.get(row["status"] or "", "")
    words = [f"{told}: {row['reason']}" if told and row["reason"] else told]
    if row["fit_seconds"] is not None:
        words.append(f"trained for {row['fit_seconds']:.1f} s")
    words += [f"blend {name} {value:.3f}" for name, value in row["blend"].items()]
    cost = row["cost"]
    if cost:
        words.append(f"{cost['memory_mib']:.0f} MiB, {cost['milliseconds_per_page_p50']:.1f} ms a page")
    if row["utility"].get("share") is not None:
        words.append(f"worth {row['utility']['share']:.1%} of the ensemble")
    return "; ".join(filter(None, words))


def _model(folder: Path, candidate: str) -> ModelSummary | None:
    try:
        summary = sealing.read(folder / "summary.json")
    except OSError:  # it has not ended, or was held elsewhere
        return None
    return next((one for one in summary.models if f"{one.name}/{one.version}" == candidate), None)


def _utility(model: ModelSummary) -> dict[str, float | None]:
    return {
        "share": model.utility, "low": model.utility_low, "high": model.utility_high, "all": model.utility_all
    }  # fmt: skip


def _log(workspace: Workspace, known: Enrolled) -> Row | None:
    path = workspace.settings.home / "logs" / f"{known.version.name}-{known.version.version}.log"
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    # What a candidate prints is not ours: no control characters reach the terminal
    lines = ["".join(one for one in line if one.isprintable() or one == "\t") for line in text.splitlines()]
    return {"path": str(path), "lines": lines[-LOG_LINES:]}


def _links(workspace: Workspace, known: Enrolled, tournaments: list[Row]) -> dict[str, str]:
    links = {} if known.gone else workspace.models.addresses(known.version)
    if address := known.version.tags.get(FLOW_RUN_TAG):
        links["Flow run"] = address
    return links | {f"Report of {one['tournament']}": one["report"] for one in tournaments if one["report"]}
