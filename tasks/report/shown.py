"""Which numbers a report shows: those of the test split or, where these are sealed, those out of fold.

Page, figures, tables and frames ask here, so that one of them shows what the others show.
"""

from __future__ import annotations

from esci_tournament.tasks.report.summary import Metrics, ModelSummary, Summary


def place(summary: Summary) -> str:
    """Return where the shown numbers were measured, as the end of a sentence."""
    return "out of fold" if summary.sealed else "on the test split"


def note(summary: Summary) -> str:
    """Return what to say beside numbers that are not of the test split, in a sentence; "" where all are."""
    if summary.sealed:
        return (
            "The numbers of the test split are sealed. Those shown are out of fold, on the pairs that the aggregator "
            "learns from."
        )
    if any(model.test is None and model.blend is not None for model in summary.models):
        return (
            "In parentheses: on the pairs that the aggregator learns from, because the test numbers of models that "
            "are no members are sealed."
        )
    return ""


def ensemble(summary: Summary) -> Metrics | None:
    """Return the challenger's metrics."""
    return summary.out_of_fold if summary.sealed else summary.ensemble


def by_locale(summary: Summary) -> dict[str, Metrics]:
    """Return the challenger's metrics in each locale."""
    return summary.out_of_fold_by_locale if summary.sealed else summary.ensemble_by_locale


def confusion(summary: Summary) -> list[list[float]]:
    """Return the challenger's 4 x 4 counts, rows true, columns predicted."""
    return summary.out_of_fold_confusion if summary.sealed else [list(map(float, row)) for row in summary.confusion]


def by_class(summary: Summary) -> dict[str, dict[str, float | None]]:
    """Return label -> precision, recall, f1 and support of the challenger."""
    return summary.out_of_fold_by_class if summary.sealed else summary.by_class


def alone(summary: Summary, model: ModelSummary, locale: str | None = None) -> Metrics | None:
    """Return a model's metrics on the pairs that :func:`ensemble` is measured on.

    Args:
        summary: The summary of a tournament.
        model: One of its models.
        locale: A locale, None for all.

    Returns:
        The metrics, None where they are sealed or were not measured.
    """
    if summary.sealed:
        return model.blend if locale is None else model.blend_by_locale.get(locale)
    return model.test if locale is None else model.test_by_locale.get(locale)


def aside(summary: Summary, model: ModelSummary) -> Metrics | None:
    """Return a model's metrics on the aggregator's pairs if those of :func:`alone` are sealed for it alone."""
    return None if summary.sealed or model.test is not None else model.blend


def value(metrics: Metrics | None, metric: str) -> float | None:
    """Return one metric, None where it was not measured."""
    return None if metrics is None else metrics.by_name().get(metric)
