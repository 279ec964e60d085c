"""Deadlines and early exits: which members are asked, which answers are used, and what is cached."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from esci_tournament.deployments.scorer.catalogue import Text
from esci_tournament.deployments.scorer.compute.pairs import Pairs
from esci_tournament.tasks.ensemble.early_exit import margins
from tests.deployments.scorer.conftest import NAMES, exit_rule

PAIRS = Pairs("lamp", "us", [Text(f"P{row}", f"title {row}", "", "", "", "") for row in range(60)])


def member_scores(stand, pairs: Pairs = PAIRS) -> dict[str, np.ndarray]:
    return {
        name: np.stack([stand.candidate(name)._one(pairs.query, pairs.locale, text.title) for text in pairs.texts])
        for name in NAMES
    }


def run(stand, work):
    """Run `work` in a loop; the members' threads have answered once, so that no deadline pays for a cold start."""

    async def go():
        await stand.scorer.engine.score(stand.champion, PAIRS.part([0]), time.monotonic() + 10)
        for name in NAMES:
            stand.candidate(name).calls.clear()
        return await work()

    return stand.run(go())


def test_before_the_deadline_everyone_is_heard(stand):
    scored = run(stand, lambda: stand.scorer.engine.score(stand.champion, PAIRS, time.monotonic() + 10))
    scores = np.stack(list(member_scores(stand).values()), axis=1)
    expected = stand.champion.subsets.best(NAMES)[0].predict_proba(scores)
    np.testing.assert_allclose(scored.combined.probabilities, expected, atol=1e-6)
    assert (scored.members, scored.missing) == (NAMES, ())


@pytest.mark.parametrize("slow", [("alpha/1",), ("beta/1", "gamma/1")])
def test_at_the_deadline_the_aggregator_of_those_that_answered_speaks(stand, slow):
    kept = []

    async def work():
        for name in slow:
            stand.candidate(name).delay_s = 0.4
        begun = time.monotonic()
        scored = await stand.scorer.engine.score(stand.champion, PAIRS, begun + 0.15, too_late=kept.append)
        elapsed = time.monotonic() - begun
        assert not kept
        while stand.scorer.engine.admission.pairs:
            await asyncio.sleep(0.02)
        return scored, elapsed

    scored, elapsed = run(stand, work)
    assert elapsed < 0.35
    heard = tuple(name for name in NAMES if name not in slow)
    assert (scored.members, scored.missing) == (heard, slow)
    scores = member_scores(stand)
    expected = stand.champion.subsets.best(heard)[0].predict_proba(np.stack([scores[name] for name in heard], axis=1))
    np.testing.assert_allclose(scored.combined.probabilities, expected, atol=1e-6)
    assert [combined.members for combined in kept] == [NAMES]  # what came late is the whole answer, for the next time


@pytest.mark.scorer(queued_pairs=1000)
def test_under_a_crowd_what_nobody_waits_for_is_not_computed(stand):
    many = Pairs("lamp", "us", PAIRS.texts * 10)  # 600 pairs: more than half of what may wait

    async def work():
        stand.candidate("alpha/1").free.clear()
        first = stand.scorer.engine.score(stand.champion, PAIRS, time.monotonic() + 0.6)
        second = stand.scorer.engine.score(stand.champion, many, time.monotonic() + 0.6)
        await asyncio.gather(first, second)
        stand.candidate("alpha/1").free.set()
        while stand.scorer.engine.admission.pairs:
            await asyncio.sleep(0.02)

    run(stand, work)
    assert sum(stand.candidate("alpha/1").calls) <= 60
    assert sum(stand.candidate("beta/1").calls) == 660


def test_members_are_asked_until_a_label_is_sure_and_not_further(stand):
    rule = exit_rule(1.0, 0.8)
    stand.scorer.active.take(stand.make(1, rule))
    scored = run(stand, lambda: stand.scorer.engine.label(stand.champion, PAIRS, time.monotonic() + 10))
    scores = member_scores(stand)

    def aggregated(count):
        names = NAMES[:count]
        aggregator, members = stand.champion.subsets.best(names)
        assert members == names
        probabilities = aggregator.predict_proba(np.stack([scores[name] for name in names], axis=1))
        return probabilities, aggregator.decision_scores(probabilities)

    (one, decision), (two, further), (three, last) = (aggregated(count) for count in (1, 2, 3))
    first = margins(decision) >= 1.0
    second = ~first & (margins(further) >= 0.8)
    assert 0 < first.sum() < len(PAIRS)
    assert second.any()
    expected = np.where(first[:, None], one, np.where(second[:, None], two, three))
    np.testing.assert_allclose(scored.combined.probabilities, expected, atol=1e-6)
    decided = np.where(first[:, None], decision, np.where(second[:, None], further, last))
    np.testing.assert_array_equal(scored.combined.labels, decided.argmax(axis=1))
    np.testing.assert_array_equal(scored.early, first | second)
    asked = [sum(stand.candidate(name).calls) for name in NAMES]
    assert asked == [60, 60 - first.sum(), 60 - first.sum() - second.sum()]
    assert scored.missing == ()


def test_nobody_leaves_early_while_a_member_is_missing(stand):
    stand.scorer.active.take(stand.make(1, exit_rule(0.1, 0.1)))

    async def work():
        stand.candidate("alpha/1").fails = True
        return await stand.scorer.engine.label(stand.champion, PAIRS, time.monotonic() + 10)

    scored = run(stand, work)
    assert not scored.early.any()
    assert (scored.members, scored.missing) == (("beta/1", "gamma/1"), ("alpha/1",))
    scores = member_scores(stand)
    aggregator, _ = stand.champion.subsets.best(scored.members)
    expected = aggregator.predict_proba(np.stack([scores[name] for name in scored.members], axis=1))
    np.testing.assert_allclose(scored.combined.probabilities, expected, atol=1e-6)


def test_the_deadline_holds_within_an_early_exit_too(stand):
    stand.scorer.active.take(stand.make(1, exit_rule(2.0, 2.0)))

    async def work():
        stand.candidate("beta/1").delay_s = 0.5
        begun = time.monotonic()
        scored = await stand.scorer.engine.label(stand.champion, PAIRS, begun + 0.15)
        return scored, time.monotonic() - begun

    scored, elapsed = run(stand, work)
    assert elapsed < 0.4
    assert scored.members == ("alpha/1",)
    assert scored.missing == ("beta/1", "gamma/1")
    assert (scored.combined.probabilities.sum(axis=1) > 0.99).all()


@pytest.mark.scorer(exit_check_share=1.0)
def test_early_exits_are_checked_against_the_whole_ensemble(stand):
    stand.scorer.active.take(stand.make(1, exit_rule(0.0, 0.0)))  # everybody leaves after the first member

    async def work():
        scored = await stand.scorer.engine.label(stand.champion, PAIRS, time.monotonic() + 10)
        while stand.scorer.engine._later:
            await asyncio.sleep(0.01)
        return scored

    scored = run(stand, work)
    scores = np.stack(list(member_scores(stand).values()), axis=1)
    whole = stand.champion.subsets.best(NAMES)[0].predict(scores)
    differing = int((whole != scored.combined.labels).sum())
    assert differing > 0
    text = stand.scorer.metrics.text().decode()
    assert "scorer_early_exit_checked_total 60.0" in text
    assert f"scorer_early_exit_differed_total {differing}.0" in text
    assert 'scorer_member_pairs_saved_total{member="gamma/1"} 60.0' in text
