"""Put together the summary of a tournament from what its stages found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.specs import CandidateSpec
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.ensemble.calibrate import Calibration
from esci_tournament.tasks.ensemble.counts import METRICS
from esci_tournament.tasks.ensemble.trial import Trial, by_class
from esci_tournament.tasks.ensemble.verdict import MetricRow
from esci_tournament.tasks.families.loading import candidate_class
from esci_tournament.tasks.report.summary import Metrics, ModelSummary

ENTRIES = {"member": "incumbent", "newcomer": "candidate", "bench": "bench"}


def describe_data(dataset: Dataset, roles: pd.DataFrame) -> dict[str, Any]:
    """Return the facts of a data set, as the summary has them.

    Args:
        dataset: The data set.
        roles: Frame with `role` of each pair, as :func:`esci_tournament.tasks.data.split.assign_roles` returns it.

    Returns:
        `version`, `source`, the numbers of `pairs`, `queries`, `products` and `events`, `by_split_locale` (one dict per
        split and locale, with pairs, queries and pairs of each label) and `roles` (role -> pairs).
    """
    pairs, rows = dataset.pairs, []
    # A test split that was drawn is told as one; pairs in quarantine stay in the split that the data gives them
    sides = pairs["split"].astype(str).where(roles["role"] != "test", "test")
    for (split, locale), part in pairs.groupby([sides, "locale"], observed=True):
        mix = np.bincount(part["label"], minlength=len(LABELS))
        counts = {"pairs": len(part), "queries": int(part["query_key"].nunique())}
        rows.append({"split": split, "locale": locale, **counts, **dict(zip(LABELS, mix.tolist(), strict=True))})
    by_role = roles["role"].value_counts()
    return {
        "version": dataset.version,
        "source": str(dataset.source),
        "pairs": len(pairs),
        "queries": int(pairs["query_key"].nunique()),
        "products": len(dataset.products),
        "events": 0 if dataset.events is None else len(dataset.events),
        "by_split_locale": rows,
        "roles": {str(role): int(count) for role, count in by_role.items() if count},
    }


def describe_spec(spec: CandidateSpec) -> str:
    """Return what a model is, in a few words."""
    return candidate_class(spec.family).describe(spec)


def summarise_models(
    entrants: Sequence[tuple[str, CandidateSpec, str]],
    failed: Mapping[str, str],
    challenge: Mapping[str, Any],
    trial: Trial,
    blend: Mapping[str, Mapping[str, Mapping[str, float]]],
    costs: Mapping[str, Mapping[str, Any]],
    fit_seconds: Mapping[str, float],
    calibrations: Mapping[str, Calibration] | None = None,
    covers: Mapping[str, float] | None = None,
    curves: Mapping[str, Mapping[str, Sequence[float | None]]] | None = None,
) -> list[ModelSummary]:
    """Return every model that took part, members first, best utility first.

    Args:
        entrants: Candidate id, spec, role (member, newcomer, bench) of each.
        failed: Candidate id -> reason.
        challenge: Facts of `esci_tournament.tasks.ensemble.challenge.Challenge.result`.
        trial: The trial on the test split.
        blend: Candidate id -> "all" or a locale -> metrics alone on the pairs the aggregator learns from.
        costs: Candidate id -> JSON of its measured cost.
        fit_seconds: Candidate id -> seconds of its training.
        calibrations: Candidate id -> its calibration.
        covers: Candidate id -> share of the pairs that it answered for, in [0, 1].
        curves: Candidate id -> its learning curves, as :class:`~esci_tournament.tasks.report.summary.ModelSummary` has
            them.

    Returns:
        One summary per entrant: members, then evicted ones, then failed ones.
    """
    worth = {one["member"]: one for one in challenge["worth"]["members"]}
    worth_all = {one["member"]: one["utility"] for one in challenge["worth_all"]["members"]}
    evicted = {one["member"]: one["reason"] for one in challenge["selection"]["evicted"]}
    rows = []
    for candidate, spec, role in entrants:
        name, _, version = candidate.rpartition("/")
        status = "failed" if candidate in failed else "member" if candidate in worth else "evicted"
        alone = {scope: metrics(values) for scope, values in trial.alone.get(candidate, {}).items()}
        learnt = {scope: metrics(values) for scope, values in blend.get(candidate, {}).items()}
        mine = worth.get(candidate, {})
        rows.append(
            ModelSummary(
                name=name,
                version=version,
                family=spec.family,
                detail=describe_spec(spec),
                entry=ENTRIES[role],
                status=status,
                reason=failed.get(candidate) or evicted.get(candidate, ""),
                test=alone.pop("all", None),
                test_by_locale=alone,
                blend=learnt.pop("all", None),
                blend_by_locale=learnt,
                cost=dict(costs.get(candidate, {})),
                utility=mine.get("utility"),
                utility_low=mine.get("low"),
                utility_high=mine.get("high"),
                utility_all=worth_all.get(candidate),
                drop_one=challenge["drop_one"].get(candidate),
                drop_one_error=challenge.get("drop_one_errors", {}).get(candidate),
                above_noise=mine.get("above_noise"),
                fit_seconds=fit_seconds.get(candidate),
                cover=(covers or {}).get(candidate),
                curves=_finite((curves or {}).get(candidate, {})),
                **_calibration((calibrations or {}).get(candidate)),
            )
        )
    order = {"member": 0, "evicted": 1, "failed": 2}
    return sorted(rows, key=lambda row: (order[row.status], -(row.utility or row.utility_all or 0.0), row.name))


def refused_models(refused: Mapping[str, str]) -> list[ModelSummary]:
    """Return the summaries of the models that were refused entry.

    Args:
        refused: Candidate id -> reason.

    Returns:
        One summary per model, by candidate id, with status "failed" and family "unknown".
    """
    rows = []
    for candidate, reason in sorted(refused.items()):
        name, _, version = candidate.rpartition("/")
        rows.append(ModelSummary(name, version, "unknown", "refused, never trained", "candidate", "failed", reason))
    return rows


def _finite(curves: Mapping[str, Sequence[float | None]]) -> dict[str, list[float | None]]:
    """Return curves without what JSON cannot hold: a plug-in's model may have measured a NaN."""
    return {
        name: [None if value is None or not math.isfinite(value) else float(value) for value in values]
        for name, values in curves.items()
    }


