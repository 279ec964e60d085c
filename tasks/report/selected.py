"""The gain of a challenger that won, as measured and given that it won."""

from __future__ import annotations

from esci_tournament.registry.extensions import LOG_LOSS
from esci_tournament.tasks.report import words
from esci_tournament.tasks.report.markdown import escape, grid
from esci_tournament.tasks.report.summary import Summary


def gain_rows(summary: Summary) -> list[tuple[str, str, str]]:
    """Return the gain that won, once as measured and once given that it won.

    Args:
        summary: Of the tournament.

    Returns:
        Two rows of what it is, the gain and its 95 % interval; none unless the verdict has both.
    """
    found = summary.verdict.get("conditional")
    if not found:
        return []
    naive = _spread(found["measured_low"], found["measured_high"])
    return [
        ("as measured", words.signed(found["measured"]), naive),
        ("given that it won", words.signed(found["estimate"]), _spread(found["low"], found["high"])),
    ]


def gained_metric(summary: Summary) -> str:
    """Return the name of the metric that the challenger won by, as it is shown: log loss falls where it is gained."""
    name = (summary.verdict.get("conditional") or {}).get("metric") or words.primary_metric(summary)
    return "log loss (how far it falls, in nats)" if name == LOG_LOSS else words.metric_name(name)


def gain_sentence(summary: Summary) -> str:
    """Return why the two gains differ, in sentences; "" where there are none."""
    found = summary.verdict.get("conditional")
    if not found:
        return ""
    return (
        f"A gain above {words.signed(found['cut'])} was needed to win. Challengers get there with luck more often than "
        "without it, so what is measured on a winner is too large on average; the second row allows for that."
    )


def gain_markdown(summary: Summary) -> str:
    """Return both gains as a Markdown table with the sentence below it; "" where there are none."""
    rows = gain_rows(summary)
    if not rows:
        return ""
    head = [f"gain in {gained_metric(summary)}", "estimate", "95 % interval"]
    return f"{grid(head, rows, 'lrr')}\n\n{escape(gain_sentence(summary))}"


def _spread(low: float | None, high: float | None) -> str:
    return words.ABSENT if low is None or high is None else f"{words.signed(low)} to {words.signed(high)}"
