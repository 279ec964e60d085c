"""The input of the judge: the counts of both sides, the costs, the looks made, and the thresholds in force."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.extensions import GAINS, LOG_LOSS, METRICS, PRIMARY
from esci_tournament.registry.labels import CLASSES
from esci_tournament.registry.plugins import release_of
from esci_tournament.registry.processes import usable_cores
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.counts import (
    confidence_gaps,
    confusion_by_query,
    gaps_of_pairs,
    losses_by_query,
    losses_of_pairs,
)
from esci_tournament.tasks.ensemble.recurrence import METHOD, RecurringPairs
from esci_tournament.tasks.ensemble.spending import History

# What a case has of each query, beside its key and its locale
_SUMMED = (
    *("challenger", "champion", "challenger_gaps", "champion_gaps", "challenger_loss", "champion_loss"),
    *("single", "weights"),
)


@dataclass(frozen=True)
class JudgeSettings:
    """The thresholds of the judge; :meth:`of` reads them from the settings in force.

    Attributes:
        primary_metric: name of the metric that decides, 0 to 1 unless a plug-in's.
        gain_metrics: any of these must gain: "primary" (the primary metric), "log_loss", or an overall metric.
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
    gain_metrics: tuple[str, ...] = GAINS
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
            gain_metrics=settings.gain_metrics,
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

    def tested(self, losses_known: bool) -> tuple[str, ...]:
        """Return the names of the metrics of which any must gain; they share the level of a look.

        Args:
            losses_known: whether the log loss of both sides is known; else only labels can be compared.

        Returns:
            At least one name, each once.
        """
        named = (self.primary_metric if name == PRIMARY else name for name in self.gain_metrics)
        known = tuple(dict.fromkeys(name for name in named if losses_known or name != LOG_LOSS))
        return known or (self.primary_metric,)


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
        challenger_loss: float64 (q,), summed log loss of each query's pairs in nats, or None.
        champion_loss: the same of the champion, or None.
        single: int32 (q, 4, 4), confusion of each query of the best model as it answers alone, or None.
        single_name: candidate id of that model.
        weights: float64 (q,), above 0, how much each query counts, mean 1; or None where all count alike.
        recurring: the pairs of products that occur under more than one query, or None where products are not known:
            then bounds are those of a bootstrap over queries alone.
        absent: members of the champion that have no scores on these pairs: then it cannot be compared with.
        nothing_new: why there is nothing to judge, in words: then nothing is compared; "" otherwise.
        expected_locales: locales that the ensemble serves; each needs test data.
        challenger_cost: measured cost of the challenger, or None.
        champion_cost: measured cost of the champion, or None.
        budget: what the challenger must fit, or None.
        before: the looks that were made before this one, and promoted nothing.
        given_up: what promotions of cheaper ensembles may have lost on the primary metric since the best champion so
            far, in the metric's unit.
    """

    query_key: np.ndarray
    locale: np.ndarray
    challenger: np.ndarray
    champion: np.ndarray | None = None
    challenger_gaps: np.ndarray | None = None
    champion_gaps: np.ndarray | None = None
    challenger_loss: np.ndarray | None = None
    champion_loss: np.ndarray | None = None
    single: np.ndarray | None = None
    single_name: str = ""
    weights: np.ndarray | None = None
    recurring: RecurringPairs | None = None
    absent: tuple[str, ...] = ()
    nothing_new: str = ""
    expected_locales: tuple[str, ...] = ()
    challenger_cost: Cost | None = None
    champion_cost: Cost | None = None
    budget: Budget | None = None
    before: History = field(default_factory=History)
    given_up: float = 0.0

    @classmethod
    def from_answers(
        cls,
        labels: np.ndarray,
        groups: np.ndarray,
        locales: Sequence[str] | np.ndarray,
        challenger: Answers,
        champion: Answers | None = None,
        single: np.ndarray | None = None,
        products: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        **rest: object,
    ) -> JudgeInput:
        """Return the input made from the test pairs.

        Args:
            labels: int8 (n,), index into `LABELS`.
            groups: uint64 (n,), query keys.
            locales: str (n,).
            challenger: of the challenger.
            champion: of the champion, or None.
            single: int (n,), what the best model answers alone, or None.
            weights: float (n,), above 0, how much the query of each pair counts, or None where all count alike.
            products: int (n,), the product of each pair, one below 0 where it is not known; None if none is.
            **rest: the remaining fields of the class.

        Returns:
            The input, queries in ascending order; a query has the locale of its first pair.
        """
        keys, counts = confusion_by_query(labels, challenger.labels, groups)
        first = np.unique(groups, return_index=True)[1]
        other, other_gaps, other_loss = None, None, None
        if champion is not None:
            other = confusion_by_query(labels, champion.labels, groups)[1]
            other_gaps = confidence_gaps(labels, champion.probabilities, groups)
            other_loss = losses_by_query(labels, champion.probabilities, groups)
        recurring = None
        if products is not None:
            ours = gaps_of_pairs(labels, challenger.probabilities)
            theirs = (None, None) if champion is None else gaps_of_pairs(labels, champion.probabilities)
            recurring = RecurringPairs.among(
                products, groups, label=labels, challenger=challenger.labels, single=single,
                champion=None if champion is None else champion.labels, challenger_bin=ours[0], challenger_gap=ours[1],
                champion_bin=theirs[0], champion_gap=theirs[1],
                challenger_loss=losses_of_pairs(labels, challenger.probabilities),
                champion_loss=None if champion is None else losses_of_pairs(labels, champion.probabilities),
            )  # fmt: skip
        return cls(
            keys, np.asarray(locales).astype(str)[first], counts, other,
            confidence_gaps(labels, challenger.probabilities, groups), other_gaps,
            losses_by_query(labels, challenger.probabilities, groups), other_loss,
            weights=None if weights is None else np.asarray(weights, np.float64)[first],
            single=None if single is None else confusion_by_query(labels, single, groups)[1], recurring=recurring,
            **rest,  # type: ignore[arg-type]
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
        return cls.from_answers(labels, groups, locales, Answers.most_probable(challenger), other, **rest)  # type: ignore[arg-type]

    def weighted(self) -> JudgeInput:
        """Return the same with counts, gaps and losses multiplied by the weights, as floats: to compute with."""
        if self.weights is None:
            return self
        factors = {name: self.weights.reshape(-1, *(1,) * (array.ndim - 1)) * array
                   for name in _SUMMED if name != "weights" and (array := getattr(self, name)) is not None}  # fmt: skip
        recurring = self.recurring
        if recurring is not None:
            recurring = replace(recurring, weight=self.weights[np.searchsorted(self.query_key, recurring.query_key)])
        return replace(self, recurring=recurring, **factors)

    @property
    def losses_known(self) -> bool:
        """Whether the log loss of both sides is known."""
        return self.challenger_loss is not None and self.champion_loss is not None

    def canonical(self) -> JudgeInput:
        """Return the same with the queries in ascending order.

        Returns:
            A checked copy.

        Raises:
            UsageError: if shapes do not fit, a query stands twice, both sides saw different labels, or the pairs of
                recurring products are not among those that were counted.
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
        if self.weights is not None and not (self.weights.shape == (rows,) and (self.weights > 0).all()):
            raise UsageError("the weights of queries have to be above 0, one for each query")
        order = np.argsort(self.query_key, kind="stable")
        changed = {
            name: None if (array := getattr(self, name)) is None else np.asarray(array)[order]
            for name in ("query_key", "locale", *_SUMMED)
        }
        case = JudgeInput(**{**self.__dict__, **changed})
        if self.recurring is None:
            return case
        recurring = self.recurring.canonical()
        recurring.check(case.query_key, (case.challenger, case.champion, case.single))
        return replace(case, recurring=recurring)


