"""Early exit: members are asked one after the other, until the label is unlikely to change any more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esci_tournament.registry.errors import NotFoundError, StoreError, UsageError
from esci_tournament.registry.files import write_atomically
from esci_tournament.registry.foreign import read_json_file

FILE = "early_exit.json"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Level:
    """The rule at one risk, and its effect. All shares are of the pairs it was tested on, 0 to 1.

    Attributes:
        risk: share of labels that may differ from the whole ensemble's.
        thresholds: for 1, 2, ... k - 1 members: the margin (see :func:`margins`) from which no more need be asked; None
            where no pair leaves.
        disagreement: share of labels that differ.
        bound: upper bound of that share, at 95 % confidence; 0 when no pair leaves.
        calls_saved: share of member calls saved.
        milliseconds_saved: share of the members' time saved.
        metric_lost: metric of the whole ensemble's labels less that of the early ones.
        exits: share of pairs that are done after 1, 2, ... k members.
        reason: why no pair leaves early, if that was found when the rule was tested; "" when some may, and in files of
            earlier releases.
    """

    risk: float
    thresholds: tuple[float | None, ...]
    disagreement: float = 0.0
    bound: float = 0.0
    calls_saved: float = 0.0
    milliseconds_saved: float = 0.0
    metric_lost: float = 0.0
    exits: tuple[float, ...] = ()
    reason: str = ""

    @property
    def on(self) -> bool:
        """Whether any pair may leave early."""
        return any(threshold is not None for threshold in self.thresholds)


@dataclass(frozen=True)
class EarlyExit:
    """The rule of early exit, at one of several risks that were calibrated together.

    Attributes:
        order: the members in the order in which they are asked: by falling worth a millisecond.
        level: the risk in force.
        levels: all that were calibrated, by rising risk.
        metric: name of the metric that `metric_lost` is measured in.
        pairs: number of pairs it was tested on.
        queries: number of their queries.
        reason: why no pair leaves early; "" when some may.
    """

    order: tuple[str, ...]
    level: Level
    levels: tuple[Level, ...] = ()
    metric: str = "macro_f1"
    pairs: int = 0
    queries: int = 0
    reason: str = ""

    @property
    def on(self) -> bool:
        """Whether any pair may leave early."""
        return self.level.on

    def sure(self, stage: int, scores: np.ndarray) -> np.ndarray:
        """Return which labels are final without asking further members.

        Args:
            stage: how many members have answered, 1 to k; at k every label is final.
            scores: float (n, 4), decision scores of the aggregator of `order[:stage]` (`Subsets.best`).

        Returns:
            bool (n,).

        Raises:
            UsageError: if no such stage exists.
        """
        if not 1 <= stage <= len(self.order):
            raise UsageError(f"stage {stage} of early exit with {len(self.order)} members; pass 1 to {len(self.order)}")
        if stage == len(self.order):
            return np.ones(len(scores), dtype=bool)
        threshold = self.level.thresholds[stage - 1]
        if threshold is None:
            return np.zeros(len(scores), dtype=bool)
        return margins(scores) >= threshold

    def at(self, risk: float) -> EarlyExit:
        """Return the rule at the largest calibrated risk that is not above `risk`.

        Args:
            risk: share of labels that may differ, 0 to 1; at 0 no pair leaves early.

        Returns:
            A rule with the same order and levels.
        """
        fitting = [level for level in self.levels if 0 < level.risk <= risk * (1 + 1e-9)]
        level = max(fitting, key=lambda one: one.risk, default=None) or never(self.order, risk)
        told = level.reason or ("" if risk <= 0 or (self.levels and level != self.level) else self.reason)
        reason = "" if level.on else told or why_off(risk)
        return EarlyExit(self.order, level, self.levels, self.metric, self.pairs, self.queries, reason)

    def to_json(self) -> dict[str, Any]:
        """Return the rule as JSON-able facts."""
        return asdict(self) | {"confidence": CONFIDENCE}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> EarlyExit:
        """Return the rule that :meth:`to_json` wrote.

        Args:
            facts: what :meth:`to_json` returned.

        Returns:
            An equal rule.

        Raises:
            ValueError: if a value or the number of thresholds is wrong.
            KeyError: if a fact is missing.
            TypeError: if a fact is of a wrong type.
        """
        rule = cls(
            tuple(map(str, facts["order"])),
            _level(facts["level"]),
            tuple(map(_level, facts["levels"])),
            str(facts["metric"]),
            int(facts["pairs"]),
            int(facts["queries"]),
            str(facts["reason"]),
        )
        for level in (rule.level, *rule.levels):
            if len(level.thresholds) != max(len(rule.order) - 1, 0):
                raise ValueError(f"{len(level.thresholds)} thresholds for {len(rule.order)} members")
        return rule

    def save(self, folder: Path) -> None:
        """Write `early_exit.json` into `folder`."""
        content = json.dumps(self.to_json(), indent=2, allow_nan=False)
        write_atomically(folder / FILE, (content + "\n").encode())

    @classmethod
    def load(cls, folder: Path, risk: float | None = None) -> EarlyExit:
        """Return what `save` wrote.

        Args:
            folder: of the ensemble.
            risk: share of labels that may differ; default: the one that it was made for.

        Returns:
            The rule.

        Raises:
            NotFoundError: if the ensemble was made without early exit.
            StoreError: if the file is damaged.
        """
        path = folder / FILE
        try:
            rule = cls.from_json(read_json_file(path))
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{path} is not there: the ensemble was made without early exit; all members are asked"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise StoreError(f"{path} cannot be read: {error}; run a tournament to make the ensemble again") from error
        return rule if risk is None else rule.at(risk)


def margins(scores: np.ndarray) -> np.ndarray:
    """Return how far the class that is the label is ahead of the next.

    Args:
        scores: float (n, 4), decision scores: log-probabilities plus offsets.

    Returns:
        float64 (n,), nats, 0 or more.

    Example:
        >>> margins(np.log([[0.6, 0.3, 0.05, 0.05]])).round(3).tolist()
        [0.693]
    """
    if not len(scores):
        return np.zeros(0)
    ordered = np.partition(np.asarray(scores, dtype=np.float64), -2, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def never(order: Sequence[str], risk: float = 0.0) -> Level:
    """Return the level at which no pair leaves early.

    Args:
        order: the members in the order in which they are asked.
        risk: share of labels that may differ, 0 to 1.

    Returns:
        A level without thresholds.
    """
    stages = max(len(order) - 1, 0)
    return Level(risk, (None,) * stages, exits=(*(0.0 for _ in range(stages)), 1.0))


def why_off(risk: float) -> str:
    """Return why no pair leaves early when there were queries enough, in a sentence for the report.

    Args:
        risk: share of labels that may differ, 0 to 1.

    Returns:
        A sentence without a full stop.
    """
    if risk <= 0:
        return "the risk is set to 0: every member is asked for every pair"
    return f"no threshold was shown to change at most {100 * risk:.3g} % of labels; every member is asked"


def too_few(risk: float, queries: int, largest: float, needed: int) -> str:
    """Return that there were too few queries to let any pair leave early, in a sentence for the report.

    Args:
        risk: share of labels that may differ, above 0 and below 1.
        queries: number of queries it was calibrated on.
        largest: share of the pairs that the largest query has, 0 to 1.
        needed: queries that it takes when no label at all changes.

    Returns:
        A sentence without a full stop.

    Example:
        >>> too_few(0.005, 275, 0.012, 812)
        '275 queries, the largest with 1.2 % of the pairs, cannot show that at most 0.5 % of labels change: that takes \
about 812 such queries, or more if any label changes'
    """
    return (
        f"{queries:,} queries, the largest with {100 * largest:.2g} % of the pairs, cannot show that at most "
        f"{100 * risk:.3g} % of labels change: that takes about {needed:,} such queries, or more if any label changes"
    )


def _level(facts: Mapping[str, Any]) -> Level:
    numbers = {
        name: float(facts[name])
        for name in ("risk", "disagreement", "bound", "calls_saved", "milliseconds_saved", "metric_lost")
    }
    thresholds = tuple(None if one is None else float(one) for one in facts["thresholds"])
    exits, reason = tuple(map(float, facts["exits"])), str(facts.get("reason", ""))
    return Level(thresholds=thresholds, exits=exits, reason=reason, **numbers)
