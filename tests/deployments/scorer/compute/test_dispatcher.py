"""The dispatcher: batching, splitting, isolated failures, dead replicas, disabled members."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.deployments.scorer.catalogue import Text
from esci_tournament.deployments.scorer.compute.dispatcher import BatchDispatcher, PendingRequests, ServingContext
from esci_tournament.deployments.scorer.compute.pairs import MemberBroken, NotAnswered, Pairs
from esci_tournament.deployments.scorer.compute.questions import Question
from esci_tournament.deployments.scorer.compute.replica import Done, Slice
from esci_tournament.deployments.scorer.metrics import ScorerMetrics
from esci_tournament.registry.settings import Settings


def page(number: int, query: str = "lamp") -> Pairs:
    return Pairs(query, "us", [Text(f"P{row}", f"title {row}", "", "", "", "") for row in range(number)])


def scores(member: str, pairs: Pairs) -> np.ndarray:
    """What a member of the tests says of a page: its name, its query and its rows are in the numbers."""
    rows = np.arange(len(pairs), dtype=np.float32)
    return np.stack([rows, np.full_like(rows, len(member)), np.full_like(rows, len(pairs.query)), rows * 0], axis=1)


class Scripted:
    """A replica that answers when the test says so."""

    alive = killable = True

    def __init__(self, slots: int = 1) -> None:
        self.slots = slots
        self.batches: list[tuple[str, list[Slice], Done]] = []
        self.given: list[tuple[str, int]] = []
        self.ended = False

    def send(self, member: str, slices: Sequence[Slice], done: Done) -> None:
        self.batches.append((member, list(slices), done))
        self.given.append((member, sum(stop - start for _, start, stop in slices)))

    def answer(self, seconds_a_pair: float = 0.001) -> None:
        member, slices, done = self.batches.pop(0)
        pairs = sum(stop - start for _, start, stop in slices)
        done([scores(member, pairs)[start:stop] for pairs, start, stop in slices], pairs * seconds_a_pair)

    def give_up(self) -> bool:
        return True

    def end(self) -> None:
        self.ended = True


class Breakable(Scripted):
    """A process in which a member answers no more once it has met a page of the query "poison"."""

    def __init__(self, silent: bool = False) -> None:
        super().__init__()
        self.silent, self.broken = silent, set()

    def answer(self, seconds_a_pair: float = 0.001) -> None:
        member, slices, done = self.batches.pop(0)
        was, met = member in self.broken, any(pairs.query == "poison" for pairs, _, _ in slices)
        if met:
            self.broken.add(member)
        if was or (met and not self.silent):
            done([MemberBroken("it is broken")] * len(slices), 0.001)
        else:
            done([scores(member, pairs)[start:stop] for pairs, start, stop in slices], 0.001)


class Clock:
    """Time that passes when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def dispatcher(*replicas: Scripted, names: Sequence[str] = ("a", "bb", "ccc"), **changes: Any) -> BatchDispatcher:
    clock = changes.pop("clock", time.monotonic)
    made = BatchDispatcher(names, ServingContext(Settings(**changes), PendingRequests(), ScorerMetrics()), clock=clock)
    for replica in replicas:
        made.attach(replica)
    return made


async def turn(times: int = 3) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


async def played(staff: Sequence[Scripted], seconds_a_pair: dict[str, float], clock: Clock) -> list[float]:
    """Let replicas compute, each in its own time; return when each was done, in seconds."""
    free, done = [0.0] * len(staff), [0.0] * len(staff)

    def ends(place: int) -> float:
        member, pairs = staff[place].given[-len(staff[place].batches)]
        return free[place] + pairs * seconds_a_pair[member]

    while busy := [place for place, replica in enumerate(staff) if replica.batches]:
        place = min(busy, key=ends)
        clock.now = free[place] = done[place] = ends(place)
        idle = [other for other, replica in enumerate(staff) if not replica.batches]
        staff[place].answer(seconds_a_pair[staff[place].batches[0][0]])
        await turn()
        for other in idle:
            free[other] = clock.now
    return done


def good(question: Question) -> bool:
    return question.scores is not None and np.array_equal(question.scores, scores(question.member, question.pairs))


