from __future__ import annotations

import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.worlds import World, make_world
from esci_tournament.registry.errors import NotFoundError, StoreError, UsageError
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters
from esci_tournament.tasks.ensemble.fitting import cross_validate, fit_aggregator
from esci_tournament.tasks.ensemble.subsets import Subsets, subsets_to_keep

FAST = AggregatorParameters(maximum_rounds=15, patience=5, threads=1)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(3, rows=1200, members=3, kinds=("plain", "weak", "plain"))


@pytest.fixture(scope="module")
def complete(world: World) -> Aggregator:
    return fit_aggregator(world.columns, world.labels, world.groups, world.members, FAST)


@pytest.fixture(scope="module")
def subsets(world: World, complete: Aggregator) -> Subsets:
    return Subsets.fit(world.columns, world.labels, world.groups, complete)


def test_the_answer_of_a_subset_is_that_of_a_fit_on_its_columns(world: World, subsets: Subsets) -> None:
    for size in (1, 2):
        for places in combinations(range(3), size):
            names = [world.members[place] for place in places]
            own = np.ascontiguousarray(world.columns[:, places])
            aggregator, members = subsets.best(names)
            assert members == tuple(names)
            alone = fit_aggregator(own, world.labels, world.groups, names, FAST)
            assert aggregator.booster.model_to_string() == alone.booster.model_to_string()
            expected = cross_validate(own, world.labels, world.groups, FAST).decision_scores
            assert np.array_equal(subsets.out_of_fold[members], expected)


def test_all_members_are_answered_for_by_the_ensembles_own_aggregator(subsets: Subsets, complete: Aggregator) -> None:
    assert subsets.best({*complete.members, "a stranger"}) == (complete, complete.members)


def test_of_equally_large_subsets_the_better_one_answers(subsets: Subsets) -> None:
    two = [one for one in subsets.kept if len(one.members) == 2]
    best = max(two, key=lambda one: one.value)
    few = Subsets(subsets.members, tuple(one for one in subsets.kept if len(one.members) < 3))
    assert few.best(subsets.members)[1] == best.members
    assert len({one.value for one in two}) > 1


def test_nobody_or_strangers_have_no_aggregator(subsets: Subsets) -> None:
    for available in ([], ["a stranger"]):
        with pytest.raises(NotFoundError, match="no aggregator is kept"):
            subsets.best(available)


def test_what_was_saved_is_loaded(tmp_path: Path, world: World, subsets: Subsets) -> None:
    subsets.save(tmp_path / "subsets")
    loaded = Subsets.load(tmp_path / "subsets")
    assert [one.members for one in loaded.kept] == [one.members for one in subsets.kept]
    for one in subsets.kept:
        own = world.columns[:50, [world.members.index(name) for name in one.members]]
        before, after = one.aggregator.predict_proba(own), loaded.best(one.members)[0].predict_proba(own)
        assert np.array_equal(before, after)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]


def test_an_ensemble_without_the_folder_answers_with_all_members_only(tmp_path: Path, complete: Aggregator) -> None:
    loaded = Subsets.load(tmp_path / "absent", complete)
    assert loaded.best(complete.members) == (complete, complete.members)
    with pytest.raises(NotFoundError):
        loaded.best(complete.members[:2])
    with pytest.raises(NotFoundError, match="made without them"):
        Subsets.load(tmp_path / "absent")


def test_damage_is_noticed(tmp_path: Path, subsets: Subsets) -> None:
    subsets.save(tmp_path)
    (tmp_path / "001").rename(tmp_path / "kept")
    shutil.copytree(tmp_path / "002", tmp_path / "001")
    with pytest.raises(StoreError, match="names"):
        Subsets.load(tmp_path)
    shutil.rmtree(tmp_path / "001")
    (tmp_path / "kept").rename(tmp_path / "001")
    card = (tmp_path / "subsets.json").read_text(encoding="utf-8")
    (tmp_path / "subsets.json").write_text(card.replace('"001"', '"../001"'), encoding="utf-8")
    with pytest.raises(StoreError, match="leads out of its folder"):
        Subsets.load(tmp_path)
    (tmp_path / "subsets.json").write_text(card, encoding="utf-8")
    (tmp_path / "002" / "aggregator.txt").write_text("tree", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be read"):
        Subsets.load(tmp_path)


@given(st.integers(1, 12), st.integers(1, 70), st.randoms(use_true_random=False))
def test_prefixes_and_singles_are_always_kept_and_the_rest_is_bounded(size: int, limit: int, random) -> None:
    members = [f"m{number}" for number in range(size)]
    order = random.sample(members, size)
    kept = subsets_to_keep(members, order, limit)
    needed = {frozenset(order[:count]) for count in range(1, size + 1)} | {frozenset([one]) for one in members}
    found = [frozenset(one) for one in kept]
    assert len(set(found)) == len(found) <= max(limit, len(needed))
    assert needed <= set(found)
    assert set(kept[0]) == set(members)
    assert all(list(one) == [name for name in members if name in one] for one in kept)
    if 2**size - 1 <= limit:
        assert len(found) == 2**size - 1


def test_an_order_of_other_members_is_refused(world: World, complete: Aggregator) -> None:
    with pytest.raises(UsageError, match="names each member once"):
        Subsets.fit(world.columns, world.labels, world.groups, complete, order=("plain-0", "weak-1"))
