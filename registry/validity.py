"""Which promotions count: those whose decision, verdict and policy are in the ledger and say that they may.

The same check is made when a promotion is recorded and whenever the ledger is read. A row that somebody inserted by
hand, without the decision that it needs, moves nobody.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, select

from esci_tournament.registry import tables
from esci_tournament.registry.policy import Policy, person, policy_of, versions_of
from esci_tournament.registry.records import (
    Approval,
    Decision,
    EnsembleRecord,
    Judged,
    PolicyRecord,
    Promotion,
    Standing,
    VerdictRecord,
)
from esci_tournament.registry.rows import Rows

PROVEN = ("process", "code")


@dataclass(frozen=True)
class _Evidence:
    """The rows that an ensemble's promotions rest on, by id, and by tournament or verdict."""

    rows: Rows
    decisions: Mapping[int, Decision]
    verdicts: Mapping[int, VerdictRecord]
    ensembles: Mapping[str, EnsembleRecord]
    approvals: Mapping[int, Sequence[Approval]]
    policies: Sequence[PolicyRecord]

    @classmethod
    def read(cls, rows: Rows, promotions: Sequence[Promotion]) -> _Evidence:
        decisions = {
            row["id"]: Decision.of(row)
            for row in _among(rows, tables.decisions, "id", [one.decision for one in promotions if one.decision])
        }
        wanted = [one.verdict for one in decisions.values()]
        verdicts = {row["id"]: VerdictRecord.of(row) for row in _among(rows, tables.verdicts, "id", wanted)}
        tournaments = [one.tournament for one in verdicts.values()]
        ensembles = {
            row["tournament"]: EnsembleRecord.of(row)
            for row in _among(rows, tables.ensembles, "tournament", tournaments)
        }
        approvals: dict[int, list[Approval]] = {}
        for row in _among(rows, tables.approvals, "verdict", wanted):
            approvals.setdefault(row["verdict"], []).append(Approval.of(row))
        return cls(rows, decisions, verdicts, ensembles, approvals, versions_of(rows))


def judged_promotions(rows: Rows, ensemble: str) -> list[Judged]:
    """Return all promotions and rollbacks of an ensemble, oldest first, each with why it does not count.

    Args:
        rows: The rows that a transaction sees.
        ensemble: Name of the registered model.
    """
    promotions = [Promotion.of(row) for row in rows.all(tables.promotions, ensemble=ensemble)]
    if not promotions:
        return []
    evidence, reigns, judged = _Evidence.read(rows, promotions), _Reigns(), list[Judged]()
    for promotion in promotions:
        judged.append(Judged(promotion, _complaint(evidence, reigns, promotion)))
        if not judged[-1].complaint:
            reigns.add(promotion)
    return judged


def replay(ensemble: str, judged: Iterable[Judged]) -> Standing:
    """Return the standing after promotions in order.

    Each promotion, and each version that was set, goes on top of the last one; a rollback takes off what is above the
    champion that it goes back to; an undo puts everything back as it was before the last change.

    Args:
        ensemble: Name of the registered model.
        judged: Its promotions, oldest first; those that do not count only use up their number.
    """
    reigns, sequence, invalid = _Reigns(), 0, []
    for one in judged:
        sequence = max(sequence, one.promotion.sequence)
        if one.complaint:
            invalid.append(one)
        else:
            reigns.add(one.promotion)
    return Standing(
        ensemble,
        sequence,
        reigns.champion,
        reigns.previous,
        tuple(invalid),
        reigns.change,
        reigns.replaced,
        reigns.earlier,
        reigns.undone,
    )