@settings(max_examples=150)
@given(
    sizes=st.lists(st.integers(1, 130), min_size=1, max_size=8),
    replicas=st.integers(1, 4),
    script=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("aaaaaaadl")), max_size=60),
    known=st.booleans(),
)
def test_every_pair_is_answered_once_in_its_row_whoever_computes_and_dies(sizes, replicas, script, known):
    async def go() -> None:
        staff = [Scripted() for _ in range(replicas)]
        made = dispatcher(*staff, batch_pairs=64)
        if known:
            for seconds, member in zip((0.001, 0.01, 0.00001), made.members.values(), strict=True):
                member.seconds_a_pair = seconds
        questions = [
            question
            for number, size in enumerate(sizes)
            for question in made.ask(made.members, page(size, "q" * (number + 1)))
        ]
        for place, what in [*script, *[(place, "a") for place in range(4) for _ in range(200)]]:
            await turn(2)
            replica = staff[place % len(staff)]
            if what == "d" and made.replicas:
                staff.append(Scripted())
                made.attach(staff[-1])
                made.ended(replica, "killed")
                staff.remove(replica) if replica in staff and len(staff) > 1 else None
            elif what == "l":  # a request's time is up
                made.defer(questions[place :: len(sizes)])
            elif replica.batches:
                replica.answer()
        while any(replica.batches for replica in staff):
            for replica in staff:
                if replica.batches:
                    replica.answer()
            await turn(2)
        assert all(question.done for question in questions)
        for question in questions:  # right, or given up because replicas died of it twice
            assert good(question) or question.deaths >= 2

    run(go())


def test_what_gathers_while_a_member_computes_is_one_batch_and_each_gets_its_own():
    async def go() -> None:
        replica = Scripted()
        made = dispatcher(replica, names=["a"])
        first = made.ask(["a"], page(3))
        await turn()
        ahead = made.ask(["a"], page(1))  # the next batch is sent ahead, so that the replica never waits
        await turn()
        more = [made.ask(["a"], page(number, "q" * number))[0] for number in range(1, 5)]
        await turn()
        replica.answer()
        await turn()
        assert replica.given == [("a", 3), ("a", 1), ("a", 10)]
        for _ in range(2):
            replica.answer()
        assert all(good(question) for question in (*first, *ahead, *more))

    run(go())


def test_after_a_burst_a_page_that_is_asked_for_now_comes_before_those_whose_time_is_up():
    async def go() -> None:
        replica = Scripted()
        made = dispatcher(replica, names=["a", "bb"])
        burst = [question for number in range(50) for question in made.ask(["a", "bb"], page(40, "q" * (number + 1)))]
        await turn()
        given = len(replica.given)
        made.defer(burst)
        made.defer(burst)
        asked = made.ask(["a", "bb"], page(40, "now"))
        while not all(question.done for question in asked):
            replica.answer()
            await turn()
        assert [pairs for _, pairs in replica.given[given : given + 2]] == [40, 40]
        while replica.batches:
            replica.answer()
            await turn()
        assert all(good(question) for question in (*burst, *asked)), "late answers are labels for the next request"
        assert max(pairs for _, pairs in replica.given[given:]) <= 40, "nobody waits long behind late pages"

    run(go())


def test_a_page_is_computed_by_all_replicas_and_the_longest_first():
    async def go() -> None:
        staff = [Scripted(), Scripted()]
        made = dispatcher(*staff, names=["quick", "slow"])
        made.members["quick"].seconds_a_pair, made.members["slow"].seconds_a_pair = 0.001, 0.01
        questions = made.ask(made.members, page(40))
        await turn()
        while any(replica.batches for replica in staff):
            for replica in staff:
                if replica.batches:
                    replica.answer(0.01 if replica.batches[0][0] == "slow" else 0.001)
            await turn()
        assert all(good(question) for question in questions)
        assert staff[0].given[0][0] == staff[1].given[0][0] == "slow"
        time_of = {"quick": 0.001, "slow": 0.01}
        spent = [sum(pairs * time_of[member] for member, pairs in replica.given) for replica in staff]
        assert max(spent) < 0.6 * sum(spent)
        # Small batches cost more than they save
        assert min(pairs for replica in staff for _, pairs in replica.given) >= 4

    run(go())


@pytest.mark.parametrize("replicas", [2, 3, 4])
@pytest.mark.parametrize(
    "milliseconds",
    [(309, 196, 18.7, 18.1, 17.8), (500, 400), (100,), (6.7, 5.5, 5.4, 4.0, 3.9)],
    ids=["two-slow", "slow", "one", "quick"],
)
def test_no_replica_computes_long_after_the_others_are_done(milliseconds, replicas):
    async def go() -> None:
        staff, clock = [Scripted() for _ in range(replicas)], Clock()
        seconds_a_pair = {f"m{number}": one / 1000 / 40 for number, one in enumerate(milliseconds)}
        made = dispatcher(*staff, names=list(seconds_a_pair), clock=clock)
        for name, member in made.members.items():
            member.seconds_a_pair = seconds_a_pair[name]
        questions = made.ask(made.members, page(40))
        await turn()
        spent = await played(staff, seconds_a_pair, clock)
        assert all(good(question) for question in questions)
        even = sum(milliseconds) / 1000 / replicas
        assert max(spent) <= even + max(0.004, 4 * max(seconds_a_pair.values()))  # the least that is a batch

    run(go())


