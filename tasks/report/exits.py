"""Report early exit: what it saves, what it may change, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from esci_tournament.tasks.report.summary import Summary
from esci_tournament.tasks.report.words import ABSENT, capitalised, clean, count, metric_name, number, share


def sentence(summary: Summary) -> str:
    """Return what early exit saves and at what risk, or why it is off; "" when nothing is known of it."""
    rule = summary.early_exit
    if not rule:
        return ""
    level = rule["level"]
    if not _on(level):
        return f"Early exit is off: {clean(rule['reason'])}."
    return (
        f"Early exit saves {share(level['calls_saved'])} of the members' calls and "
        f"{share(level['milliseconds_saved'])} of their time. With {100 * rule['confidence']:.0f} % confidence it "
        f"changes at most {small(level['bound'])} of the labels (allowed: {small(level['risk'])}, seen: "
        f"{small(level['disagreement'])}). It loses {number(level['metric_lost'], 4)} {metric_name(rule['metric'])} on "
        f"{count(rule['pairs'])} pairs of {count(rule['queries'])} queries."
    )


def heads(summary: Summary) -> list[str]:
    """Return the headings of :func:`rows`, one per column."""
    lost = f"{capitalised(metric_name(summary.early_exit.get('metric', 'metric')))} lost"
    return ["Labels that may change", "Bound", "Seen", "Calls saved", "Time saved", lost]


def rows(summary: Summary) -> list[list[str]]:
    """Return the table of the risks that early exit was calibrated at.

    Args:
        summary: The summary of a tournament; its `early_exit` is read.

    Returns:
        One row per risk, in the order of `levels`: labels that may change, bound ("off" where no pair leaves), seen,
        calls saved, time saved and metric lost, each as text; [] without early exit.
    """
    return [
        [
            small(level["risk"]),
            *(
                (
                    small(level["bound"]),
                    small(level["disagreement"]),
                    share(level["calls_saved"]),
                    share(level["milliseconds_saved"]),
                    number(level["metric_lost"], 4),
                )
                if _on(level)
                else ("off", *[ABSENT] * 4)
            ),
        ]
        for level in summary.early_exit.get("levels", ())
    ]


def small(value: float) -> str:
    """Return a share near 0 in per cent with two decimals.

    Example:
        >>> small(0.0123)
        '1.23 %'
    """
    return f"{100 * value:.2f} %"


def _on(level: Mapping[str, Any]) -> bool:
    return any(threshold is not None for threshold in level["thresholds"])
