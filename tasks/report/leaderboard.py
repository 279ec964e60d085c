"""Return a tournament's models as a pandas frame, for notebooks and scripts."""

from __future__ import annotations

from typing import Any

import pandas as pd

from esci_tournament.tasks.report import shown, words
from esci_tournament.tasks.report.summary import Metrics, Summary

COLUMNS = (
    *("model", "version", "family", "status", "split", *words.METRIC_NAMES),
    *("utility", "utility_low", "utility_high", "drop_one", "drop_one_error"),
    *("memory_mib", "page_ms", "parameters", "fit_seconds", "reason"),
)


def leaderboard(summary: Summary) -> pd.DataFrame:
    """Return the results of a tournament, the ensemble first, then the models in the order of the summary.

    Args:
        summary: The summary of a tournament.

    Returns:
        A frame with one row per model and the columns :data:`COLUMNS`, and the declared metric where it is another:
        text in model, version, family, status, split and reason; float64 in the others, NaN where a figure was not
        measured. Metrics are of the test split where split is "test"; where these are sealed it is "blend": the pairs
        that the aggregator learns from, out of fold for the ensemble. Utilities are SHAP shares of the ensemble's
        total, all in [0, 1]; drop_one is the primary metric lost without the member, and drop_one_error its standard
        error; memory_mib in MiB, page_ms the
        median milliseconds for a page of 40 pairs, fit_seconds in seconds.
    """
    used = summary.selection.get("used") or {}
    ensemble = {
        "model": "ensemble",
        "version": summary.ensemble_version,
        "family": "ensemble",
        "status": "champion" if summary.promoted else "challenger",
        "memory_mib": used.get("memory_mib"),
        "page_ms": used.get("latency_ms"),
        "parameters": words.total([model.cost.get("parameters") for model in words.members(summary)]),
        "fit_seconds": words.total([model.fit_seconds for model in words.members(summary)]),
        "reason": "",
    }
    split = "blend" if summary.sealed else "test"
    rows: list[dict[str, Any]] = [ensemble | {"split": split} | _metrics(shown.ensemble(summary))]
    for model in summary.models:
        aside = shown.aside(summary, model)
        rows.append(
            {
                "model": model.name,
                "version": model.version,
                "family": model.family,
                "status": model.status,
                "utility": model.utility,
                "utility_low": model.utility_low,
                "utility_high": model.utility_high,
                "drop_one": model.drop_one,
                "drop_one_error": model.drop_one_error,
                "memory_mib": model.cost.get("memory_mib"),
                "page_ms": model.cost.get("milliseconds_per_page_p50"),
                "parameters": model.cost.get("parameters"),
                "fit_seconds": model.fit_seconds,
                "reason": model.reason,
            }
            | {"split": "blend" if aside else split}
            | _metrics(aside or shown.alone(summary, model))
        )
    columns = [*COLUMNS, *(name for name in words.metric_names(summary) if name not in COLUMNS)]
    frame = pd.DataFrame(rows, columns=columns)
    texts = ("model", "version", "family", "status", "split", "reason")
    numbers = [name for name in columns if name not in texts]
    return frame.astype(dict.fromkeys(numbers, "float64"))


def _metrics(metrics: Metrics | None) -> dict[str, float]:
    return {name: metrics.value(name) for name in words.METRIC_NAMES} | metrics.others if metrics else {}
