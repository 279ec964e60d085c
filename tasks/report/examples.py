"""Pick real pairs for the report: those that change most, and the worst errors of each model.

They are drawn from the pairs that the aggregator learns from, never from test pairs: whoever sees the labels of test
pairs can tune for them (see :mod:`esci_tournament.registry.sealing`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from esci_tournament.registry.labels import LABELS

QUERY_LENGTH, TITLE_LENGTH = 120, 160  # characters that are kept of a text
ALIKE = 2  # examples at most of one kind: of a class in a locale, or of a query

Example = dict[str, Any]


@dataclass(frozen=True)
class Answered:
    """What one ensemble answers for some pairs.

    Attributes:
        labels: int (n,), index into `LABELS`.
        probabilities: float (n, 4), order E, S, C, I.
        version: Its version, None for one that has none yet.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    version: int | None = None


def examples(
    pairs: pd.DataFrame,
    texts: Callable[[np.ndarray], tuple[list[str], list[str]]],
    alone: Mapping[str, np.ndarray],
    challenger: Answered,
    champion: Answered | None,
    most: int,
) -> dict[str, Any]:
    """Return the pairs whose label changes most, and the most confident errors of each model.

    Args:
        pairs: Columns `label` (int, index into `LABELS`), `locale` and `query_key`, n rows; no test pair may be among
            them.
        texts: Returns queries and titles of rows, given by position; asked for the rows that are shown alone.
        alone: Candidate id -> probabilities of the model alone, float (n, 4), out of sample.
        challenger: What the challenger answers.
        champion: What the champion answers, None when there is none or it cannot answer.
        most: Examples in a list at most; 0 for none at all.

    Returns:
        JSON-able: `pairs` (n), `changed` (None without a champion, else `against`, the champion's version, `count`,
        `better` and `worse`: pairs whose label differs, and those of them that only the challenger or only the champion
        has right; and `shown`) and
        `errors` (candidate id -> `count` and `shown`). An example has `query`, `title`, `locale`, `label` (the true
        one) and, in `changed`, `before`, `after`, and `moved` (total variation, in [0, 1]); in `errors`, `given` and
        `probability`. Labels are letters. {} for no examples.

    Example:
        >>> pairs = pd.DataFrame({"label": [0, 1], "locale": ["us", "us"], "query_key": [7, 8]})
        >>> sure = np.array([[0.9, 0.1, 0.0, 0.0], [0.8, 0.2, 0.0, 0.0]])
        >>> found = examples(
        ...     pairs, lambda rows: (["q"] * len(rows), ["t"] * len(rows)), {"a/1": sure}, Answered(np.zeros(2), sure),
        ...     None, 5,
        ... )
        >>> found["errors"]["a/1"]["shown"]
        [{'query': 'q', 'title': 't', 'locale': 'us', 'label': 'S', 'given': 'E', 'probability': 0.8}]
    """
    if not most or not len(pairs):
        return {}
    wrong = {name: _errors(pairs, given, most) for name, given in alone.items()}
    differs = moved = np.zeros(0, np.int64)
    if champion is not None:
        moved = np.abs(challenger.probabilities - champion.probabilities).sum(axis=1) / 2
        differs = np.flatnonzero(challenger.labels != champion.labels)
        differs = differs[np.argsort(-moved[differs], kind="stable")]
    turned = _first(differs, pairs["query_key"].to_numpy(), most)
    told = _told(pairs, texts, np.concatenate([turned, *(rows for _, rows in wrong.values())]))
    found: dict[str, Any] = {"pairs": len(pairs), "changed": None, "errors": {}}
    for name, (count, rows) in wrong.items():
        given = alone[name].argmax(axis=1)
        sure = alone[name].max(axis=1)
        shown = [told[row] | {"given": LABELS[given[row]], "probability": _share(sure[row])} for row in rows.tolist()]
        found["errors"][name] = {"count": count, "shown": shown}
    if champion is not None:
        before, after = (side.labels.astype(np.int64) for side in (champion, challenger))
        truth = pairs["label"].to_numpy()[differs]
        shown = [
            told[row] | {"before": LABELS[before[row]], "after": LABELS[after[row]], "moved": _share(moved[row])}
            for row in turned.tolist()
        ]
        right = {"better": int((after[differs] == truth).sum()), "worse": int((before[differs] == truth).sum())}
        found["changed"] = {"against": champion.version, "count": len(differs), **right, "shown": shown}
    return found


def _share(value: float) -> float:
    return round(float(value), 3)


def shortened(text: object, most: int) -> str:
    """Return text on one line, cut with an ellipsis when it is longer than `most` characters.

    Example:
        >>> shortened("red   lamp", 120), shortened("a red lamp", 6)
        ('red lamp', 'a red…')
    """
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def _errors(pairs: pd.DataFrame, probabilities: np.ndarray, most: int) -> tuple[int, np.ndarray]:
    """Return how many labels are wrong, and the positions of the most confident ones, spread over class and locale."""
    labels, given = pairs["label"].to_numpy(), probabilities.argmax(axis=1)
    wrong = np.flatnonzero(given != labels)
    order = wrong[np.argsort(-probabilities[wrong, given[wrong]], kind="stable")]
    locales, kinds = np.unique(pairs["locale"].astype(str).to_numpy(), return_inverse=True)
    return len(wrong), _first(order, labels.astype(np.int64) * len(locales) + kinds, most)


def _first(order: np.ndarray, kinds: np.ndarray, most: int) -> np.ndarray:
    """Return the first of an order, few of each kind, as int64."""
    return np.fromiter(_few(order, kinds, most), np.int64)


def _few(order: np.ndarray, kinds: np.ndarray, most: int) -> Iterator[int]:
    seen: Counter[Hashable] = Counter()
    for row in order.tolist():
        if seen.total() >= most:
            return
        if seen[kinds[row]] < ALIKE:
            seen[kinds[row]] += 1
            yield row


def _told(
    pairs: pd.DataFrame, texts: Callable[[np.ndarray], tuple[list[str], list[str]]], rows: np.ndarray
) -> dict[int, Example]:
    """Return position -> what is told of a pair whoever answers for it."""
    wanted = np.unique(rows)
    queries, titles = texts(wanted)
    labels, locales = pairs["label"].to_numpy()[wanted], pairs["locale"].astype(str).to_numpy()[wanted]
    return {
        row: {
            "query": shortened(query, QUERY_LENGTH),
            "title": shortened(title, TITLE_LENGTH),
            "locale": str(locale),
            "label": LABELS[label],
        }
        for row, query, title, label, locale in zip(wanted.tolist(), queries, titles, labels, locales, strict=True)
    }