def test_a_batch_has_no_more_pairs_than_it_may():
    async def go() -> None:
        replica = Scripted()
        made = dispatcher(replica, names=["a"], batch_pairs=50)
        questions = [made.ask(["a"], page(size))[0] for size in (20, 20, 20, 20, 120)]
        await turn()
        while replica.batches:
            replica.answer()
            await turn()
        assert all(good(question) for question in questions)
        assert replica.given == [("a", 40), ("a", 40), ("a", 50), ("a", 50), ("a", 20)]

    run(go())


def test_requests_that_have_arrived_are_waited_for_and_no_others():
    async def go() -> None:
        replica = Scripted()
        made = dispatcher(replica, names=["a"], batch_window_ms=100)
        made._arrivals.count = 1
        made.ask(["a"], page(1))
        await asyncio.sleep(0.02)
        assert not replica.given
        made._arrivals.count = 0
        made.ask(["a"], page(1))
        await asyncio.sleep(0.01)
        assert replica.given == [("a", 2)]
        made._arrivals.count = 1  # and not for longer than that
        made.ask(["a"], page(1))
        begun = time.monotonic()
        while len(replica.given) < 2:
            await asyncio.sleep(0.001)
        assert 0.09 < time.monotonic() - begun < 5

    run(go())


def test_what_nobody_needs_any_more_is_left_out():
    async def go() -> None:
        replica = Scripted()
        made = dispatcher(replica, names=["a"])
        made.ask(["a"], page(1))
        made.ask(["a"], page(1))
        await turn()
        (gone,) = made.ask(["a"], page(7))
        gone.drop()
        made.ask(["a"], page(2))
        replica.answer()
        await turn()
        assert replica.given == [("a", 2), ("a", 2)]
        assert not gone.done

    run(go())


def test_where_several_batches_are_computed_at_once_each_member_has_one():
    async def go() -> None:
        replica = Scripted(slots=3)
        made = dispatcher(replica)
        for number in range(2):
            made.ask(made.members, page(4, "q" * number))
            await turn()
        assert replica.given == [("a", 4), ("bb", 4), ("ccc", 4)]

    run(go())


def test_a_replica_that_may_not_take_what_waits_leaves_it_to_another():
    async def go() -> None:
        first, second = Scripted(slots=2), Scripted(slots=2)
        made = dispatcher(first, second, names=["quick", "slow"], batch_pairs=4)
        made.members["quick"].seconds_a_pair, made.members["slow"].seconds_a_pair = 0.001, 0.1
        made.ask(["slow"], page(4))
        await turn()
        made.ask(["quick"], page(4))
        await turn()
        made.ask(["quick"], page(4))  # the one that is done first computes it already
        await turn()
        assert (first.given, second.given) == ([("slow", 4), ("quick", 4)], [("quick", 4)])

    run(go())


def test_what_a_replica_died_of_twice_is_given_up_and_counts_against_the_member():
    async def go() -> None:
        made = dispatcher(names=["a"], member_failures=1)
        lost = []
        made.lost = lost.append
        (bad,) = made.ask(["a"], page(3))
        for _ in range(2):
            replica = Scripted()
            made.attach(replica)
            await turn()
            assert replica.given == [("a", 3)]
            made.ended(replica, "killed")
            await turn()
        assert isinstance(bad.answer.result(), NotAnswered)
        assert "died" in str(bad.answer.result())
        assert lost == ["killed", "killed"]
        assert made.members["a"].breaker.fenced

    run(go())


@settings(max_examples=200)
@given(
    poison=st.lists(st.booleans(), min_size=2, max_size=12),
    order=st.lists(st.integers(0, 1), min_size=60, max_size=60),
    silent=st.booleans(),
    together=st.integers(1, 12),
)
def test_pages_that_break_a_member_take_no_other_page_with_them(poison, order, silent, together):
    async def go() -> None:
        staff = [Breakable(silent), Breakable(silent)]
        made = dispatcher(*staff, names=["a"], member_failures=3)

        def replace(_why: str) -> None:
            staff[:] = [one for one in staff if one in made.replicas]
            staff.append(Breakable(silent))
            made.attach(staff[-1])

        made.lost = replace
        bad = [number for number, one in enumerate(poison) if one][: 1 if silent else None]
        pages = [page(3 + number, "poison" if number in bad else f"lamp {number}") for number in range(len(poison))]
        asked, script = [], iter(order)
        while pages or any(replica.batches for replica in staff):
            for pairs in pages[:together]:
                asked += made.ask(["a"], pairs)
            del pages[:together]
            await turn()
            busy = [replica for replica in staff if replica.batches]
            if busy:
                busy[next(script, 0) % len(busy)].answer()
            await turn()
        for question in asked:
            assert question.done
            assert good(question) or question.pairs.query == "poison", question.answer.result()
            assert silent or not good(question) or question.pairs.query != "poison"
        assert not made.members["a"].breaker.fenced

    run(go())