def _calibration(found: Calibration | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        "temperature": found.temperature,
        "calibration_error": found.error,
        "calibration_error_after": found.error_after,
        "reliability": found.reliability,
    }


def metrics(values: Mapping[str, float]) -> Metrics:
    """Return the metrics of a mapping.

    Args:
        values: Metric -> value in [0, 1]: accuracy, macro_f1 and weighted_f1, and the declared metric if it is another.

    Returns:
        The metrics.

    Example:
        >>> metrics({"accuracy": 0.6, "macro_f1": 0.5, "weighted_f1": 0.55, "kappa": 0.4}).others
        {'kappa': 0.4}
    """
    others = {name: float(value) for name, value in values.items() if name not in METRICS}
    return Metrics(**{name: values[name] for name in METRICS}, others=others)


def sides(trial: Trial) -> dict[str, Any]:
    """Return the metrics of challenger and champion, as fields of the summary.

    Args:
        trial: The trial on the test split.

    Returns:
        The fields `ensemble`, `ensemble_by_locale`, `ensemble_intervals`, `champion` (None when there was none),
        `confusion`, `by_class` and `verdict` of a :class:`~esci_tournament.tasks.report.summary.Summary`.
    """
    rows = {(row.scope, row.metric): row for row in trial.verdict.metrics}
    names = [row.metric for row in trial.verdict.metrics if row.scope == "all"]
    overall = {name: rows["all", name] for name in names}
    scopes = [row.scope for row in trial.verdict.metrics if row.metric == METRICS[0]]
    locales = [scope for scope in scopes if scope != "all" and not scope.startswith("class ")]

    def side(of: Mapping[str, MetricRow], name: str) -> Metrics:
        return metrics({metric: getattr(row, name) for metric, row in of.items()})

    known = overall[METRICS[0]].champion is not None
    return {
        "ensemble": side(overall, "challenger"),
        "ensemble_by_locale": {
            locale: side({name: rows[locale, name] for name in names}, "challenger") for locale in locales
        },
        "ensemble_intervals": {name: [row.challenger_low, row.challenger_high] for name, row in overall.items()},
        "champion": side(overall, "champion") if known else None,
        "confusion": trial.confusion,
        "by_class": by_class(trial.confusion),
        "verdict": trial.verdict.to_dict(),
    }


