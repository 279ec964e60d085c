"""The verdict of the judge: an outcome, each check with its number and threshold, the metrics, and the reason."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from esci_tournament.registry.errors import UsageError

Outcome = Literal["promote", "refuse", "not_evaluable"]


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: what was checked.
        passed: whether it allows a promotion.
        judged: False where there is too little data to judge; `passed` is then True because no loss was found.
        value: the number that was compared.
        threshold: what it was compared with.
        sentence: all of it in words.
    """

    name: str
    passed: bool
    judged: bool
    value: float | None
    threshold: float | None
    sentence: str


@dataclass(frozen=True)
class MetricRow:
    """A metric of both sides with 95 % intervals; the champion's numbers are None when there is none.

    Both ends of an interval are None where too few queries move the metric; see
    :meth:`esci_tournament.tasks.ensemble.bootstrap.Difference.interval`.

    Attributes:
        scope: "all", a locale, or "class E" and so on.
        metric: name of the metric.
        queries: number of queries in the scope.
        pairs: number of pairs in the scope.
        challenger: the challenger's value.
        challenger_low: lower end of its interval.
        challenger_high: upper end of its interval.
        champion: the champion's value.
        champion_low: lower end of its interval.
        champion_high: upper end of its interval.
        difference: challenger minus champion.
        difference_low: lower end of its interval.
        difference_high: upper end of its interval.
    """

    scope: str
    metric: str
    queries: int
    pairs: int
    challenger: float
    challenger_low: float | None
    challenger_high: float | None
    champion: float | None = None
    champion_low: float | None = None
    champion_high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The verdict of one look at a test split.

    Attributes:
        outcome: promote, refuse or not_evaluable.
        reason: why, in words.
        route: the check that won when promoted: "gain", "gain in" and another metric, or "cheaper"; else "".
        checks: every check, in the order they were made.
        metrics: both sides, overall, by locale and by class.
        missing: what kept it from being evaluable: "champion", "members" (of the champion), "newcomers" (all was
            judged before), "queries", "locale <name>".
        cautions: what a reviewer should know beside the outcome, a sentence each.
        look: number of this look of the home; looks that promoted are not counted.
        level: the error probability it could spend.
        alpha_left: share of alpha left after it, 0 to 1.
        spends_look: whether it counts as a look; one that is not evaluable, or of a challenger that answers as the
            champion does, does not.
        digest: SHA-256 of everything the verdict follows from; the same digest must give the same verdict.
        conditional: the gain of one that is promoted, given that it was selected for it; see
            :func:`esci_tournament.tasks.ensemble.conditional.given_that_it_won`; with `metric` if it is not the
            primary one. None otherwise, and in verdicts of earlier releases.
    """

    outcome: Outcome
    reason: str
    route: str
    checks: tuple[Check, ...]
    metrics: tuple[MetricRow, ...]
    missing: tuple[str, ...]
    cautions: tuple[str, ...]
    look: int
    level: float
    alpha_left: float
    spends_look: bool
    digest: str
    conditional: dict[str, Any] | None = None

    def metric(self, name: str, scope: str = "all") -> MetricRow:
        """Return one row of the metrics.

        Args:
            name: of the metric, such as "macro_f1"; "f1" for a class.
            scope: "all", a locale, or "class E" and so on.

        Returns:
            The row.

        Raises:
            UsageError: if there is no such row.
        """
        for row in self.metrics:
            if (row.metric, row.scope) == (name, scope):
                return row
        raise UsageError(f"the verdict has no metric {name!r} for {scope!r}")

    def check(self, name: str) -> Check:
        """Return one check by name.

        Args:
            name: such as "gain", "cheaper", "budget" or that of a guardrail.

        Returns:
            The check.

        Raises:
            UsageError: if there is no such check.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise UsageError(f"the verdict has no check {name!r}; it has {', '.join(check.name for check in self.checks)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain JSON types; an infinite bound becomes None, and no `conditional` is left out."""
        content = _plain(asdict(self))
        if content["conditional"] is None:  # so that the verdict of an earlier release is written as it was
            del content["conditional"]
        return content

    def to_json(self) -> str:
        """Return the verdict as one JSON document; :meth:`from_json` reads it back, equal."""
        return json.dumps(self.to_dict(), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Return the verdict that :meth:`to_json` wrote.

        Args:
            text: a JSON document.

        Returns:
            An equal verdict.

        Raises:
            UsageError: if the text is not a verdict.
        """
        try:
            content = json.loads(text)
            content["checks"] = tuple(Check(**check) for check in content["checks"])
            content["metrics"] = tuple(MetricRow(**row) for row in content["metrics"])
            content["missing"], content["cautions"] = tuple(content["missing"]), tuple(content["cautions"])
            return cls(**content)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"this is no verdict: {error}; read what Verdict.to_json wrote") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
