"""The trial of a challenger on the test split: both sides score the pairs, and the judge decides."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.data.dataset import LOCALES
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.counts import METRICS, confusion, metrics_of
from esci_tournament.tasks.ensemble.judge import Answers, JudgeInput, JudgeSettings, judge
from esci_tournament.tasks.ensemble.scores import MemberScores, stack
from esci_tournament.tasks.ensemble.spending import History
from esci_tournament.tasks.ensemble.verdict import Verdict

# The settings that a verdict depends on: the thresholds of the judge, and the budget.
SETTINGS = (
    *(
        "primary_metric",
        "gain_metrics",
        "required_gain",
        "alpha",
        "resamples",
        "guardrail_margin",
        "minimum_test_queries",
    ),
    *("not_worse_margin", "cheaper_by", "seed", "budget_memory_mib", "budget_latency_ms", "execution"),
)


@dataclass(frozen=True)
class Side:
    """One side of a trial.

    Attributes:
        aggregator: the ensemble's.
        cost: what its members cost together; None when one was not measured.
    """

    aggregator: Aggregator
    cost: Cost | None


@dataclass(frozen=True)
class Trial:
    """The result of a trial.

    Attributes:
        verdict: the judge's verdict.
        confusion: 4 x 4 counts of the challenger, rows true, columns predicted; each pair counts once, also where
            queries have weights.
        alone: model -> "all" or a locale -> metrics of the model alone on the test pairs.
    """

    verdict: Verdict
    confusion: list[list[int]]
    alone: dict[str, dict[str, dict[str, float]]]


def run_trial(
    pairs: pd.DataFrame,
    scores: Sequence[MemberScores],
    challenger: Side,
    champion: Side | None,
    before: History,
    settings: Settings,
    single: str | None = None,
    given_up: float = 0.0,
    served: Sequence[str] | None = None,
    nothing_new: str = "",
) -> Trial:
    """Score the test pairs with both sides and judge the challenger.

    A champion with a member that has no scores cannot be compared with: then the verdict is not evaluable, and says so.

    Args:
        pairs: the test pairs: example_id, label, query_key, locale, and `product` (row of the product, which belongs to
            one locale). Without `product` the bounds do not take into account that products recur over queries. With
            `weight`, the same for all pairs of a query, queries count by it.
        scores: of every model that took part or is a member of the champion.
        challenger: the new ensemble.
        champion: the ensemble in service; None when there is none.
        before: looks that were taken before, and promoted nothing.
        settings: those of `SETTINGS`.
        single: the model that is best alone, as the pairs that the aggregator learns from say; one of `scores`. None
            for no comparison with it.
        given_up: what cheaper ensembles may have lost on the primary metric since the best champion so far.
        served: locales that the data has judged pairs of, each of which needs test pairs; None for those of the test
            pairs.
        nothing_new: why there is nothing to judge, in words: then the champion is not looked at, and the verdict is not
            evaluable; "" otherwise.

    Returns:
        The verdict and the metrics beside it.

    Raises:
        LeakError: if a score is not out of sample.
    """
    by_name = {one.member: one for one in scores}
    absent = absent_members(champion.aggregator.members if champion else (), by_name)
    ids, labels = pairs["example_id"].to_numpy(), pairs["label"].to_numpy()
    groups, locales = pairs["query_key"].to_numpy(), pairs["locale"].astype(str).to_numpy()

    def answer(side: Side) -> Answers:
        columns = stack([by_name[name] for name in side.aggregator.members], ids)
        probabilities = side.aggregator.predict_proba(columns)
        return Answers(probabilities, side.aggregator.labels(probabilities))

    answers = answer(challenger)
    case = JudgeInput.from_answers(
        labels,
        groups,
        locales,
        answers,
        None if champion is None or absent or nothing_new else answer(champion),
        None if single is None else given_by(by_name[single], ids),
        pairs["product"].to_numpy() if "product" in pairs else None,
        pairs["weight"].to_numpy() if "weight" in pairs else None,
        single_name=single or "",
        absent=absent,
        nothing_new=nothing_new,
        expected_locales=locales_of(pairs) if served is None else tuple(served),
        challenger_cost=challenger.cost,
        champion_cost=None if champion is None else champion.cost,
        budget=Budget.of(settings),
        before=before,
        given_up=given_up,
    )
    return Trial(
        verdict=judge(case, JudgeSettings.of(settings)),
        confusion=confusion(labels, answers.labels).tolist(),
        alone=metrics_of_each(pairs, by_name.values(), settings.primary_metric),
    )


def given_by(model: MemberScores, ids: np.ndarray) -> np.ndarray:
    """Return the class that a model answers with alone, int64 (n,), for pairs that are named by example id."""
    return stack([model], ids)[:, 0].argmax(axis=1)


def absent_members(members: Iterable[str], scored: Container[str]) -> tuple[str, ...]:
    """Return the members that are not among those with scores.

    Example:
        >>> absent_members(["a/1", "b/1"], {"a/1"})
        ('b/1',)
    """
    return tuple(name for name in members if name not in scored)


def locales_of(pairs: pd.DataFrame) -> tuple[str, ...]:
    """Return the locales that pairs are of, in the official order.

    Args:
        pairs: column locale.

    Returns:
        Names such as "us"; a category without a pair is not among them.

    Example:
        >>> locales_of(pd.DataFrame({"locale": pd.Categorical(["jp", "us", "jp"], ["us", "es", "jp"])}))
        ('us', 'jp')
    """
    spoken = set(pairs["locale"].unique())
    return tuple(locale for locale in LOCALES if locale in spoken)


def metrics_of_each(
    pairs: pd.DataFrame, scores: Iterable[MemberScores], primary: str = METRICS[0]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the metrics of each model alone, by its most probable label.

    Args:
        pairs: columns example_id, label (int, index into `LABELS`) and locale; with `weight`, pairs count by it.
        scores: of each model, out of sample on the pairs.
        primary: The declared metric, reported beside the three that always are.

    Returns:
        Member -> "all" or a locale -> metric -> value.

    Raises:
        LeakError: if a score is missing or not out of sample.
    """
    ids, labels = pairs["example_id"].to_numpy(), pairs["label"].to_numpy()
    locales = pairs["locale"].astype(str).to_numpy()
    weights = pairs["weight"].to_numpy() if "weight" in pairs else None
    return {one.member: metrics_alone(stack([one], ids)[:, 0], labels, locales, primary, weights) for one in scores}


