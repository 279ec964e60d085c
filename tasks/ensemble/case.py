"""The input of the judge: the counts of both sides, the costs, the looks made, and the thresholds in force."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.extensions import METRICS
from esci_tournament.registry.labels import CLASSES
from esci_tournament.registry.plugins import release_of
from esci_tournament.registry.processes import usable_cores
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.counts import confidence_gaps, confusion_by_query


@dataclass(frozen=True)
class JudgeSettings:
    """The thresholds of the judge; :meth:`of` reads them from the settings in force.

    Attributes:
        primary_metric: name of the metric that decides, 0 to 1 unless a plug-in's.
        required_gain: gain on the primary metric that the lower bound must exceed, in the metric's unit.
        alpha: probability of a false promotion over all looks at a test split.
        resamples: number of bootstrap resamples.
        guardrail_margin: loss that a guardrail tolerates, in the metric's unit.
        minimum_test_queries: queries below which no verdict is given.
        not_worse_margin: loss on the primary metric that a cheaper challenger may at most have.
        cheaper_by: share of memory or time that must be saved to count as cheaper, the other no worse.
        seed: of the bootstrap.
        threads: of the bootstrap; they do not change its result.
    """

    primary_metric: str = "macro_f1"
    required_gain: float = 0.0
    alpha: float = 0.05
    resamples: int = 10_000
    guardrail_margin: float = 0.02
    minimum_test_queries: int = 50
    not_worse_margin: float = 0.005
    cheaper_by: float = 0.1
    seed: int = 0
    threads: int = field(default_factory=usable_cores, compare=False)

    @classmethod
    def of(cls, settings: Settings) -> JudgeSettings:
        """Return the judge's part of `settings`."""
        return cls(
            primary_metric=settings.primary_metric,
            required_gain=settings.required_gain,
            alpha=settings.alpha,
            resamples=settings.resamples,
            guardrail_margin=settings.guardrail_margin,
            minimum_test_queries=settings.minimum_test_queries,
            not_worse_margin=settings.not_worse_margin,
            cheaper_by=settings.cheaper_by,
            seed=settings.seed,
            threads=settings.cores,
        )


@dataclass(frozen=True)
class Answers:
    """What one side answered on the test pairs.

    Attributes:
        probabilities: float32 (n, 4).
        labels: int (n,), index into `LABELS`.
    """

    probabilities: np.ndarray
    labels: np.ndarray

    @classmethod
    def most_probable(cls, probabilities: np.ndarray) -> Answers:
        """Return the answers of a side that always says the most probable class.

        Args:
            probabilities: float32 (n, 4).
        """
        return cls(probabilities, probabilities.argmax(axis=1))


