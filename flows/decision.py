"""From a reviewer's answer to what follows from it: the row in the ledger, the champion, the report.

The review's flow run and the command line both use this module. An answer is one row; what follows from it can be
done again after a kill, by any process, and takes effect once.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

from esci_tournament.flows.announce import announce
from esci_tournament.flows.report_files import log_report, read_summary, write_report
from esci_tournament.flows.review_runs import message_links, open_round
from esci_tournament.registry import promotion, sealing
from esci_tournament.registry.errors import BusyError, NotFoundError, PolicyError, UsageError
from esci_tournament.registry.policies import in_force
from esci_tournament.registry.policy import Policy, person
from esci_tournament.registry.proof import Proof
from esci_tournament.registry.records import Approval, Decision, Promotion, VerdictRecord
from esci_tournament.registry.reviewers import Answer, complaint, missing_approvals, proof
from esci_tournament.registry.reviews import CLOSED, Case, champion_at, check_outcome, find_case, unsettled
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.report.summary import Summary

NOBODY = "nobody"  # the reviewer on record when the deadline passed without an answer
LOCK_S = 600.0  # judging again may take minutes on large data
RACES = 3  # tries to promote while the champion keeps changing


def answer(workspace: Workspace, case: Case, given: Answer) -> str:
    """Record a reviewer's answer, do what follows from it, and return in words what came of it.

    Args:
        workspace: Settings and stores; the policy is the ledger's.
        case: What is decided on.
        given: The answer.

    Returns:
        What came of it; that more approvals are needed, when the policy asks for several and this is not the last.

    Raises:
        UsageError: If the answer breaks a rule; the message is the complaint.
        BusyError: If the case was decided before, by another answer; the message says what stands.
    """
    check_outcome(given.outcome)
    decision = case.decision
    if decision is None:
        policy = in_force(workspace.ledger, workspace.settings)
        proven = _checked(workspace, policy, case, given)
        reviewers, reasons = given.reviewer.strip(), given.reason.strip()
        if given.outcome == "approve":
            approvals = _approve(workspace, case, given, proven)
            if missing := missing_approvals(workspace.ledger, policy, case):
                return f"{reviewers} approved verdict {case.id}, which waits on: {missing}"
            if policy.quorum > 1:
                reviewers = ", ".join(one.reviewer for one in approvals)
                reasons = "; ".join(one.reason for one in approvals)
        decision = record(workspace, case, given.outcome, reviewers, reasons, given.via, given.mark, proven)
    if decision.payload.get("mark") != given.mark:
        if any(one.id == case.id for one in unsettled(workspace.ledger, case.ensemble.name)):
            settle(workspace, case)  # the process that took the answer was killed before it was carried out
        raise BusyError(what_stands(decision))
    return settle(workspace, case)


def _checked(workspace: Workspace, policy: Policy, case: Case, given: Answer) -> Proof:
    """Return what proves whose answer it is; UsageError when the policy does not allow it."""
    registered_by = workspace.ledger.registrants(case.ensemble)
    if wrong := complaint(policy, given, registered_by):
        raise UsageError(wrong)
    proven, wrong = proof(workspace.ledger, policy, given)
    if wrong:
        raise UsageError(wrong)
    return proven


def _approve(workspace: Workspace, case: Case, given: Answer, proven: Proof) -> list[Approval]:
    """Record a yes, and return all there are."""
    content = {"via": given.via, "mark": given.mark, "proof": proven}
    workspace.ledger.record_approval(
        case.id, person(given.reviewer), given.reviewer.strip(), given.reason.strip(), content
    )
    return workspace.ledger.approvals(case.id)


def record(
    workspace: Workspace,
    case: Case,
    outcome: str,
    reviewer: str,
    reason: str,
    via: str,
    mark: str,
    proven: str = "",
) -> Decision:
    """Record a decision, or return the one that stands already; `proven` says what proves whose it is."""
    content = {"via": via, "mark": mark} | ({"proof": proven} if proven else {})
    try:
        return workspace.ledger.record_decision(case.id, outcome, reviewer.strip(), reason.strip(), content)
    except BusyError:
        standing = find_case(workspace.ledger, case.ensemble.name, case.id).decision
        if standing is None:
            raise
        return standing


def what_stands(decision: Decision) -> str:
    """Return a sentence that says that a verdict was decided already, how, by whom and when."""
    return (
        f"verdict {decision.verdict} was decided already: {decision.outcome} by {decision.reviewer} at "
        f"{decision.at:%Y-%m-%d %H:%M} UTC ({decision.reason}); nothing was changed"
    )


def settle(workspace: Workspace, case: Case) -> str:
    """Do what follows from a recorded decision; doing it again changes nothing.

    An approval promotes the challenger if the champion is still the one that it was judged against; if not, the
    challenger is judged again, against today's champion. Then the report is updated and the decision announced.

    Args:
        workspace: The home with ledger, registry and settings.
        case: A case that has been decided.

    Returns:
        What came of it, in words.

    Raises:
        BusyError: If another process settles reviews of the ensemble for too long, or the champion keeps changing.
        UsageError: If the case has not been decided.
    """
    ledger = workspace.ledger
    with ledger.exclusive(f"reviews of {case.ensemble.name}", LOCK_S):
        case = find_case(ledger, case.ensemble.name, case.id)
        decision = case.decision
        if decision is None:
            raise UsageError(f"verdict {case.id} is not decided; there is nothing to carry out yet")
        version = workspace.roll.ensemble(case.ensemble.version)
        if decision.outcome != "approve":
            kind, came_of = "review", _close(workspace, case, version, decision)
        else:
            kind, came_of = _carry_out(workspace, case, version, decision)
        closed = {event.subject for event in ledger.events(case.tournament, CLOSED)}
        if str(case.id) not in closed:
            announce(kind, version.id, _message(workspace, case, decision, came_of))  # type: ignore[arg-type]
            ledger.record_event(CLOSED, str(case.id), case.tournament, {"came_of": came_of})
    return came_of


def _carry_out(workspace: Workspace, case: Case, version: EnsembleVersion, decision: Decision) -> tuple[str, str]:
    """Promote, or judge again; return the kind of message that follows, and what came of it."""
    try:
        promoted = case.promotion or _promote(workspace, case, version, decision)
    except (PolicyError, NotFoundError) as error:  # the policy asks for more by now, or the version was deleted
        _tell_report(workspace, case, version, decision, promoted=False)
        return "review", f"version {version.version} was approved by {decision.reviewer} and stays out: {error}"
    if promoted is not None:
        return "promotion", _install(workspace, case, version, decision, promoted)
    return "verdict", _judge_again(workspace, case, version, decision)


def _close(workspace: Workspace, case: Case, version: EnsembleVersion, decision: Decision) -> str:
    """Write a refusal, or a missed deadline, into the report."""
    _tell_report(workspace, case, version, decision, promoted=False)
    said = "was not answered for" if decision.outcome == "expired" else f"was refused by {decision.reviewer}"
    return f"version {version.version} {said}: {decision.reason}"


def _promote(workspace: Workspace, case: Case, version: EnsembleVersion, decision: Decision) -> Promotion | None:
    """Promote if the champion is still the one that the verdict is about; None when it is another."""
    if case.superseded:
        return None
    ledger = workspace.ledger
    judged_against = champion_at(ledger, case.ensemble.name, case.verdict.against)
    for _ in range(RACES):
        standing = ledger.standing(case.ensemble.name)
        today = standing.champion.version if standing.champion else None
        if today != judged_against:
            return None
        try:
            return promotion.promote(ledger, workspace.models, version, decision, standing.sequence)
        except BusyError:
            if ledger.standing(case.ensemble.name).sequence == standing.sequence:
                raise  # the champion did not change: another process holds the lock of the aliases
    raise BusyError(f"the champion of {case.ensemble.name} changes all the time; approve verdict {case.id} again")


def _install(
    workspace: Workspace, case: Case, version: EnsembleVersion, decision: Decision, promoted: Promotion
) -> str:
    """Finish a promotion that is recorded, and write it into the report."""
    promotion.reconcile(workspace.ledger, workspace.models)
    _tell_report(workspace, case, version, decision, promoted=True)
    return f"version {promoted.version} is champion, approved by {decision.reviewer}: {decision.reason}"


def _judge_again(workspace: Workspace, case: Case, version: EnsembleVersion, decision: Decision) -> str:
    """Judge against the champion of today, once, and ask again or close; return in words what came of it."""
    from esci_tournament.flows.rejudge import judge_again  # all of the judge's libraries, which a review seldom needs

    verdicts = workspace.ledger.verdicts(case.tournament)
    known = [one for one in verdicts if one.payload.get("judged_again", {}).get("verdict") == case.id]
    verdict = known[0] if known else judge_again(workspace, case)
    champion, told = verdict.payload["judged_again"]["champion"], sealing.of_record(workspace.ledger, verdict)
    start = (
        f"{decision.reviewer} approved version {version.version}, but the champion changed to version {champion} "
        f"meanwhile; it was judged again: {told['reason']}"
    )
    summary = _judged(read_summary(workspace, case.tournament, version), verdict, champion)
    if verdict.outcome != "promote":
        closed = {"decision": "refuse", "by": "the verdict", "reason": start}
        summary = replace(summary, decision=closed, promoted=False, awaits_review=False)
        _write(workspace, version, summary, with_figures=True)  # those that stand show what is sealed now
        return f"{start}; the champion stays"
    again = find_case(workspace.ledger, case.ensemble.name, verdict.id)
    if again.state == "waits":
        _write(workspace, version, replace(summary, decision={}, promoted=False, awaits_review=True))
        if not again.reviews:
            open_round(workspace, again, f"{start}. Please decide again.", "champion changed")
    return f"{start}; it waits for review again as verdict {verdict.id}"


def _judged(summary: Summary, verdict: VerdictRecord, champion: int) -> Summary:
    """Return the summary under another verdict, as it may be told."""
    from esci_tournament.tasks.ensemble.trial import Trial
    from esci_tournament.tasks.ensemble.verdict import Verdict
    from esci_tournament.tasks.report.sealing import published
    from esci_tournament.tasks.report.summarise import sides

    content = {name: value for name, value in verdict.payload.items() if name != "judged_again"}
    changes: dict[str, Any] = {"verdict": content}
    if verdict.outcome == "promote":
        changes = sides(Trial(Verdict.from_json(json.dumps(content)), summary.confusion, {}))
    return published(
        replace(summary, champion_version=str(champion), review=verdict.id, **changes), verdict.outcome == "promote"
    )


def _tell_report(
    workspace: Workspace, case: Case, version: EnsembleVersion, decision: Decision, promoted: bool
) -> None:
    """Write what was decided into the stored report, its copy in MLflow and the version's tags."""
    words = {"decision": decision.outcome, "by": decision.reviewer, "reason": decision.reason}
    summary = read_summary(workspace, case.tournament, version)
    summary = replace(
        summary,
        decision=words,
        ensemble_version=str(version.version),
        promoted=promoted,
        awaits_review=False,
    )
    _write(workspace, version, summary)
    with suppress(NotFoundError):  # the version was deleted
        workspace.models.tag(version, {f"tournament.{name}": text for name, text in _tags(decision).items()})


def _tags(decision: Decision) -> dict[str, str]:
    return {
        "decision": decision.outcome,
        "reviewer": decision.reviewer,
        "reason": decision.reason[:4000],
        "decided": decision.at.isoformat(timespec="seconds"),
    }


def _write(workspace: Workspace, version: EnsembleVersion, summary: Summary, with_figures: bool = False) -> None:
    write_report(workspace, summary, with_figures)
    log_report(workspace, version.tournament, with_figures)


def _message(workspace: Workspace, case: Case, decision: Decision, came_of: str) -> dict[str, object]:
    return {
        "title": came_of.split(": ")[0],
        "text": came_of,
        "links": message_links(workspace, case),
        "verdict": case.id,
        "tournament": case.tournament,
        "decision": decision.outcome,
        "reviewer": decision.reviewer,
    }