class _Reigns:
    """The promotions that count, as the stack that they make, and the stack after each change."""

    def __init__(self) -> None:
        self._changes: list[Promotion] = []
        self._sequences: list[int] = []  # ascending
        self._stacks: list[tuple[Promotion, ...]] = [()]  # before the first change, and after each

    def add(self, promotion: Promotion) -> None:
        stack = self._stacks[-1]
        if promotion.kind == "rollback":
            stack = stack[: -steps_of(promotion)]
        elif promotion.kind == "undo":
            stack = self._stacks[-2]
        else:
            stack = (*stack, promotion)
        self._changes.append(promotion)
        self._sequences.append(promotion.sequence)
        self._stacks.append(stack)

    @property
    def champion(self) -> Promotion | None:
        return _last(self._stacks[-1])

    @property
    def previous(self) -> Promotion | None:
        return _last(self._stacks[-1][:-1])

    @property
    def change(self) -> Promotion | None:
        """The last change that counts."""
        return self._changes[-1] if self._changes else None

    @property
    def replaced(self) -> int | None:
        """The version that was champion before the last change."""
        before = _last(self._stacks[-2]) if self._changes else None
        return before.version if before else None

    @property
    def earlier(self) -> tuple[Promotion, ...]:
        """Those that a rollback can go back to, the nearest first."""
        return self._stacks[-1][-2::-1]

    @property
    def undone(self) -> Promotion | None:
        """The champion that taking the last change back would install."""
        return _last(self._stacks[-2]) if self._changes else None

    def has_reigned(self, version: int) -> bool:
        return any(stack[-1].version == version for stack in self._stacks if stack)

    @property
    def sequence(self) -> int:
        return self._sequences[-1] if self._sequences else 0

    def champion_at(self, sequence: int) -> int | None:
        """Return the version that was champion after the change `sequence`."""
        champion = _last(self._stacks[bisect_right(self._sequences, sequence)])
        return champion.version if champion else None


def steps_of(rollback: Promotion) -> int:
    """Return over how many champions a rollback goes back; one, unless its payload says "steps"."""
    steps = rollback.payload.get("steps", 1)
    return steps if isinstance(steps, int) and steps > 0 else 1


def _last(stack: Sequence[Promotion]) -> Promotion | None:
    return stack[-1] if stack else None


def registrants_of(rows: Rows, ensemble: EnsembleRecord) -> list[str]:
    """Return who registered the members that a challenger has and the champion it met did not have.

    They were put on record when each candidate arrived. Whatever became of its version or its tags since is not asked.
    """
    entries = rows.all(tables.entries, tournament=ensemble.tournament)
    new = {row["candidate"] for row in entries if row["role"] != "member"} & set(ensemble.payload.get("members", ()))
    found = _among(rows, tables.candidates, "candidate", sorted(new))
    known = {row["candidate"]: row["payload"].get("registered_by", ()) for row in found}
    return list(dict.fromkeys(name for candidate in sorted(new) for name in known.get(candidate, ())))


def policy_complaint(policy: Policy, approvals: Sequence[Approval], registrants: Sequence[str]) -> str:
    """Return why approvals are not what a policy asks for, "" when they are.

    Args:
        policy: The policy.
        approvals: Who said yes to the verdict.
        registrants: Who registered what is new in the challenger.
    """
    if not policy.requires_review:
        return ""
    counted = set()
    for one in approvals:
        if not policy.names_reviewer(one.person):
            continue
        if policy.reviewers and one.payload.get("proof") not in PROVEN:
            continue
        if not policy.allow_self_review and one.person in map(person, registrants):
            continue
        counted.add(one.person)
    if len(counted) < policy.quorum:
        return f"the policy asks for the approval of {policy.quorum} of its reviewers, and {len(counted)} count"
    return ""


def naming_manifest(rows: Rows, verdict: int) -> dict[str, str]:
    """Return what a decision or an approval says of the files that it is about.

    Args:
        rows: The rows that a transaction sees.
        verdict: Number of the verdict that is decided on.

    Returns:
        `manifest_digest`; {} for an ensemble that was registered before manifests were kept.
    """
    judged = rows.one(tables.verdicts, {"id": verdict})
    built = judged and rows.one(tables.ensembles, {"tournament": judged["tournament"]})
    digest = EnsembleRecord.of(built).manifest_digest if built else ""
    return {"manifest_digest": digest} if digest else {}


def of_manifest(approvals: Iterable[Approval], ensemble: EnsembleRecord) -> list[Approval]:
    """Return the approvals that name the manifest of an ensemble: who approved other files has not approved these."""
    wanted = ensemble.manifest_digest
    return [one for one in approvals if str(one.payload.get("manifest_digest") or "") == wanted]


