"""The policy: who may approve a promotion, how many must, and by which rule a challenger counts as better.

It is kept in the ledger, in versions that are appended and never changed. The first version is taken from the settings
in force when a ledger is first used; from then on settings may ask for more than the policy does, never for less.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from esci_tournament.registry import tables
from esci_tournament.registry.extensions import PRIMARY
from esci_tournament.registry.records import PolicyRecord
from esci_tournament.registry.rows import Rows
from esci_tournament.registry.settings import Settings


@dataclass(frozen=True)
class Policy:
    """What governs decisions. Each attribute is the setting of that name; `tournament doctor --all` describes them.

    Attributes:
        review: "auto" is none until a Prefect API is configured for the first time, and required from then on.
        reviewers: Names that may decide; empty: anyone.
        quorum: Reviewers that must approve.
        allow_self_review: Whether whoever registered a candidate may approve it.
        allowed_pyfunc_sources: Where code of pyfuncs may come from.
        primary_metric, gain_metrics, required_gain, alpha, guardrail_margin, not_worse_margin, cheaper_by,
            minimum_test_queries, inaugurate: The promotion rule.
    """

    review: Literal["auto", "required", "none"]
    reviewers: tuple[str, ...]
    quorum: int
    allow_self_review: bool
    allowed_pyfunc_sources: tuple[str, ...]
    primary_metric: str
    gain_metrics: tuple[str, ...]
    required_gain: float
    alpha: float
    guardrail_margin: float
    not_worse_margin: float
    cheaper_by: float
    minimum_test_queries: int
    inaugurate: bool

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """Return the policy that settings describe."""
        return cls(**{name: getattr(settings, name) for name in NAMES})

    @classmethod
    def from_payload(cls, content: Mapping[str, Any]) -> Policy:
        """Return the policy that a row of the ledger holds.

        A field that is younger than the row is what the rule was before there was such a field, or else its default.
        """
        known: dict[str, Any] = {
            name: content.get(name, _BEFORE.get(name, Settings.model_fields[name].default)) for name in NAMES
        }
        return cls(**{name: _from_json(value) for name, value in known.items()})

    @property
    def requires_review(self) -> bool:
        """Whether a person decides on every promotion."""
        return self.review == "required"

    def names_reviewer(self, name: str) -> bool:
        """Return whether somebody may decide at all."""
        return not self.reviewers or person(name) in map(person, self.reviewers)

    def weaker_rules(self, settings: Mapping[str, Any]) -> list[str]:
        """Return the names of the promotion rule that a tournament's settings asked less of than this policy does.

        Args:
            settings: The settings that a verdict was reached under, as the ledger has them; what is missing is weaker,
                but for what there was only one rule for.
        """
        known = _BEFORE | dict(settings)
        return [
            name for name in RULE if name not in known or is_weaker(name, _from_json(known[name]), getattr(self, name))
        ]


# What the rule was before there was a setting for it
_BEFORE: dict[str, Any] = {"gain_metrics": (PRIMARY,)}
NAMES = tuple(field.name for field in fields(Policy))
REVIEW = ("review", "reviewers", "quorum", "allow_self_review")  # of NAMES: who decides
RULE = NAMES[NAMES.index("primary_metric") :]


def person(name: str) -> str:
    """Return the name that two spellings of one person share: without case, and without the host of `ana@laptop`.

    Example:
        >>> person(" Ana@laptop ")
        'ana'
    """
    return " ".join(name.split("@")[0].split()).casefold()


def _names_others(asked: Collection[str], policy: Collection[str]) -> bool:
    return bool(policy) and (not asked or not set(map(person, asked)) <= set(map(person, policy)))


# Setting -> whether the value that is asked for is weaker than the policy's.
_WEAKER: dict[str, Callable[[Any, Any], bool]] = {
    "review": lambda asked, policy: policy == "required" and asked == "none",
    "reviewers": _names_others,
    "quorum": lambda asked, policy: asked < policy,
    "allow_self_review": lambda asked, policy: asked and not policy,
    "allowed_pyfunc_sources": lambda asked, policy: not set(asked) <= set(policy),
    "primary_metric": lambda asked, policy: asked != policy,
    "gain_metrics": lambda asked, policy: not set(asked) <= set(policy),
    "required_gain": lambda asked, policy: asked < policy,
    "alpha": lambda asked, policy: asked > policy,
    "guardrail_margin": lambda asked, policy: asked > policy,
    "not_worse_margin": lambda asked, policy: asked > policy,
    "cheaper_by": lambda asked, policy: asked < policy,
    "minimum_test_queries": lambda asked, policy: asked < policy,
    "inaugurate": lambda asked, policy: asked and not policy,
}


def is_weaker(name: str, asked: Any, policy: Any) -> bool:
    """Return whether a value that is asked for is weaker than the policy's.

    Args:
        name: The setting.
        asked: Its value.
        policy: The policy's value.

    Example:
        >>> is_weaker("alpha", 0.1, 0.05), is_weaker("quorum", 2, 1)
        (True, False)
    """
    return bool(_WEAKER[name](asked, policy))


def versions_of(rows: Rows) -> list[PolicyRecord]:
    """Return all versions of the policy that a transaction sees, oldest first."""
    return sorted((PolicyRecord.of(row) for row in rows.all(tables.policies)), key=lambda one: one.version)


def policy_of(record: PolicyRecord) -> Policy:
    """Return the policy that a version holds."""
    return Policy.from_payload(record.payload["policy"])


def _from_json(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
