"""Who may decide, and whether enough have: the policy's rules, applied to a reviewer's answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.policy import Policy, person
from esci_tournament.registry.proof import Proof, proof_of
from esci_tournament.registry.reviews import Case
from esci_tournament.registry.validity import PROVEN, of_manifest, policy_complaint


@dataclass(frozen=True)
class Answer:
    """What a reviewer said.

    Attributes:
        outcome: approve or refuse.
        reviewer: Their name, as typed.
        reason: Why.
        via: How the answer came: "prefect" or "command line".
        mark: The same whenever the same answer is given again after a kill.
        code: The one-time code of the reviewer's authenticator app, "" for none.
    """

    outcome: str
    reviewer: str
    reason: str
    via: str
    mark: str
    code: str = ""

    @property
    def from_process(self) -> bool:
        """Whether the process that gives the answer is the reviewer's own."""
        return self.via == "command line"


def complaint(policy: Policy, answer: Answer, registered_by: Iterable[str]) -> str:
    """Return what is wrong with an answer before anything proves whose it is, "" when nothing is.

    Args:
        policy: The policy in force.
        answer: The answer.
        registered_by: Who registered what is new in the challenger.
    """
    name = answer.reviewer.strip()
    if not person(name):
        return "The reviewer's name is missing: the record says who decided."
    if not policy.names_reviewer(name):
        return _not_proven(name)
    if answer.outcome == "approve" and not policy.allow_self_review and person(name) in map(person, registered_by):
        return (
            f"{name} registered a candidate that is new in this ensemble and may not approve it; let somebody else "
            "decide, or refuse it (allow_self_review of the policy lifts this)."
        )
    if not answer.reason.strip():
        return "The reason is missing: it goes into the champion's history."
    return ""


def proof(ledger: Ledger, policy: Policy, answer: Answer) -> tuple[Proof, str]:
    """Return what proves whose answer it is, and what is wrong with that, "" when it is enough for the policy.

    Args:
        ledger: The ledger, in which a code is used up.
        policy: The policy in force; where it names no reviewers, a name is enough.
        answer: The answer.

    Raises:
        UsageError: if a code was given and is wrong.
    """
    found = proof_of(ledger, answer.reviewer, answer.code, answer.mark, answer.from_process)
    return found, _not_proven(answer.reviewer.strip()) if policy.reviewers and found not in PROVEN else ""


def missing_approvals(ledger: Ledger, policy: Policy, case: Case) -> str:
    """Return what is missing until a case is approved, "" when enough reviewers have said yes."""
    approvals = of_manifest(ledger.approvals(case.id), case.ensemble)
    return policy_complaint(policy, approvals, ledger.registrants(case.ensemble))


def _not_proven(name: str) -> str:
    # One answer for who is no reviewer and for who cannot prove to be one: it says nothing of who the reviewers are.
    return (
        f"{name} may not decide here, or nothing proves that it is {name} who answers: a reviewer gives the code of "
        "their authenticator app, or decides on the command line as their own user."
    )
