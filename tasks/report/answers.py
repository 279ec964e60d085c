"""The report's first screen: what changes, by how much, whether it is safe, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from esci_tournament.registry.checks import BUDGET, CHEAPER, GAIN, SINGLE
from esci_tournament.tasks.report import selected, shown, words
from esci_tournament.tasks.report.summary import ModelSummary, Summary


@dataclass(frozen=True)
class Answer:
    """One question of a reviewer, answered.

    Attributes:
        question: In a few words.
        lines: The answer, a sentence or two each; commands stand between backticks.
    """

    question: str
    lines: tuple[str, ...]


def answers(summary: Summary) -> list[Answer]:
    """Return the four answers that a reviewer looks for first, in the order in which they are asked.

    Args:
        summary: The summary of a tournament.

    Returns:
        What changes, by how much, whether it is safe, and what to do.
    """
    found = (
        ("What changes", _changes(summary)),
        ("By how much", _gains(summary)),
        ("Is it safe", _safety(summary)),
        ("What to do", _to_do(summary)),
    )
    return [Answer(question, tuple(line for line in lines if line)) for question, lines in found]


def _changes(summary: Summary) -> list[str]:
    inside = words.members(summary)
    come = _names([model for model in inside if model.entry != "incumbent"])
    stay = _names([model for model in inside if model.entry == "incumbent"])
    gone = _names([one for one in summary.models if one.entry == "incumbent" and one.status != "member"])
    tried = [model for model in summary.models if model.entry != "incumbent"]
    lines = []
    if not inside:
        lines.append("Nothing: the ensemble has no member.")
    elif words.is_first(summary):
        lines.append(f"A first ensemble of {words.enumerate_words(_names(inside))}.")
    elif summary.promoted or _is_open(summary):
        parts = [f"{title}: {words.enumerate_words(found)}" for title, found in (("in", come), ("out", gone)) if found]
        text = "; ".join(parts) or "the members are the same, combined anew"
        stays = f"; {'stay' if len(stay) > 1 else 'stays'}: {words.enumerate_words(stay)}" if stay and parts else ""
        lines.append(f"{'' if summary.promoted else 'If it is promoted, '}{text}{stays}.")
    else:
        would = [
            f"{verb} {words.enumerate_words(found)}"
            for verb, found in (("brought in", come), ("taken out", gone))
            if found
        ]
        lines.append("Nothing." + (f" The challenger would have {' and '.join(would)}." if would else ""))
    left = _names([model for model in tried if model.status == "evicted"])
    failed = _names(words.others(summary, "failed"))
    lines.append(f"Not taken in: {words.enumerate_words(left)}." if left else "")
    lines.append(f"Failed: {words.enumerate_words(failed)}." if failed else "")
    return [words.capitalised(line) for line in lines]


def _gains(summary: Summary) -> list[str]:
    metric = words.primary_metric(summary)
    name = words.metric_name(metric)
    after = words.number(shown.value(shown.ensemble(summary), metric))
    if summary.sealed:
        measured = "" if after == words.ABSENT else f" Out of fold the challenger has {name} {after}."
        return [f"Sealed: numbers of the test split are told only of what may serve.{measured}"]
    before, row = shown.value(summary.champion, metric), _row(summary, metric)
    if before is None:
        spread = words.interval(*(summary.ensemble_intervals.get(metric) or (None, None)))
        tail = f" (95 % interval {spread})" if spread else ""
        compared = "; there is no champion to compare with" if words.is_first(summary) else ""
        own = f"{words.capitalised(name)} {after} on the test split{tail}{compared}."
        return [own if after != words.ABSENT else "Not measured.", words.comparison(summary)]
    own_value = shown.value(summary.ensemble, metric)
    difference = words.signed(None if own_value is None else own_value - before)
    low, high = row.get("difference_low"), row.get("difference_high")
    known = low is not None and high is not None
    spread = f" (95 % interval {words.signed(low)} to {words.signed(high)})" if known else ""
    lines = [f"{words.capitalised(name)} {words.number(before)} → {after} on the test split: {difference}{spread}."]
    if gains := selected.gain_rows(summary):
        title, gain, interval = gains[-1]
        lines.append(f"{words.capitalised(selected.gained_metric(summary))}, {title}: {gain} ({interval}).")
    return [*lines, words.comparison(summary)]


def _safety(summary: Summary) -> list[str]:
    checks = list(summary.verdict.get("checks") or ())
    guards = [one for one in checks if is_guardrail(str(one["name"]))]
    lines = []
    if summary.sealed:
        stays = "The champion serves as before. " if summary.champion_version else ""
        lines.append(f"{stays}Guardrails on the test split are sealed.")
    elif guards:
        lines.append(_counted(summary, guards))
    elif words.is_first(summary):
        lines.append("There are no guardrails without a champion to compare with.")
    lines += [words.nobody_beats(summary), f"Budget: {_budget(summary)}."]
    if missed := [one for one in summary.checks if not one["passed"]]:
        names = words.enumerate_words([words.clean(one["name"]) for one in missed])
        lines.append(f"Data: {len(missed)} of {len(summary.checks)} expectations not met: {names}.")
    if any(row["drifted"] for row in summary.drift.get("rows", ())):
        lines.append(words.clean(summary.drift["sentence"]))
    return lines


def _counted(summary: Summary, guards: Sequence[dict[str, Any]]) -> str:
    """Return how many guardrails passed, and which are hurt or could not be judged; neither counts as passed."""
    hurt = [words.in_words(summary, one["name"]) for one in guards if not one["passed"]]
    unknown = [words.in_words(summary, one["name"]) for one in guards if one["passed"] and is_unjudged(one)]
    passed = len(guards) - len(hurt) - len(unknown)
    parts = [f"{passed} of {len(guards)} guardrails passed"]
    parts += [f"hurt: {words.enumerate_words(hurt)}"] if hurt else []
    parts += [f"too little data to judge {words.enumerate_words(unknown)}"] if unknown else []
    return f"{'; '.join(parts)}."


def _budget(summary: Summary) -> str:
    return "; ".join(f"{row['name'].lower()} {row['sentence']}" for row in words.budget_rows(summary))


def _to_do(summary: Summary) -> list[str]:
    if summary.promoted:
        back = "" if words.is_first(summary) else " To go back: `tournament champion rollback --reason WHY`."
        return [f"Nothing: it serves.{back}"]
    if summary.awaits_review:
        if summary.review is None:
            return ["Decide: `tournament review list` names the review."]
        number = summary.review
        return [
            f"Decide: `tournament review show {number}`, then "
            f"`tournament review approve {number} --reason WHY` or `tournament review refuse {number} --reason WHY`."
        ]
    if words.outcome(summary) == "promote" and not summary.decision:
        return ["Decide: `tournament review list` names what waits."]
    if words.outcome(summary) == "not-evaluable" and "newcomers" not in summary.verdict.get("missing", ()):
        return ["See below why it could not be judged; once that is corrected, run the tournament again."]
    return ["Nothing: the champion serves on." if summary.champion_version else "Nothing."]


def is_guardrail(check: str) -> bool:
    """Return whether a check of a verdict, by its name, is a guardrail: a loss in one place that is not tolerated."""
    return not check.startswith((GAIN, CHEAPER)) and check not in (BUDGET, SINGLE)


def is_unjudged(check: dict[str, Any]) -> bool:
    """Return whether there was too little data to judge a check; verdicts of earlier releases do not say."""
    return check.get("judged") is False


def _is_open(summary: Summary) -> bool:
    return summary.awaits_review or (words.outcome(summary) == "promote" and not summary.decision)


def _row(summary: Summary, metric: str) -> dict[str, Any]:
    rows = summary.verdict.get("metrics") or ()
    return next((row for row in rows if (row["scope"], row["metric"]) == ("all", metric)), {})


def _names(models: Sequence[ModelSummary]) -> list[str]:
    return [words.display_name(model) for model in models]
