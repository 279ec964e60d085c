"""Newer data that a person decides on before scorers use it: offered, and approved or refused by a reviewer.

All of it follows from the ledger's events. Who may decide, how they prove who they are, and how many must approve is
what the policy says of promotions.
"""

from __future__ import annotations

from collections.abc import Sequence

from esci_tournament.registry.errors import NotFoundError, PolicyError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.live_data import EVENT, is_served, set_live_data
from esci_tournament.registry.policy import Policy, person
from esci_tournament.registry.records import Event
from esci_tournament.registry.reviewers import Answer, complaint, proof

OFFERED, APPROVED, REFUSED = "data_offered", "data_approved", "data_refused"


def offer(ledger: Ledger, data_version: str, origin: str) -> bool:
    """Record that a data version waits for a reviewer before scorers use it.

    Args:
        ledger: Where it is recorded.
        data_version: Digest of a data version that passed validation.
        origin: Where it came from, in words.

    Returns:
        Whether it was recorded; False when it serves, waits or was refused already.
    """
    known = {one.subject for one in _reviewed(ledger) if one.kind in (OFFERED, REFUSED)}
    if data_version in known or is_served(ledger, data_version):
        return False
    ledger.record_event(OFFERED, data_version, payload={"origin": origin})
    return True


def offered(ledger: Ledger) -> list[Event]:
    """Return the data versions that wait for a reviewer, oldest first; one that is older than what serves does not."""
    waits: dict[str, Event] = {}
    for event in _reviewed(ledger):
        if event.kind == OFFERED:
            waits[event.subject] = event
        elif event.kind == EVENT:
            waits.clear()
        elif event.kind == REFUSED:
            waits.pop(event.subject, None)
    return list(waits.values())


def decide(ledger: Ledger, policy: Policy, data_version: str, answer: Answer) -> str:
    """Record a reviewer's answer on a data version, and have scorers use it once enough have approved.

    Any data version on record may be approved, also one that was refused, or that no run has offered. The policy of
    promotions counts: who may decide, how they prove who they are, and how many must approve.

    Args:
        ledger: Where it is recorded.
        policy: The policy in force.
        data_version: Digest of the data version.
        answer: What the reviewer says.

    Returns:
        What came of it, in words.

    Raises:
        PolicyError: If they may not decide.
        UsageError: If name or reason is missing, or a code is wrong.
    """
    wrong = complaint(policy, answer, ())
    if not wrong:
        proven, wrong = proof(ledger, policy, answer)
    if wrong:
        raise PolicyError(wrong)
    who, short = answer.reviewer.strip(), data_version[:12]
    content = {"by": who, "person": person(who), "reason": answer.reason, "proof": proven}
    if answer.outcome != "approve":
        ledger.record_event(REFUSED, data_version, payload=content)
        return f"data {short} is refused; scorers keep what they use"
    ledger.record_event(APPROVED, data_version, payload=content)
    yes = _approvals(_reviewed(ledger), data_version)
    if len(yes) < policy.quorum:
        return f"{who} approved data {short}; {policy.quorum - len(yes)} more must approve it"
    served = set_live_data(ledger, data_version, ", ".join(yes.values()), answer.reason)
    return f"scorers change to data {short}" if served else f"scorers use data {short} already"


def find_version(ledger: Ledger, name: str) -> str:
    """Return the data version on record whose digest begins with `name`.

    Args:
        ledger: The ledger.
        name: At least four digits of a digest.

    Raises:
        NotFoundError: If there is none, or more than one.
    """
    found = [one.digest for one in ledger.data_versions() if len(name) >= 4 and one.digest.startswith(name)]
    if len(found) != 1:
        how = f"{len(found)} begin" if found else "none begins"
        raise NotFoundError(f"of the data versions on record {how} with {name!r}; tournament data served lists them")
    return found[0]


def _reviewed(ledger: Ledger) -> list[Event]:
    return [one for one in ledger.events() if one.kind in (EVENT, OFFERED, APPROVED, REFUSED)]


def _approvals(events: Sequence[Event], data_version: str) -> dict[str, str]:
    """Return who has approved a data version since it was last served or refused: person -> name."""
    found: dict[str, str] = {}
    for event in events:
        if event.subject == data_version and event.kind == APPROVED:
            found[event.payload["person"]] = event.payload["by"]
        elif event.subject == data_version and event.kind in (EVENT, REFUSED):
            found.clear()
    return found