def _complaint(evidence: _Evidence, before: _Reigns, promotion: Promotion) -> str:
    """Return why a change of the champion does not count after those before it that do, "" when it does."""
    if promotion.sequence <= before.sequence:
        return "its number does not follow those before it"
    if promotion.kind == "rollback":
        earlier, steps = before.earlier, steps_of(promotion)
        goes_to = earlier[steps - 1].version if steps <= len(earlier) else None
        whom = "the champion before" if steps == 1 else f"the champion {steps} before"
        return "" if promotion.version == goes_to else f"it does not go back to {whom}"
    if promotion.kind == "undo":
        goes_to = before.undone.version if before.undone else None
        return "" if promotion.version == goes_to else "it does not take the last change back"
    if promotion.kind not in ("promote", "set"):
        return f"it is a {promotion.kind!r}: neither a promotion nor a rollback, a set or an undo"
    if promotion.kind == "set" and promotion.decision is None and before.has_reigned(promotion.version):
        return ""  # what it rests on was judged when it became champion, as for a rollback
    decision = evidence.decisions.get(promotion.decision or 0)
    if decision is None:
        return "it has no decision"
    verdict = evidence.verdicts.get(decision.verdict)
    if decision.outcome != "approve" or verdict is None:
        return f"its decision is {decision.outcome!r}"
    ensemble = evidence.ensembles.get(verdict.tournament)
    if ensemble is None or (ensemble.name, ensemble.version) != (promotion.ensemble, promotion.version):
        return f"its decision is on the challenger of {verdict.tournament}, which is another version"
    if wrong := _of_manifest(evidence, decision, ensemble):
        return wrong
    first = before.champion is None or promotion.kind == "set"
    inaugural = "champion" in verdict.payload.get("missing", ()) and first
    if verdict.outcome != "promote" and not inaugural:
        return f"its verdict is {verdict.outcome!r}"
    # Whoever sets a version says why in words, and no verdict on it against today's champion is asked for
    if promotion.kind != "set" and before.champion_at(verdict.against) != before.champion_at(before.sequence):
        return "its verdict was reached against another champion"
    return _against_policy(evidence, promotion, verdict, ensemble)


def _of_manifest(evidence: _Evidence, decision: Decision, ensemble: EnsembleRecord) -> str:
    """Return why a decision is not about the files that an ensemble has on record, "" when it is."""
    named = str(decision.payload.get("manifest_digest") or "")
    if named != ensemble.manifest_digest:
        on_record = f"manifest {ensemble.manifest_digest[:12]}" if ensemble.manifest_digest else "none"
        return f"its decision names manifest {named[:12] or 'none'}, and the ensemble has {on_record} on record"
    if not ensemble.manifest_digest and any(
        one.manifest_digest for one in evidence.ensembles.values() if one.id < ensemble.id
    ):
        return "its ensemble has no manifest, though ensembles before it have one"
    return ""


def _against_policy(evidence: _Evidence, promotion: Promotion, verdict: VerdictRecord, ensemble: EnsembleRecord) -> str:
    then = [one for one in evidence.policies if one.payload["after_promotion"] < promotion.id]
    if not then:  # it was made before the ledger had a policy
        return ""
    policy = policy_of(then[-1])
    if verdict.outcome != "promote" and not policy.inaugurate:
        return "the policy lets no first champion in without one to compare it with"
    if weaker := policy.weaker_rules(ensemble.payload.get("settings", {})):
        return f"its verdict was reached under a weaker rule than version {then[-1].version} of the policy: {weaker[0]}"
    if not policy.requires_review:  # who registered is not asked then: scorers replay the ledger every few seconds
        return ""
    registrants = registrants_of(evidence.rows, ensemble)
    approvals = of_manifest(evidence.approvals.get(verdict.id, ()), ensemble)
    return policy_complaint(policy, approvals, registrants)


def _among(rows: Rows, table: Table, column: str, values: Sequence[Any]) -> Iterable[Mapping[Any, Any]]:
    """Return the rows of a table whose column is one of some values, in order of appending."""
    for start in range(0, len(values), 500):  # SQLite limits how many values a statement may have
        query = select(table).where(table.c[column].in_(values[start : start + 500])).order_by(table.c.id)
        yield from rows.connection.execute(query).mappings()