def out_of_fold(challenge: Mapping[str, Any]) -> dict[str, Any]:
    """Return how good the challenger is out of fold, as fields of the summary.

    Args:
        challenge: Facts of `esci_tournament.tasks.ensemble.challenge.Challenge.result`.

    Returns:
        The fields `out_of_fold`, `out_of_fold_by_locale`, `out_of_fold_confusion` and `out_of_fold_by_class` of a
        :class:`~esci_tournament.tasks.report.summary.Summary`; {} for a challenger that an earlier release has built.
    """
    found = challenge.get("out_of_fold")
    if not found:
        return {}
    scopes = {scope: metrics(values) for scope, values in found["metrics"].items()}
    return {
        "out_of_fold": scopes.pop("all"),
        "out_of_fold_by_locale": scopes,
        "out_of_fold_confusion": found["confusion"],
        "out_of_fold_by_class": by_class(found["confusion"]),
    }


def summarise_selection(challenge: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return rule, budget, use, path, regret and budget curves of the selection.

    Args:
        challenge: Facts of `esci_tournament.tasks.ensemble.challenge.Challenge.result`.
        settings: The settings in force; `budget_memory_mib` (MiB) and `budget_latency_ms` (ms) are read.

    Returns:
        The field `selection` of a :class:`~esci_tournament.tasks.report.summary.Summary`, and `combination` and
        `best_alone` of the challenge.
    """
    chosen = challenge["selection"]
    path = []
    for number, step in enumerate(chosen["path"]):
        path.append(
            {
                "step": number,
                "action": step["action"],
                "member": ", ".join(step["members"]),
                "metric": step["value"],
                "sentence": step["action"],
            }
        )
    return {
        "rule": chosen["rule"],
        "budget": {"memory_mib": settings["budget_memory_mib"], "latency_ms": settings["budget_latency_ms"]},
        "used": {"memory_mib": chosen["used"]["memory_mib"], "latency_ms": chosen["used"]["milliseconds"]},
        "path": path,
        "regret": chosen["regret"],
        "refits": chosen["refits"],
        "value": chosen.get("value"),
        "value_error": challenge.get("value_error"),
        "combination": challenge.get("combination", {}),
        "best_alone": challenge.get("best_alone", {}),
        "curve_memory": [[point["limit"], point["value"]] for point in chosen["memory_curve"]],
        "curve_latency": [[point["limit"], point["value"]] for point in chosen["latency_curve"]],
    }


def worth_tables(challenge: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the members are worth and how alike they err, as fields of the summary.

    Args:
        challenge: Facts of `esci_tournament.tasks.ensemble.challenge.Challenge.result`.

    Returns:
        The fields `utility_by_class`, `utility_by_locale`, `near_copies`, `likeness`, `shapley`, `interchangeable`,
        `mixed_up`, `noise`, `tied`, `contributions` and `shap` of a
        :class:`~esci_tournament.tasks.report.summary.Summary`.
    """
    worth = challenge["worth"]
    alike = ("first", "second", "correlation", "agreement", "sentence")
    noise = {"share": worth.get("noise"), "high": worth.get("noise_high"), "refits": worth.get("refits")}
    return {
        "utility_by_class": {one["member"]: one["by_class"] for one in worth["members"]},
        "utility_by_locale": {one["member"]: one["by_locale"] for one in worth["members"]},
        "near_copies": [pair["sentence"] for pair in challenge["likeness"] if pair["near_copy"]],
        "likeness": [{name: pair[name] for name in alike} for pair in challenge["likeness"]],
        "shapley": challenge["shapley"],
        "interchangeable": [pair["sentence"] for pair in challenge.get("interchangeable", ())],
        "mixed_up": list(challenge.get("mixed_up", ())),
        "noise": noise if noise["refits"] else {},
        "tied": [list(pair) for pair in worth["tied"]] if noise["refits"] else [],
        "contributions": challenge.get("contributions", {}),
        "shap": challenge.get("shap", {}),
    }
