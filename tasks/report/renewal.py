"""Put the outcome of a re-evaluation into words, for the terminal and for Prefect's UI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from esci_tournament.tasks.report.markdown import escape, grid
from esci_tournament.tasks.report.words import METRIC_NAMES, capitalised, metric_name, number, signed

_SEALED = "The numbers of the test split are sealed: they are told when a challenger may be promoted."


def in_words(facts: Mapping[str, Any]) -> str:
    """Return the facts of a re-evaluation in a few sentences.

    Args:
        facts: JSON-able facts as `esci_tournament.flows.renewal.record` puts them into the ledger: `unchanged`,
            `data_version`, `champion` and, unless nothing has changed, `champion_before`, `champion_after`, `bench`,
            `kept`, `verdict`, `drifted`, and what earlier releases did not record: `sealed`, `challenger`, `trial` and
            `serves`.

    Returns:
        Plain text on one line.
    """
    champion = facts["champion"] or "no champion"
    if facts["unchanged"]:
        return (
            f"Nothing has changed since champion and bench were last evaluated (data version "
            f"{facts['data_version'][:12]}, the same roster, the same settings, no candidate waits): "
            f"nothing was trained, {champion} stays.{_serving(facts)}"
        )
    told = [f"Champion and bench evaluated again on data version {facts['data_version'][:12]}."]
    for metric, name in METRIC_NAMES.items():
        before, after = (_value(facts[side], metric) for side in ("champion_before", "champion_after"))
        if after is not None:
            told.append(f"{capitalised(name)} of {champion}: {number(before)} before, {number(after)} now.")
    if facts.get("sealed"):
        told.append(_SEALED)
        found = [f"{metric_name(metric)} {number(value)}" for metric, value in facts["challenger"].items()]
        told += [f"The challenger out of fold: {', '.join(found)}."] if found else []
    benched = ", ".join(facts["bench"]) or "none"
    told.append(f"Bench: {benched}; kept: {', '.join(facts['kept'])}. Verdict: {facts['verdict'].replace('_', ' ')}.")
    if facts["drifted"]:
        told.append(f"Drifted: {'; '.join(facts['drifted'])}.")
    return " ".join(told) + _serving(facts)


def _serving(facts: Mapping[str, Any]) -> str:
    """Return what a re-evaluation changes for scorers, in a sentence; "" where it was not recorded."""
    if facts.get("trial"):
        return " This was a trial: scorers keep their data, and a challenger that passes waits for a person."
    if "serves" not in facts:
        return ""
    if facts["serves"]:
        return " Scorers use this data; tournament data undo takes it back."
    return " Scorers keep the data that they use; tournament data served tells what waits for a reviewer."


def as_markdown(facts: Mapping[str, Any]) -> str:
    """Return the facts of a re-evaluation as Markdown: sentences, the champion's metrics, drift, who was left out.

    Args:
        facts: As :func:`in_words`, with `excluded` (candidate id -> why it is not on the bench).

    Returns:
        Markdown, with every text escaped.
    """
    parts = [escape(in_words(facts))]
    if facts["unchanged"]:
        return parts[0]
    rows = []
    for metric, name in METRIC_NAMES.items():
        before, after = (_value(facts[side], metric) for side in ("champion_before", "champion_after"))
        gap = None if before is None or after is None else after - before
        rows.append([capitalised(name), number(before), number(after), signed(gap)])
    if not facts.get("sealed"):
        parts.append(grid(["Champion, test split", "before", "now", "difference"], rows, "lrrr"))
    elif facts["challenger"]:
        found = [[capitalised(metric_name(metric)), number(value)] for metric, value in facts["challenger"].items()]
        parts.append(grid(["Challenger", "out of fold"], found, "lr"))
    if facts["drifted"]:
        parts.append("Drift:\n\n" + "\n".join(f"- {escape(words)}" for words in facts["drifted"]))
    if facts["excluded"]:
        away = "\n".join(f"- {escape(name)}: {escape(reason)}" for name, reason in facts["excluded"].items())
        parts.append(f"Not on the bench:\n\n{away}")
    return "\n\n".join(parts)


def _value(side: Mapping[str, Any], metric: str) -> float | None:
    return side.get("metrics", {}).get("all", {}).get(metric)