def digest_of(case: JudgeInput, settings: JudgeSettings) -> str:
    """Return a SHA-256 (hex) over everything that the verdict follows from; threads are not part of it.

    Args:
        case: the input, in canonical order.
        settings: the thresholds.

    Returns:
        64 hex digits.
    """
    rest = {key: value for key, value in asdict(settings).items() if key not in ("threads", "gain_metrics")}
    rest |= {"locales": list(case.expected_locales), "looks": case.before.looks}
    # What earlier releases did not know is left out where it is not known, so that their verdicts keep their digests
    if (tested := settings.tested(case.losses_known)) != (settings.primary_metric,):
        rest["gain_metrics"] = list(tested)
    rest |= {name: value for name in ("seen", "spent") if (value := getattr(case.before, name)) is not None}
    if case.given_up:
        rest["given_up"] = case.given_up
    if release := release_of(METRICS, settings.primary_metric):
        rest["metric_release"] = release
    if case.absent:
        rest["absent"] = list(case.absent)
    if case.nothing_new:
        rest["nothing_new"] = case.nothing_new
    if case.single is not None:
        rest["single"] = case.single_name
    if case.recurring is not None:
        rest["recurring"] = METHOD
    for name in ("challenger_cost", "champion_cost", "budget"):
        value = getattr(case, name)
        rest[name] = None if value is None else asdict(value)
    sha = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in ("query_key", *_SUMMED):
        array = getattr(case, name)
        if array is not None:
            kind = {"query_key": "<u8", "challenger": "<i4", "champion": "<i4", "single": "<i4"}.get(name, "<f8")
            sha.update(name.encode() + np.ascontiguousarray(array, dtype=kind).tobytes())
    if case.recurring is not None:
        for name, array in case.recurring.arrays():
            kind = "<u8" if name == "query_key" else "<f8" if name.endswith(("_gap", "_loss")) else "<i8"
            sha.update(f"recurring {name}".encode() + np.ascontiguousarray(array, dtype=kind).tobytes())
    sha.update("\x1f".join(case.locale.tolist()).encode())
    return sha.hexdigest()