def metrics_alone(
    probabilities: np.ndarray,
    labels: np.ndarray,
    locales: np.ndarray,
    primary: str = METRICS[0],
    weights: np.ndarray | None = None,
) -> dict[str, dict[str, float]]:
    """Return the metrics of the most probable label, over all pairs and by locale.

    Args:
        probabilities: float32 (n, 4).
        labels: int8 (n,), index into `LABELS`.
        locales: str (n,).
        primary: The declared metric, reported beside the three that always are.
        weights: float (n,), how much each pair counts; None for once each.

    Returns:
        "all" or a locale -> metric -> value; {} without a pair, which nothing can be measured on.
    """
    if not len(labels):
        return {}
    given = probabilities.argmax(axis=1)
    scopes = {"all": np.ones(len(labels), dtype=bool)} | {one: locales == one for one in sorted(set(locales))}
    counted = np.ones(len(labels)) if weights is None else weights
    return {
        scope: metrics_of(confusion(labels[here], given[here], counted[here]), primary)
        for scope, here in scopes.items()
    }


def by_class(counts: Sequence[Sequence[int]]) -> dict[str, dict[str, float | None]]:
    """Return precision, recall, F1 and support of each class.

    Args:
        counts: 4 x 4 counts, rows true, columns predicted.

    Returns:
        Label -> "precision", "recall", "f1" (0 to 1, None where no pair tells it) and "support" (pairs).
    """
    matrix = np.asarray(counts, dtype=float)
    rows: dict[str, dict[str, float | None]] = {}
    for place, label in enumerate(LABELS):
        hits, predicted, support = matrix[place, place], matrix[:, place].sum(), matrix[place].sum()
        rows[label] = {
            "precision": float(hits / predicted) if predicted else None,
            "recall": float(hits / support) if support else None,
            "f1": float(2 * hits / (predicted + support)) if predicted + support else None,
            "support": float(support),
        }
    return rows


def total_cost(members: Sequence[str], costs: Mapping[str, Cost], budget: Budget) -> Cost | None:
    """Return what the members cost together, as the budget counts it.

    Args:
        members: names.
        costs: of the members that were measured.
        budget: says whether members run in series or in parallel.

    Returns:
        The cost, or None when a member was not measured.

    Raises:
        BudgetError: if some were measured on a CPU and others on a GPU.
    """
    if any(member not in costs for member in members):
        return None
    return budget.used(members, costs)


def as_json(trial: Trial) -> dict[str, Any]:
    """Return a trial as JSON-able facts."""
    return {"verdict": trial.verdict.to_dict(), "confusion": trial.confusion, "alone": trial.alone}