@dataclass(frozen=True)
class JudgeInput:
    """Everything about a test split that a verdict follows from.

    Attributes:
        query_key: uint64 (q,), unique.
        locale: str (q,).
        challenger: int32 (q, 4, 4), confusion of each query, true label by predicted.
        champion: the same of the champion, or None when there is none.
        challenger_gaps: float64 (q, 15), see :func:`esci_tournament.tasks.ensemble.counts.confidence_gaps`, or None.
        champion_gaps: the same of the champion, or None.
        single: int32 (q, 4, 4), confusion of each query of the best model as it answers alone, or None.
        single_name: candidate id of that model.
        absent: members of the champion that have no scores on these pairs: then it cannot be compared with.
        expected_locales: locales that the ensemble serves; each needs test data.
        challenger_cost: measured cost of the challenger, or None.
        champion_cost: measured cost of the champion, or None.
        budget: what the challenger must fit, or None.
        looks: looks that were made at this test split before this one.
    """

    query_key: np.ndarray
    locale: np.ndarray
    challenger: np.ndarray
    champion: np.ndarray | None = None
    challenger_gaps: np.ndarray | None = None
    champion_gaps: np.ndarray | None = None
    single: np.ndarray | None = None
    single_name: str = ""
    absent: tuple[str, ...] = ()
    expected_locales: tuple[str, ...] = ()
    challenger_cost: Cost | None = None
    champion_cost: Cost | None = None
    budget: Budget | None = None
    looks: int = 0

    @classmethod
    def from_answers(
        cls,
        labels: np.ndarray,
        groups: np.ndarray,
        locales: Sequence[str] | np.ndarray,
        challenger: Answers,
        champion: Answers | None = None,
        **rest: object,
    ) -> JudgeInput:
        """Return the input made from the test pairs.

        Args:
            labels: int8 (n,), index into `LABELS`.
            groups: uint64 (n,), query keys.
            locales: str (n,).
            challenger: of the challenger.
            champion: of the champion, or None.
            **rest: the remaining fields of the class.

        Returns:
            The input, queries in ascending order; a query has the locale of its first pair.
        """
        keys, counts = confusion_by_query(labels, challenger.labels, groups)
        first = np.unique(groups, return_index=True)[1]
        other, other_gaps = None, None
        if champion is not None:
            other = confusion_by_query(labels, champion.labels, groups)[1]
            other_gaps = confidence_gaps(labels, champion.probabilities, groups)
        return cls(
            keys, np.asarray(locales).astype(str)[first], counts, other,
            confidence_gaps(labels, challenger.probabilities, groups), other_gaps, **rest,  # type: ignore[arg-type]
        )  # fmt: skip

    @classmethod
    def from_probabilities(
        cls,
        labels: np.ndarray,
        groups: np.ndarray,
        locales: Sequence[str] | np.ndarray,
        challenger: np.ndarray,
        champion: np.ndarray | None = None,
        **rest: object,
    ) -> JudgeInput:
        """Return the input of sides that always answer with the most probable class.

        Args:
            labels: int8 (n,), index into `LABELS`.
            groups: uint64 (n,), query keys.
            locales: str (n,).
            challenger: float32 (n, 4), probabilities of the challenger.
            champion: float32 (n, 4), probabilities of the champion, or None.
            **rest: the remaining fields of the class.

        Returns:
            As :meth:`from_answers`.
        """
        other = None if champion is None else Answers.most_probable(champion)
        return cls.from_answers(labels, groups, locales, Answers.most_probable(challenger), other, **rest)

    def canonical(self) -> JudgeInput:
        """Return the same with the queries in ascending order.

        Returns:
            A checked copy.

        Raises:
            UsageError: if shapes do not fit, a query stands twice, or both sides saw different labels.
        """
        rows = len(self.query_key)
        for name in ("challenger", "champion", "single"):
            counts = getattr(self, name)
            if counts is not None and counts.shape != (rows, CLASSES, CLASSES):
                raise UsageError(f"{name}'s counts have shape {counts.shape}; pass ({rows}, {CLASSES}, {CLASSES})")
        if len(self.locale) != rows or len(np.unique(self.query_key)) != rows:
            raise UsageError("the judge needs one row for each query: a query stands twice or a locale is missing")
        for name, counts in (("champion", self.champion), (self.single_name, self.single)):
            if counts is not None and not np.array_equal(self.challenger.sum(axis=2), counts.sum(axis=2)):
                raise UsageError(
                    f"challenger and {name} were not scored on the same test pairs; score both on the same split"
                )
        order = np.argsort(self.query_key, kind="stable")
        changed = {
            name: None if (array := getattr(self, name)) is None else np.asarray(array)[order]
            for name in ("query_key", "locale", "challenger", "champion", "challenger_gaps", "champion_gaps", "single")
        }
        return JudgeInput(**{**self.__dict__, **changed})


def digest_of(case: JudgeInput, settings: JudgeSettings) -> str:
    """Return a SHA-256 (hex) over everything that the verdict follows from; threads are not part of it.

    Args:
        case: the input, in canonical order.
        settings: the thresholds.

    Returns:
        64 hex digits.
    """
    rest = {key: value for key, value in asdict(settings).items() if key != "threads"}
    rest |= {"locales": list(case.expected_locales), "looks": case.looks}
    if release := release_of(METRICS, settings.primary_metric):
        rest["metric_release"] = release
    if case.absent:
        rest["absent"] = list(case.absent)
    if case.single is not None:  # verdicts of earlier releases had no such comparison, and keep their digests
        rest["single"] = case.single_name
    for name in ("challenger_cost", "champion_cost", "budget"):
        value = getattr(case, name)
        rest[name] = None if value is None else asdict(value)
    sha = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in ("query_key", "challenger", "champion", "challenger_gaps", "champion_gaps", "single"):
        array = getattr(case, name)
        if array is not None:
            kind = {"query_key": "<u8", "challenger": "<i4", "champion": "<i4", "single": "<i4"}.get(name, "<f8")
            sha.update(name.encode() + np.ascontiguousarray(array, dtype=kind).tobytes())
    sha.update("\x1f".join(case.locale.tolist()).encode())
    return sha.hexdigest()