def test_what_a_replica_had_not_begun_is_not_suspected_when_it_dies():
    async def go() -> None:
        made, dying = dispatcher(names=["a", "bb"]), Scripted()
        made.attach(dying)
        (begun,) = made.ask(["a"], page(3))
        await turn()
        (ahead,) = made.ask(["bb"], page(3))
        await turn()
        made.ended(dying, "killed")
        assert (begun.deaths, ahead.deaths) == (1, 0)
        heir = Scripted()
        made.attach(heir)
        await turn()
        heir.answer()
        heir.answer()
        assert good(begun)
        assert good(ahead)

    run(go())


def test_a_replica_that_hangs_is_given_up_with_its_batch_alone():
    async def go() -> None:
        hanging, other = Scripted(), Scripted()
        made = dispatcher(hanging, names=["a", "bb"], member_timeout_s=0.1)
        lost = []
        made.lost = lost.append
        (hung,) = made.ask(["a"], page(3))
        await turn()
        (waits,) = made.ask(["bb"], page(3))
        await asyncio.sleep(0.15)
        assert isinstance(hung.answer.result(), NotAnswered)
        assert not made.members["a"].breaker.fenced
        assert lost
        assert not made.replicas
        (again,) = made.ask(["a"], page(2))
        made.attach(other)
        await turn()
        while other.batches:
            other.answer()
            await turn()
        assert other.given[0] == ("a", 1)  # a harmless page, before all others
        assert good(waits)
        assert good(again)
        assert not made.members["a"].breaker.reason

    run(go())


def test_nobody_is_asked_after_the_end():
    async def go() -> None:
        replica = Scripted()
        made = dispatcher(replica)
        waiting = made.ask(made.members, page(3))
        await turn()
        waiting += made.ask(made.members, page(3))
        made.close()
        waiting += made.ask(made.members, page(3))
        assert replica.ended
        assert all(isinstance(question.answer.result(), NotAnswered) for question in waiting)
        late = Scripted()
        made.attach(late)
        assert late.ended

    run(go())


@pytest.mark.scorer(member_failures=2, member_retry_s=0.2)
def test_a_member_that_fails_twice_is_fenced_off_tried_again_and_taken_back(stand):
    alone, breaker = stand.candidate("alpha/1"), stand.champion.members["alpha/1"].breaker

    async def ask() -> Any:
        (question,) = stand.champion.dispatcher.ask(["alpha/1"], page(1))
        return await question.answer

    alone.fails = True
    for _ in range(2):
        assert isinstance(stand.run(ask()), NotAnswered)
    assert breaker.fenced
    assert "fenced off: RuntimeError: it cannot bear this" in str(stand.run(ask()))
    alone.fails = False
    time.sleep(0.25)
    assert isinstance(stand.run(ask()), np.ndarray)
    assert not breaker.fenced


def test_of_a_batch_that_fails_only_the_pages_fail_that_fail_alone(stand):
    async def go() -> list[Any]:
        slow = stand.candidate("alpha/1")
        slow.free.clear()
        first = stand.champion.dispatcher.ask(["alpha/1"], page(1))
        await turn()
        bad = Pairs("lamp", "us", [Text("", "poison", "", "", "", "")])
        others = [stand.champion.dispatcher.ask(["alpha/1"], pairs)[0] for pairs in (page(2), bad, page(3))]
        slow.free.set()
        return [await question.answer for question in (*first, *others)]

    answers = stand.run(go())
    assert [isinstance(answer, np.ndarray) for answer in answers] == [True, True, False, True]
    assert stand.candidate("alpha/1").calls == [1, 6, 2, 1, 3, 1]  # the last is the harmless page


@pytest.mark.scorer(member_timeout_s=0.1, member_retry_s=0.1, members_at_once=1)
def test_a_member_of_this_process_that_hangs_gives_its_place_up_and_comes_back_when_it_can(stand):
    alone = stand.candidate("alpha/1")

    async def go() -> None:
        ask = stand.champion.dispatcher.ask
        alone.free.clear()
        (hangs,) = ask(["alpha/1"], page(1))
        await turn()
        (waits,) = ask(["alpha/1"], page(1))
        (other,) = ask(["beta/1"], page(1))
        await asyncio.sleep(0.2)
        assert isinstance(hangs.answer.result(), NotAnswered)
        assert isinstance(await other.answer, np.ndarray)
        # However long it takes: it still hangs
        assert "fenced" in str(ask(["alpha/1"], page(1))[0].answer.result())
        alone.free.set()
        await asyncio.sleep(0.3)
        assert isinstance(await ask(["alpha/1"], page(1))[0].answer, np.ndarray)
        assert waits.done

    stand.run(go())
