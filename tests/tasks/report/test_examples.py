"""Examples of the report: the pairs that move most, the surest errors, few of a kind, short texts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.report.examples import ALIKE, QUERY_LENGTH, TITLE_LENGTH, Answered, examples

PAIRS = 400
RANDOM = np.random.default_rng(3)
FRAME = pd.DataFrame(
    {
        "label": RANDOM.integers(0, 4, PAIRS).astype(np.int8),
        "locale": pd.Categorical(np.where(np.arange(PAIRS) % 3, "us", "jp")),
        "query_key": (np.arange(PAIRS) // 5).astype(np.uint64),
    },
    index=np.arange(PAIRS) * 7,  # rows of a larger frame
)
asked: list[int] = []


def texts(rows: np.ndarray) -> tuple[list[str], list[str]]:
    asked.extend(rows.tolist())
    return [f"query {row}" for row in rows], [f"title {row}" for row in rows]


def side(seed: int, version: int | None = None) -> Answered:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(4), PAIRS)
    return Answered(probabilities.argmax(axis=1), probabilities, version)


def row_of(example: dict[str, object]) -> int:
    return int(str(example["query"]).removeprefix("query "))


def test_labels_that_change_most_are_those_of_both_sides_with_the_true_label() -> None:
    after, before = side(1), side(2, 4)
    found = examples(FRAME, texts, {}, after, before, 10)["changed"]
    differs, labels = after.labels != before.labels, FRAME["label"].to_numpy()
    assert (found["against"], found["count"]) == (4, differs.sum())
    assert (found["better"], found["worse"]) == (
        (differs & (after.labels == labels)).sum(),
        (differs & (before.labels == labels)).sum(),
    )
    moved = np.abs(after.probabilities - before.probabilities).sum(axis=1) / 2
    rows = [row_of(one) for one in found["shown"]]
    assert len(rows) == 10
    assert rows[0] == max(np.flatnonzero(differs), key=lambda row: moved[row])
    for row, one in zip(rows, found["shown"], strict=True):
        answered = LABELS[labels[row]], LABELS[before.labels[row]], LABELS[after.labels[row]]
        assert (one["label"], one["before"], one["after"]) == answered
        assert one["moved"] == round(moved[row], 3)


def test_few_of_a_query_are_shown_however_much_it_moves() -> None:
    whole = np.zeros((PAIRS, 4))
    whole[:, 0] = 1
    turned = whole.copy()
    turned[:5] = [0, 1, 0, 0]  # all of one query
    turned[50:52] = [0.4, 0.6, 0, 0]
    sides = (Answered(one.argmax(axis=1), one) for one in (turned, whole))
    rows = [row_of(one) for one in examples(FRAME, texts, {}, *sides, 10)["changed"]["shown"]]
    assert rows == [0, 1, 50, 51]


def test_the_surest_errors_are_spread_over_class_and_locale() -> None:
    given = side(5).probabilities
    asked.clear()
    found = examples(FRAME, texts, {"a/1": given}, side(1), None, 12)
    assert found["changed"] is None
    shown, labels = found["errors"]["a/1"]["shown"], FRAME["label"].to_numpy()
    rows = [row_of(one) for one in shown]
    assert sorted(asked) == sorted(rows), "texts of other pairs are never read"
    wrong = np.flatnonzero(given.argmax(axis=1) != labels)
    assert found["errors"]["a/1"]["count"] == len(wrong)
    assert rows[0] == max(wrong, key=lambda row: given[row].max())
    assert [one["probability"] for one in shown] == sorted((one["probability"] for one in shown), reverse=True)
    assert max(Counter((one["label"], one["locale"]) for one in shown).values()) == ALIKE
    assert all(one["given"] != one["label"] == LABELS[labels[row]] for one, row in zip(shown, rows, strict=True))
    assert len(shown) == 12


@pytest.mark.parametrize(("frame", "most"), [(FRAME, 0), (FRAME.iloc[:0], 12)])
def test_none_are_shown_where_none_are_asked_for_or_there_are_none(frame: pd.DataFrame, most: int) -> None:
    assert examples(frame, texts, {"a/1": side(5).probabilities}, side(1), side(2), most) == {}


def test_long_texts_are_cut() -> None:
    def long(rows: np.ndarray) -> tuple[list[str], list[str]]:
        return ["q" * 500] * len(rows), ["two  words\n" * 100] * len(rows)

    shown = examples(FRAME, long, {"a/1": side(5).probabilities}, side(1), None, 3)["errors"]["a/1"]["shown"]
    assert {len(one["query"]) for one in shown} == {QUERY_LENGTH}
    assert all(len(one["title"]) <= TITLE_LENGTH and one["title"].endswith("…") for one in shown)
    assert "\n" not in shown[0]["title"]
