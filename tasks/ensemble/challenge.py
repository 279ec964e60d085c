"""Build a challenger from all models that have scores: aggregate, rank, select, fit; stored in one folder."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import CandidateError
from esci_tournament.registry.extensions import METRICS, SELECTION_RULES
from esci_tournament.registry.plugins import release_of
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.spelling import counted
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters
from esci_tournament.tasks.ensemble.attribution import evenly, tabulate
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.counts import confusion, metric_of, metrics_of
from esci_tournament.tasks.ensemble.explanation import check_with_shap, explanation, to_json
from esci_tournament.tasks.ensemble.interchange import interchangeable
from esci_tournament.tasks.ensemble.mixed_up import mixed_up
from esci_tournament.tasks.ensemble.refits import Refits, refit
from esci_tournament.tasks.ensemble.scores import MemberScores, stack
from esci_tournament.tasks.ensemble.search import Eviction
from esci_tournament.tasks.ensemble.select import Selection, select
from esci_tournament.tasks.ensemble.similarity import compare_members
from esci_tournament.tasks.ensemble.value import MOST_ROWS, MOST_SHAPLEY_MEMBERS, Game
from esci_tournament.tasks.ensemble.worth import Worth, measure_worth
from esci_tournament.tasks.families.protocol import Progress, silent

RESULT = "challenge.json"
# Of building a challenger; part of the key that it is stored under. 1: with class weights in the fit; 2: without the
# metrics out of fold; 3: without intervals over re-fits; 4: without a look for columns in another order
METHOD = 5
_SELECTED = 0.7  # share of the work, as progress tells it, until the members are chosen
# The settings that a challenger depends on; they are part of the key that it is stored under.
SETTINGS = (
    *("budget_memory_mib", "budget_latency_ms", "execution", "selection", "must_keep", "must_drop"),
    *("primary_metric", "guardrail_margin", "keep_score_files", "seed"),
)
SHOWN_PAIRS = 200  # whose contributions are stored, for pictures
SHAPLEY_REFITS = 64  # sets that may be fitted for the exact Shapley value of a report


@dataclass(frozen=True)
class Challenge:
    """A challenger and how it came to be.

    Attributes:
        members: candidate ids of the challenger, in the aggregator's order.
        aggregator: the LightGBM stage over their scores.
        result: JSON-able facts: "members", "everybody", "worth" and "worth_all" (of the challenger, and of the
            ensemble of all models; of the challenger with intervals over re-fits), "value_error", "drop_one" and
            "drop_one_errors" (standard errors over queries), "shapley" (or {} when too many re-fits), "selection",
            "combination" (how the members are combined, see :func:`combination`), "out_of_fold" (see
            :func:`out_of_fold`; results of earlier releases lack it), "best_alone" (the best model by itself, of those
            that might serve), "likeness", "interchangeable" (see `interchange.py`), "mixed_up" (see
            `mixed_up.py`), "contributions" (on some pairs, see `explanation.py`), "shap" (how they agree with the
            package's own), "refits".
    """

    members: tuple[str, ...]
    aggregator: Aggregator
    result: dict[str, Any]

    @property
    def best_alone(self) -> str | None:
        """Candidate id of the model that is best by itself; None where an earlier release built the challenger."""
        return (self.result.get("best_alone") or {}).get("member")

    @classmethod
    def load(cls, folder: Path) -> Challenge:
        """Return the challenge that :func:`build_challenge` stored.

        Args:
            folder: where it was stored.

        Returns:
            The challenge.

        Raises:
            StoreError: if the aggregator is missing or damaged.
        """
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return cls(tuple(result["members"]), Aggregator.load(folder / "aggregator"), result)


def build_challenge(
    folder: Path,
    pairs: pd.DataFrame,
    scores: Sequence[MemberScores],
    costs: Mapping[str, Cost],
    settings: Settings,
    progress: Progress = silent,
    for_information: Sequence[str] = (),
) -> None:
    """Choose the members within the budget, fit their aggregator, and write both into an empty folder.

    Args:
        folder: where to write challenge.json and `aggregator/`.
        pairs: the pairs the aggregator learns from: example_id, label, query_key, locale.
        scores: of every model, out of sample on `pairs`.
        costs: of every model.
        settings: those of `SETTINGS`.
        progress: called after every re-fit with a share done, 0 to 1, and the set that was fitted.
        for_information: models that take part in the ranking of all models and are never kept: they cannot answer for
            a pair that was not scored in advance.

    Raises:
        LeakError: if a score is not out of sample.
        CandidateError: if every model is there for information only.
        BudgetError: if no model fits the budget.
    """
    names = [one.member for one in scores]
    if not set(names) - set(for_information):
        raise CandidateError(
            "no candidate can serve: score files answer only for the pairs they hold; register another "
            "candidate, or let them be members by the setting keep_score_files"
        )
    columns = stack(scores, pairs["example_id"].to_numpy())
    labels, groups = pairs["label"].to_numpy(), pairs["query_key"].to_numpy()
    locales = pairs["locale"].astype(str).to_numpy()
    steps = _Steps(progress, settings.primary_metric)
    steps.begin(
        0.0, _SELECTED, f"choosing among {counted(len(names), 'model')} on {min(len(labels), MOST_ROWS):,} pairs"
    )
    parameters = AggregatorParameters(seed=settings.seed, threads=settings.cores)
    game = Game(columns, labels, groups, names, parameters, settings.primary_metric, heard=steps.hear, locales=locales)
    selection = select(
        game,
        costs,
        Budget.of(settings),
        settings.selection,
        must_keep=named(settings.must_keep, names),
        must_drop={*named(settings.must_drop, names), *for_information},
    )
    selection = replace(selection, evicted=tuple(what_it_would_bring(game, selection, for_information)))
    steps.begin(_SELECTED, 0.8, f"fitting {counted(len(selection.kept), 'member')} on all {len(labels):,} pairs")
    aggregator = game.final_aggregator(selection.kept)

    def of(chosen: Sequence[str]) -> np.ndarray:
        return np.ascontiguousarray(columns[:, [names.index(name) for name in chosen]])

    def worth(fitted: Aggregator, refits: Refits | None = None) -> Worth:
        return measure_worth(
            fitted, of(fitted.members), groups, locales, refits=refits, seed=settings.seed, threads=settings.cores
        )

    steps.begin(0.8, 0.95, "fitting again on resampled queries")
    own = of(selection.kept)
    forest = tabulate(aggregator)
    agreement = check_with_shap(aggregator, own, forest)
    choice = game.fitted(selection.kept).choice
    refits = refit(own, labels, groups, selection.kept, game.parameters, choice, seed=settings.seed, heard=steps.part)
    steps.begin(0.95, 1.0, "measuring what each member is worth")
    everybody = list(names)
    likeness = compare_members(columns, labels, names)
    result = {
        "members": list(selection.kept),
        "everybody": everybody,
        "worth": worth_json(worth(aggregator, refits)),
        "worth_all": worth_json(worth(game.aggregator(everybody))),
        "value_error": game.error(selection.kept),
        "drop_one": game.drop_one(selection.kept),
        "drop_one_errors": game.drop_one_errors(selection.kept),
        "shapley": shapley(game, selection),
        "selection": asdict(selection),
        "combination": combination(game, selection.kept),
        "out_of_fold": out_of_fold(game, selection.kept),
        "best_alone": best_alone(columns, labels, names, selection.alone, settings.primary_metric),
        "likeness": [asdict(pair) for pair in likeness],
        "interchangeable": [asdict(pair) for pair in interchangeable(game, selection.kept, likeness)],
        "mixed_up": [one.sentence for one in mixed_up(columns, labels, groups, names)],
        "contributions": to_json(explanation(aggregator, own[evenly(len(own), SHOWN_PAIRS)], forest)),
        "shap": asdict(agreement),
        "refits": game.refits,
    }
    aggregator.save(folder / "aggregator")
    (folder / RESULT).write_text(json.dumps(result, allow_nan=False), encoding="utf-8")


class _Steps:
    """Progress in steps, each with its part of the whole; a step of unknown length moves by ever smaller amounts."""

    def __init__(self, progress: Progress, metric: str) -> None:
        self._progress, self._metric = progress, metric
        self._from, self._to, self._doing, self._begun, self._heard = 0.0, 1.0, "", 0.0, 0

    def begin(self, share: float, until: float, doing: str) -> None:
        """Begin a step that takes the progress from one share to another."""
        self._from, self._to, self._doing = share, until, doing
        self._begun, self._heard = time.monotonic(), 0
        self._progress(share, doing)

    def hear(self, members: frozenset[str], value: float) -> None:
        """Tell of a set that was fitted, and how long one takes."""
        self._heard += 1
        each = (time.monotonic() - self._begun) / self._heard
        words = f"{self._doing}: re-fit {self._heard} ({each:.1f} s each), {counted(len(members), 'member')}"
        self._tell(1 - 0.9**self._heard, f"{words}, {self._metric} {value:.3f}")

    def part(self, done: int, of: int) -> None:
        """Tell how many of the step's known number of parts are done, and how long the others will take."""
        left = (time.monotonic() - self._begun) / done * (of - done)
        self._tell(done / of, f"{self._doing}: {done} of {of}, about {left:.0f} s left")

    def _tell(self, share: float, doing: str) -> None:
        self._progress(self._from + (self._to - self._from) * share, doing)


def releases(settings: Settings) -> dict[str, str]:
    """Return the releases of a plugged-in metric and selection rule, on which a challenger depends beside its settings.

    Args:
        settings: names the metric and the rule.

    Returns:
        "metric" and "rule" -> release; what is built in is left out.
    """
    found = {
        "metric": release_of(METRICS, settings.primary_metric),
        "rule": release_of(SELECTION_RULES, settings.selection),
    }
    return {name: release for name, release in found.items() if release}


def what_it_would_bring(game: Game, selection: Selection, names: Sequence[str]) -> Iterator[Eviction]:
    """Explain for some evicted models what the metric would be with them, which takes a re-fit each.

    Args:
        game: the values of sets.
        selection: its evictions are read.
        names: the models to explain.

    Yields:
        All evictions in their order, those of `names` with a new reason.
    """
    for out in selection.evicted:
        if out.member not in names:
            yield out
            continue
        change = game.value({*selection.kept, out.member}) - game.value(selection.kept)
        yield replace(
            out,
            reason=f"for information only: a score file answers only for the pairs it holds; as a member it would "
            f"change the metric by {change:+.4f}",
        )


def named(wanted: Sequence[str], candidates: Sequence[str]) -> list[str]:
    """Return the candidates that are named in a list.

    Args:
        wanted: names, or ids "name/version"; an unknown one is ignored.
        candidates: ids.

    Returns:
        The ids that match, in the order of `candidates`.

    Example:
        >>> named(["bert"], ["bert/1", "bert/2", "gcn/1"])
        ['bert/1', 'bert/2']
    """
    return [one for one in candidates if one in wanted or one.rpartition("/")[0] in wanted]


def combination(game: Game, members: Sequence[str]) -> dict[str, Any]:
    """Return how members are combined, as JSON-able facts.

    Args:
        game: has fitted them.
        members: the set.

    Returns:
        "rounds" of boosting, "shares" of the three fits in the linear part, "offsets" of the classes when a
        label is decided, "alone" (the member that answers by itself, or None), "margins" (metric -> how far it is ahead
        of the best member on that metric, out of fold).
    """
    found = game.fitted(members)
    position = found.choice.alone
    return {
        "rounds": found.choice.rounds,
        "shares": list(found.choice.shares),
        "offsets": list(found.choice.offsets),
        "alone": None if position is None else game.order(members)[position],
        "margins": found.margins,
    }


def out_of_fold(game: Game, members: Sequence[str]) -> dict[str, Any]:
    """Return how good a set is on the pairs that the aggregator learns from, as JSON-able facts.

    Args:
        game: has fitted it.
        members: the set.

    Returns:
        "metrics": "all" or a locale -> metric -> value, and "confusion": 4 x 4 counts over all locales, rows true,
        columns predicted; each pair answered by folds that did not see its query.
    """
    counts = game.fitted(members).counts
    return {
        "metrics": {scope: metrics_of(found, game.metric) for scope, found in counts.items()},
        "confusion": counts["all"].tolist(),
    }


def best_alone(
    columns: np.ndarray, labels: np.ndarray, names: Sequence[str], allowed: Collection[str], metric: str
) -> dict[str, Any]:
    """Return the model that is best by itself, as it answers.

    Args:
        columns: float32 (n, k, 4), out-of-sample scores.
        labels: int (n,), index into `LABELS`.
        names: k names.
        allowed: those that might serve alone: within the budget, and with no other that must be kept.
        metric: the primary metric.

    Returns:
        "member" and "value" of the metric; empty when none is allowed.
    """
    values = {
        name: float(metric_of(metric, confusion(labels, columns[:, place].argmax(axis=1))))
        for place, name in enumerate(names)
        if name in allowed
    }
    best = max(values, key=lambda name: values[name], default=None)
    return {} if best is None else {"member": best, "value": values[best]}


def shapley(game: Game, selection: Selection) -> dict[str, float]:
    """Return the exact Shapley value of each member that is kept.

    Args:
        game: the values of sets; missing ones are fitted.
        selection: its kept members are read.

    Returns:
        Name -> value in the metric's unit; empty when more than 64 sets would have to be known.
    """
    size = len(selection.kept)
    if size > MOST_SHAPLEY_MEMBERS or 2**size > SHAPLEY_REFITS:
        return {}
    return game.shapley(selection.kept)


def worth_json(worth: Worth) -> dict[str, Any]:
    """Return a worth as JSON-able facts, members by falling utility."""
    return asdict(worth)
