"""LightGBM's text is read strictly: what passes cannot hurt LightGBM, and what is damaged is refused in words."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import StoreError
from esci_tournament.tasks.ensemble import aggregate
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters
from esci_tournament.tasks.ensemble.booster import open_booster, try_files
from esci_tournament.tasks.ensemble.fitting import Choice, fit_aggregator
from esci_tournament.tasks.ensemble.model_text import read_model
from esci_tournament.tasks.ensemble.trees import parse_trees

MEMBERS, COLUMNS = 3, 12
DAMAGES = ("flip", "cut", "drop line", "repeat line", "swap lines", "number", "drop bytes", "insert", "token")


@pytest.fixture(scope="module")
def world():
    return make_world(3, rows=1500, members=MEMBERS, kinds=("plain", "plain", "weak"))


@pytest.fixture(scope="module")
def aggregator(world) -> Aggregator:
    parameters = AggregatorParameters(maximum_rounds=4, threads=1)
    return fit_aggregator(world.columns, world.labels, world.groups, world.members, parameters, Choice(rounds=2))


def damaged(text: str, how: str, place: int, value: int) -> str:
    """Return a text with one damage."""
    lines = text.split("\n")
    line, at = place % len(lines), place % len(text)
    other = value % len(lines)
    if how == "flip":
        return text[:at] + chr(ord(text[at]) ^ (1 << value % 7)) + text[at + 1 :]
    if how == "cut":
        return text[:at]
    if how == "drop line":
        return "\n".join(lines[:line] + lines[line + 1 :])
    if how == "repeat line":
        return "\n".join([*lines[:line], lines[line], *lines[line:]])
    if how == "swap lines":
        lines[line], lines[other] = lines[other], lines[line]
        return "\n".join(lines)
    if how == "drop bytes":
        return text[:at] + text[at + 1 + value % 300 :]
    if how == "insert":
        return text[:at] + ("\0", "-", "9" * 30, " ", "\n", "nan", "1e999", "é", "=", "]")[value % 10] + text[at:]
    tokens = list(re.finditer(r"-?\d+(?:\.\d+)?" if how == "number" else r"\S+", text))
    found = tokens[place % len(tokens)]
    new = str((-1, 0, 7, 2**31, -(2**31), 2**63, 1e308, value)[value % 8]) if how == "number" else tokens[other][0]
    return text[: found.start()] + new + text[found.end() :]


def test_what_lightgbm_writes_is_read_as_before(aggregator: Aggregator) -> None:
    for ours, plain in zip(read_model(aggregator.text, COLUMNS), parse_trees(aggregator.text), strict=True):
        for name in ours.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(ours, name), getattr(plain, name))


def test_models_without_trees_and_of_single_leaves_are_read(world) -> None:
    for rounds, leaf_rows in ((0, 20), (1, 5000)):
        parameters = AggregatorParameters(threads=1, leaf_rows=leaf_rows)
        fitted = fit_aggregator(
            world.columns, world.labels, world.groups, world.members, parameters, Choice(rounds=rounds)
        )
        assert len(fitted.trees) == 4 * rounds
        assert fitted.predict_proba(world.columns[:3]).shape == (3, 4)


@settings(max_examples=600, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(DAMAGES), st.integers(0, 2**20), st.integers(0, 2**20))
def test_a_damaged_text_is_refused_in_words_or_is_a_model(
    aggregator: Aggregator, survivors: list[str], how: str, place: int, value: int
) -> None:
    """F6: 66 of 80 texts ended the process that parsed them. Those that pass are given to LightGBM below."""
    text = damaged(aggregator.text, how, place, value)
    try:
        trees = read_model(text, COLUMNS)
    except ValueError:
        return
    assert all(np.isfinite(tree.value).all() for tree in trees)
    if text != aggregator.text:
        survivors.append(text)


@pytest.fixture(scope="module")
def survivors() -> list[str]:
    return []


def test_lightgbm_survives_all_that_passed(aggregator: Aggregator, survivors: list[str], tmp_path: Path) -> None:
    """One child reads them all: it would end with the first that crashes it."""
    files = []
    for number, text in enumerate(dict.fromkeys(survivors)):
        if text.partition("parameters:")[0] == aggregator.text.partition("parameters:")[0]:
            with suppress(StoreError):  # it refuses a parameter that is no number, in words
                open_booster(text)
            continue
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_text(text, encoding="utf-8", newline="")
    if files:
        try_files(files)


def test_a_text_that_crashes_lightgbm_is_a_refusal_of_the_child(aggregator: Aggregator, tmp_path: Path) -> None:
    """F6, without the strict reader: the process that dies is the child."""
    file = tmp_path / "aggregator.txt"
    file.write_text(aggregator.text.replace("left_child=1 ", "left_child=9999999 "), encoding="utf-8")
    with pytest.raises(StoreError, match=r"cannot let LightGBM read .*SIG(SEGV|ABRT)"):
        try_files([file])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("left_child=1 ", "left_child=99 ", "child of one node"),
        ("left_child=1 ", "left_child=0 ", "child of one node"),
        ("num_class=4", "num_class=1000000000", "num_class=4"),
        ("objective=multiclass num_class:4", "objective=custom", "objective"),
        ("max_feature_idx=11", "max_feature_idx=2147483647", "max_feature_idx=11"),
        ("num_cat=0", "num_cat=7", "num_cat=0"),
        ("is_linear=0", "is_linear=1", "is_linear=0"),
        ("shrinkage=0.1", "shrinkage=nan", "no number"),
        ("decision_type=2", "decision_type=1", "no comparison"),
        ("pandas_categorical:null", "pandas_categorical:[[1]]", "pandas_categorical"),
        ("[boosting: gbdt]", "[boosting gbdt]", "unknown"),
        ("Tree=0\n", "Tree=0\naverage_output\n", "num_leaves"),
    ],
)
def test_crafted_texts_are_refused(aggregator: Aggregator, old: str, new: str, words: str) -> None:
    assert old in aggregator.text
    with pytest.raises(ValueError, match=re.escape(words)):
        read_model(aggregator.text.replace(old, new, 1), COLUMNS)


def test_a_long_line_takes_no_time(aggregator: Aggregator) -> None:
    for line in ("1" * 3_000_000, "1 " * 2_000_000, "1e1" * 1_000_000, "." * 3_000_000):
        with pytest.raises(ValueError, match="line"):
            read_model(aggregator.text.replace("split_gain=", f"split_gain={line}", 1), COLUMNS)


def test_a_file_with_another_digest_than_its_card_is_refused(aggregator: Aggregator, world, tmp_path: Path) -> None:
    """A damage that leaves a whole model: one digit of a leaf."""
    aggregator.save(tmp_path)
    text = (tmp_path / "aggregator.txt").read_text(encoding="utf-8")
    position = text.index("leaf_value=") + len("leaf_value=-0.7")
    changed = text[:position] + str((int(text[position]) + 1) % 10) + text[position + 1 :]
    (tmp_path / "aggregator.txt").write_text(changed, encoding="utf-8")
    assert read_model(changed, COLUMNS)
    with pytest.raises(StoreError, match="its digest is another"):
        Aggregator.load(tmp_path)


def test_an_aggregator_of_an_earlier_release_has_no_digest_and_is_read(
    aggregator: Aggregator, world, tmp_path: Path
) -> None:
    aggregator.save(tmp_path)
    card = json.loads((tmp_path / "aggregator.json").read_text(encoding="utf-8"))
    del card["digest"]
    (tmp_path / "aggregator.json").write_text(json.dumps(card), encoding="utf-8")
    loaded = Aggregator.load(tmp_path)
    assert (loaded.predict_proba(world.columns) == aggregator.predict_proba(world.columns)).all()
    assert loaded.digest() == aggregator.digest()


def test_a_page_is_scored_without_lightgbm(
    aggregator: Aggregator, world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the scorer's process gives it no text; a large table is tried in a child first."""
    aggregator.save(tmp_path)
    loaded = Aggregator.load(tmp_path)
    tried: list[object] = []
    monkeypatch.setattr(aggregate, "try_files", tried.append)
    loaded.predict_proba(world.columns[:1000])
    assert not tried
    loaded.predict_proba(world.columns)
    assert tried == [[tmp_path / "aggregator.txt"]]


@pytest.mark.parametrize(
    "change",
    [
        {"members": []},
        {"members": ["a", "a", "b"]},
        {"members": [1, 2, 3]},
        {"members": "abc", "rounds": float("inf")},
        {"parameters": []},
        {"parameters": {"depth": "4"}},
        {"pool": {"weights": [1.0], "bias": [0.0] * 4, "average": [[0.0] * 4]}},
        {"pool": {"weights": [float("nan")] * 3, "bias": [0.0] * 4, "average": [[0.0] * 4] * 3}},
        {"digest": 7},
    ],
)
def test_a_card_that_lies_is_refused(aggregator: Aggregator, tmp_path: Path, change: dict[str, object]) -> None:
    aggregator.save(tmp_path)
    card = json.loads((tmp_path / "aggregator.json").read_text(encoding="utf-8"))
    (tmp_path / "aggregator.json").write_text(json.dumps(card | change), encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be read"):
        Aggregator.load(tmp_path)
