"""Seal a summary: whatever a tournament publishes is made from what this module returns.

The rule and its reason are those of :mod:`esci_tournament.registry.sealing`, which does the same to a verdict. Page,
figures, tables, messages, MLflow and `--json` show what the summary has, so that none of them decides what is told.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from esci_tournament.registry import sealing
from esci_tournament.tasks.report.summary import ModelSummary, Summary


def published(summary: Summary, may_serve: bool) -> Summary:
    """Return a summary as it may be told.

    Args:
        summary: With all that was measured.
        may_serve: Whether the challenger may be promoted: by its verdict, or as the first champion.

    Returns:
        For a challenger that may serve: all but the test numbers of models that are no members. Else a sealed summary,
        without any number of the test split.
    """
    best_alone = (summary.selection.get("best_alone") or {}).get("member")
    members = [f"{model.name}/{model.version}" for model in summary.models if model.status == "member"]
    verdict = sealing.published(summary.verdict, may_serve, members, best_alone)
    if may_serve:
        models = [model if model.status == "member" else _untested(model) for model in summary.models]
        return replace(summary, verdict=verdict, models=models)
    return replace(
        summary,
        sealed=True,
        verdict=verdict,
        models=[_untested(model) for model in summary.models],
        ensemble=None,
        ensemble_by_locale={},
        ensemble_intervals={},
        champion=None,
        confusion=[],
        by_class={},
        ensemble_calibration_error=None,
        ensemble_reliability=[],
        early_exit={},
    )


def read(path: Path, registered: bool = False) -> Summary:
    """Return a stored summary as it may be told.

    Args:
        path: A file that :meth:`Summary.to_json` made, perhaps in an earlier release, which sealed nothing.
        registered: Whether its challenger is known to be registered; else the summary says so.

    Returns:
        The summary; what an earlier release wrote goes through :func:`published` now.
    """
    text = path.read_text(encoding="utf-8")
    summary = Summary.from_json(text)
    if "sealed" in json.loads(text):
        return summary
    inaugural = (registered or bool(summary.ensemble_version)) and "champion" in summary.verdict.get("missing", ())
    return published(summary, inaugural or summary.verdict.get("outcome") == "promote")


def _untested(model: ModelSummary) -> ModelSummary:
    """Return a model without its numbers on the test split; its temperature was fitted on other pairs."""
    return replace(
        model, test=None, test_by_locale={}, calibration_error=None, calibration_error_after=None, reliability=[]
    )
