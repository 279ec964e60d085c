"""A champion at work: which one it is, who is asked after whom, and when it ends."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.deployments.scorer.catalogue import Text
from esci_tournament.deployments.scorer.champion import Card, ServingChampion, stages_of
from esci_tournament.deployments.scorer.compute.pairs import NotAnswered, Pairs
from esci_tournament.registry.errors import TournamentError
from esci_tournament.tasks.ensemble.ensemble import MANIFEST
from tests.deployments.scorer.conftest import NAMES, constant_ensemble, exit_rule

CARD = Card("esci-ensemble", 3, "t-1", "data", NAMES)
PAIRS = Pairs("lamp", "us", [Text("A", "lamp", "", "", "", "")])


# Which one it is


def test_a_card_is_the_same_after_it_was_written():
    for card in (CARD, replace(CARD, refreshed=True, edges="newer")):
        assert Card.from_json(card.to_json()) == card


def test_labels_are_kept_under_another_number_when_they_may_be_others():
    others = [{"name": "x"}, {"version": 4}, {"tournament": "t-2"}, {"edges": "newer"}]
    assert len({CARD.number, *(replace(CARD, **other).number for other in others)}) == 5
    # Newer products are found in the catalogue; the labels of those that were there stand
    assert replace(CARD, refreshed=True, data_version="newer").number == CARD.number


def test_a_title_tells_newer_data():
    assert CARD.title == "esci-ensemble/3"
    assert replace(CARD, refreshed=True, data_version="0123456789abcdef").title == (
        "esci-ensemble/3 with data 0123456789ab"
    )


@pytest.fixture
def load(stand, catalogue, fitted, tmp_path):
    """Return a function that loads an ensemble whose manifest was changed."""
    folder = constant_ensemble(tmp_path / "ensemble", fitted, 0)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))

    def of(members=lambda members: members):
        changed = manifest | {"members": members(manifest["members"])}
        (folder / MANIFEST).write_text(json.dumps(changed), encoding="utf-8")
        return ServingChampion.load(folder, CARD, catalogue, stand.champion.fleet, stand.shared)

    return of


def test_it_is_loaded_with_its_members_in_the_aggregators_order_and_no_others(load):
    assert load().names == NAMES
    with pytest.raises(TournamentError, match="let a tournament make the ensemble anew"):
        load(lambda members: members[::-1])
    with pytest.raises(TournamentError, match="alpha/1, beta/1 and an aggregator of alpha/1, beta/1, gamma/1"):
        load(lambda members: members[:2])


# Who is asked, and what is made of it


@given(st.lists(st.none() | st.floats(0, 1), min_size=2, max_size=2))
def test_every_member_is_asked_once_and_a_stage_ends_where_somebody_may_leave(thresholds):
    stages = stages_of(exit_rule(*thresholds))
    assert [name for _, names in stages for name in names] == list(NAMES)
    assert [count for count, _ in stages] == [
        count for count in (1, 2, 3) if count == 3 or thresholds[count - 1] is not None
    ]


def scores_of(stand, *names):
    """Return the scores of some members as they are asked."""
    every = stand.run(stand.champion.scores(PAIRS, 10))
    return {name: every[name] for name in names or NAMES}


def test_who_has_answered_is_combined_by_an_aggregator_of_just_these(stand):
    for heard in (NAMES, NAMES[1:], NAMES[:1]):
        scores = scores_of(stand, *heard)
        combined = stand.champion.combine(scores)
        aggregator, members = stand.champion.subsets.best(heard)
        assert combined.members == members == heard
        expected = aggregator.predict_proba(np.stack([scores[name] for name in heard], axis=1))
        np.testing.assert_array_equal(combined.probabilities, expected)
    with pytest.raises(NotAnswered):
        stand.champion.combine({})


def test_a_member_that_answers_with_no_probabilities_does_not_pass_its_trial(stand):
    good = scores_of(stand)
    for wrong in (good["beta/1"] * 2, np.array([[1.5, -0.5, 0, 0]], np.float32)):
        with pytest.raises(TournamentError, match="the answers of member beta/1 are not probabilities"):
            stand.champion.try_out(good | {"beta/1": wrong})


def test_a_page_that_everybody_must_answer_names_who_fails_and_who_is_late(stand):
    stand.candidate("beta/1").fails = True
    with pytest.raises(TournamentError, match="member beta/1 failed: RuntimeError"):
        stand.run(stand.champion.scores(PAIRS, 10))
    stand.candidate("alpha/1").free.clear()
    with pytest.raises(TournamentError, match=r"no answer from alpha/1 within 0\.05 s"):
        stand.run(stand.champion.scores(PAIRS, 0.05))


def test_members_between_which_nobody_may_leave_are_asked_together(stand):
    assert stand.make(1, exit_rule(None, 0.5)).exit_stages == [(2, ("alpha/1", "beta/1")), (3, ("gamma/1",))]
    assert stand.make(1, exit_rule(0.5, None)).exit_stages == [(1, ("alpha/1",)), (3, ("beta/1", "gamma/1"))]


# When it ends


def test_one_that_is_retired_ends_with_the_last_who_uses_it(stand):
    champion = stand.champion
    champion.acquire()
    champion.acquire()
    champion.retire()
    champion.release()
    assert not champion.closed.is_set()
    champion.release()
    assert champion.closed.is_set()
    assert not champion.usable


def test_requests_under_way_finish_on_the_champion_they_began_with(stand):
    old, new = stand.champion, stand.make(2)

    async def go() -> None:
        await stand.scorer.engine.score(old, PAIRS, time.monotonic() + 10)
        stand.candidate("alpha/1").free.clear()
        under_way = asyncio.create_task(stand.scorer.engine.score(old, PAIRS, time.monotonic() + 10))
        await asyncio.sleep(0.05)
        free = stand.candidate("alpha/1").free
        closed = stand.scorer.active.take(new)
        assert isinstance(closed, threading.Event)
        assert not closed.is_set()
        free.set()
        assert (await under_way).missing == ()
        assert closed.is_set()

    stand.run(go())
