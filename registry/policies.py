"""The ledger's policy: read, changed with a reason, and laid over the settings of whoever decides."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import func, select

from esci_tournament.registry import tables
from esci_tournament.registry.errors import PolicyError, UsageError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.policy import NAMES, REVIEW, Policy, is_weaker, policy_of, versions_of
from esci_tournament.registry.records import PolicyRecord
from esci_tournament.registry.settings import Settings, read_settings

FIRST = "the settings in force when this ledger was first used"


def current(ledger: Ledger) -> PolicyRecord | None:
    """Return the newest version of the policy, None when the ledger has none yet."""
    with ledger.reading() as rows:
        found = versions_of(rows)
    return found[-1] if found else None


def history(ledger: Ledger) -> list[PolicyRecord]:
    """Return all versions of the policy, oldest first."""
    with ledger.reading() as rows:
        return versions_of(rows)


def in_force(ledger: Ledger, settings: Settings) -> Policy:
    """Return the ledger's policy; what the settings describe while the ledger has none."""
    record = current(ledger)
    return policy_of(record) if record else Policy.of(settings)


def record_policy(ledger: Ledger, policy: Policy, reason: str, expected: int | None = None) -> PolicyRecord:
    """Append a version of the policy.

    Args:
        ledger: The ledger.
        policy: What governs decisions from here on.
        reason: Why it changes; it stays in the history.
        expected: Version that it is to follow; default: whatever is there.

    Returns:
        The new version; the one that stands when it says the same.

    Raises:
        UsageError: If the reason is blank.
        PolicyError: If another version came first.
    """
    if not reason.strip():
        raise UsageError("a change of the policy needs a reason; it stays in the policy's history")
    with ledger.writing() as rows:
        known = versions_of(rows)
        last = known[-1] if known else None
        if last is not None and policy_of(last) == policy:
            return last
        if expected is not None and expected != (last.version if last else 0):
            raise PolicyError(f"the policy was changed meanwhile, to version {last.version if last else 0}; try again")
        # Promotions up to here were made under what stood before; ids, unlike moments, cannot be dated back.
        after = rows.connection.scalar(select(func.max(tables.promotions.c.id))) or 0
        before = policy_of(last) if last else None
        payload = {"policy": asdict(policy), "after_promotion": after, "changed": _changed(before, policy)}
        values = {"version": last.version + 1 if last else 1, "reason": reason.strip()}
        return PolicyRecord.of(rows.insert(tables.policies, values, payload))


def govern(ledger: Ledger, settings: Settings, has_api: bool) -> Settings:
    """Return the settings under the ledger's policy, which is recorded from them when the ledger has none yet.

    A value that was left to its default is replaced by the policy's. One that was said may ask for more than the
    policy; where it asks for more review, that becomes the policy, so that the next process cannot ask for less.

    Args:
        ledger: The ledger.
        settings: The settings of this process.
        has_api: Whether a Prefect API is configured, which is where reviewers answer.

    Raises:
        PolicyError: if a setting that was said asks for less than the policy does.
    """
    said = {name for name in NAMES if name in settings.model_fields_set} - _unsaid(settings)
    record = current(ledger)
    if record is None:
        # Of several processes that are the first, one is heard; the others come under what it said.
        with suppress(PolicyError):
            record_policy(ledger, _resolved(Policy.of(settings), has_api), FIRST, 0)
        return govern(ledger, settings, has_api)
    policy = policy_of(record)
    weaker = [
        name for name in NAMES if name in said and is_weaker(name, getattr(settings, name), getattr(policy, name))
    ]
    if weaker:
        raise PolicyError(_refusal(settings, policy, record.version, weaker))
    stricter = _with_more_review(policy, settings, said, has_api)
    if stricter != policy:
        words = ", ".join(f"{name} = {_shown(getattr(stricter, name))}" for name in _changed(policy, stricter))
        with suppress(PolicyError):  # another process changed it meanwhile: what it says now is looked at again
            record_policy(ledger, stricter, f"asked for by the settings of a process: {words}", record.version)
        return govern(ledger, settings, has_api)
    effective = {name: getattr(settings if name in said else policy, name) for name in NAMES}
    effective |= {"review": "required" if policy.requires_review else "none", "reviewers": policy.reviewers}
    return settings.model_copy(update=effective)


def changed_policy(policy: Policy, changes: Mapping[str, Any]) -> Policy:
    """Return a policy with some values changed, each checked as the setting of its name is.

    Args:
        policy: The policy that stands.
        changes: Name -> value, as JSON or text.

    Raises:
        UsageError: if a name is no part of the policy or a value is wrong.
    """
    unknown = sorted(set(changes) - set(NAMES))
    if unknown:
        raise UsageError(f"the policy has no {unknown[0]!r}; it has {', '.join(NAMES)}")
    checked = read_settings(**changes)
    return replace(policy, **{name: getattr(checked, name) for name in changes})


def _with_more_review(policy: Policy, settings: Settings, said: Collection[str], has_api: bool) -> Policy:
    """Return the policy with what settings ask for beyond it, of who decides."""
    more = {name: getattr(settings, name) for name in REVIEW if name in said}
    if more.get("review") == "none":
        del more["review"]
    elif "review" not in more and policy.review == "auto" and has_api:
        more["review"] = "required"
    if policy.reviewers:  # fewer names would shut others out: that is for the operator to say
        more.pop("reviewers", None)
    return replace(policy, **more)


def _unsaid(settings: Settings) -> set[str]:
    return {"review"} if settings.review == "auto" else set()


def _resolved(policy: Policy, has_api: bool) -> Policy:
    return replace(policy, review="required") if policy.review == "auto" and has_api else policy


def _changed(before: Policy | None, after: Policy) -> list[str]:
    return [name for name in NAMES if before is None or getattr(before, name) != getattr(after, name)]


def _refusal(settings: Settings, policy: Policy, version: int, weaker: Iterable[str]) -> str:
    differences = "; ".join(
        f"setting {name} = {_shown(getattr(settings, name))}, policy {_shown(getattr(policy, name))}" for name in weaker
    )
    return (
        f"these settings ask for less than version {version} of the policy in the ledger: {differences}. Leave them "
        "out, or have the operator change the policy: tournament policy set NAME=VALUE --reason WHY"
    )


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) or "nothing" if isinstance(value, tuple) else str(value)
