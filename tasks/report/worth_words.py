"""What members are worth, in text: shares with intervals, losses with standard errors, and a member of noise beside."""

from __future__ import annotations

from esci_tournament.tasks.report import words
from esci_tournament.tasks.report.summary import ModelSummary, Summary

NOISE = "no more than noise"


def spread(model: ModelSummary) -> str:
    """Return the interval of a member's utility in per cent, or "" when there is none.

    Example:
        >>> spread(ModelSummary("a", "1", "f", "", "bench", "member", utility_low=0.1, utility_high=0.25))
        '10.0 to 25.0'
    """
    low, high = model.utility_low, model.utility_high
    return "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def utility(model: ModelSummary) -> str:
    """Return a member's utility with its interval, and that it is no more than noise where it is not.

    Example:
        >>> utility(ModelSummary("a", "1", "f", "", "bench", "member", utility=0.02, above_noise=False))
        '2.0 % (no more than noise)'
    """
    told = [text for text in (spread(model), NOISE if model.above_noise is False else "") if text]
    return words.share(model.utility) + (f" ({', '.join(told)})" if told else "")


def drop_one(model: ModelSummary) -> str:
    """Return what the metric loses without a member, with its standard error.

    Example:
        >>> drop_one(ModelSummary("a", "1", "f", "", "bench", "member", drop_one=0.012, drop_one_error=0.004))
        '+0.012 ± 0.004'
    """
    if model.drop_one is None or model.drop_one_error is None:
        return words.signed(model.drop_one)
    return f"{words.signed(model.drop_one)} ± {words.number(model.drop_one_error)}"


def noise(summary: Summary) -> str:
    """Return in a sentence what a member of noise is credited with, and which members are worth no more; "" if unknown.

    Args:
        summary: The summary of a tournament.
    """
    found = summary.noise
    if not found:
        return ""
    no_more = [words.display_name(model) for model in words.members(summary) if model.above_noise is False]
    rest = f"{', '.join(no_more)}: {NOISE}." if no_more else "Every member is worth more."
    return (
        f"A member of noise beside them would get {words.share(found['share'])} on average, and more than "
        f"{words.share(found['high'])} in one of twenty re-fits. {rest}"
    )


def ranking(summary: Summary) -> str:
    """Return in a sentence which neighbours in the ranking cannot be told apart, and what noise gets; "" if unknown.

    Args:
        summary: The summary of a tournament.
    """
    pairs = "; ".join(f"{words.clean(better)} and {words.clean(worse)}" for better, worse in summary.tied)
    told = f"Re-fits do not tell apart in the ranking: {pairs}." if pairs else ""
    return " ".join(text for text in (noise(summary), told) if text)


def checked(summary: Summary) -> str:
    """Return in a sentence how the SHAP values agree with the package's own; "" if they were not compared.

    Args:
        summary: The summary of a tournament.
    """
    found = summary.shap
    if not found:
        return ""
    return (
        f"The SHAP values of {words.count(found['rows'])} pairs were compared with those of shap "
        f"{words.clean(str(found['version']))}: the largest difference is {found['gap']:.0e} of the largest value."
    )


def value(summary: Summary) -> str:
    """Return in a sentence what the members reach on validation, with its standard error; "" if it is not known.

    Args:
        summary: The summary of a tournament.
    """
    reached, error = summary.selection.get("value"), summary.selection.get("value_error")
    if reached is None or error is None:
        return ""
    metric = words.capitalised(words.metric_name(words.primary_metric(summary)))
    return f"{metric} of the members on validation is {words.number(reached)} ± {words.number(error)}."
