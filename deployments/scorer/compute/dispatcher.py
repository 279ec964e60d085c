"""Assigns batches to replicas: questions wait for their member, and go out in batches as replicas are free.

A free replica is given at once all that waits for one member, up to `batch_pairs` pairs. Only while other requests have
arrived and are not queued yet does it wait for them, a few milliseconds at most. What arrives while it computes forms
the next batch. When there are several replicas, each is filled up to an even share of all the work, under way or
waiting, and a page is cut where that share ends (the wrap-around rule, McNaughton 1959), so that all replicas compute
it and are done at about the same time.

Everything here runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from esci_tournament.deployments.scorer.compute.breaker import Breaker
from esci_tournament.deployments.scorer.compute.pairs import HARMLESS, MemberBroken, NotAnswered, PageFailed, Pairs
from esci_tournament.deployments.scorer.compute.quarantine import Quarantine
from esci_tournament.deployments.scorer.compute.questions import Member, Question
from esci_tournament.deployments.scorer.compute.replica import Answer, Replica
from esci_tournament.deployments.scorer.metrics import ScorerMetrics
from esci_tournament.registry.settings import Settings

_LEAST_PAIRS, _LEAST_SECONDS = 4, 0.004  # lower bounds of a batch: smaller ones cost more than they save
_LATE_PAIRS = 40  # of a batch of late questions at most: a request that arrives meanwhile waits for it
_MOST_DEATHS = 2  # deaths of replicas that computed a question after which it is given up
_PATIENCE = 8  # times that a batch may take as long as one of its size takes as a rule
_QUARANTINED = "processes were lost with this page or query a moment ago; it is not computed for a minute"


class PendingRequests:
    """The number of requests that have arrived and are not queued yet; set by the service, read by the dispatcher."""

    count = 0


@dataclass(frozen=True)
class ServingContext:
    """What all champions in a process share.

    Attributes:
        settings: those in force.
        arrivals: count of requests that are being read.
        metrics: the scorer's metrics.
    """

    settings: Settings
    arrivals: PendingRequests
    metrics: ScorerMetrics


@dataclass(eq=False)
class _Batch:
    member: Member
    parts: list[tuple[Question, int, int]]
    slot: _ReplicaSlot
    seconds: float  # expected time
    begun: float | None = None
    timer: asyncio.TimerHandle | None = None
    lost: bool = False  # it took too long: its answers are ignored
    risky: bool = False  # a replica has died or hung of its question

    @property
    def pairs(self) -> int:
        return sum(stop - start for _, start, stop in self.parts)

    @property
    def questions(self) -> list[Question]:
        return list(dict.fromkeys(question for question, _, _ in self.parts))


@dataclass(eq=False)
class _ReplicaSlot:
    """A replica and the batches that it was given, oldest first."""

    replica: Replica
    batches: list[_Batch] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)  # members that it has computed something with

    @property
    def room(self) -> int:
        """Batches that it may be given now; with a single slot it is given one more ahead of time."""
        return max(self.replica.slots, 2) - len(self.batches)

    @property
    def computing(self) -> list[_Batch]:
        return self.batches[: self.replica.slots]

    def left(self, now: float) -> float:
        """Return the expected seconds until it has computed what it was given."""
        spent = (0.0 if batch.begun is None else min(now - batch.begun, batch.seconds) for batch in self.batches)
        return (sum(batch.seconds for batch in self.batches) - sum(spent)) / self.replica.slots

    def takes(self, member: Member) -> bool:
        """Tell whether it may be given a batch of a member: one of each at a time, so that the next ones are larger."""
        return self.replica.slots == 1 or all(batch.member is not member for batch in self.batches)


class BatchDispatcher:
    """Asks the members of one champion, by sending batches to its replicas.

    Args:
        names: candidate ids of the members.
        shared: settings, metrics and the count of arriving requests.
        lost: called with the reason when a replica is gone that was not detached; it may attach another.
        clock: returns the time in seconds, growing.

    Attributes:
        members: candidate id -> the member's queue and circuit breaker.
        quarantine: pages that replicas died or hung of; they are computed alone, or not at all.
        lasted: whether the replica that was lost last had worked, or ended because of what it computed.
    """

    def __init__(
        self,
        names: Iterable[str],
        shared: ServingContext,
        lost: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._arrivals, self._metrics = shared.settings, shared.arrivals, shared.metrics
        failures, retry_s = self._settings.member_failures, self._settings.member_retry_s
        self.members = {name: Member(name, Breaker(failures, retry_s)) for name in names}
        self.lost, self._clock = lost or _unheard, clock
        self._slots: list[_ReplicaSlot] = []
        self._order = 0
        self._woken_by: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._most_slots = 0
        self.quarantine = Quarantine(clock)
        self.lasted = False

    @property
    def replicas(self) -> list[Replica]:
        """The replicas that are given batches."""
        return [slot.replica for slot in self._slots]

    def attach(self, replica: Replica) -> None:
        """Give batches to a replica from now on; once closed, the replica is ended instead."""
        if self._closed:
            replica.end()
        elif not replica.alive:
            self.lasted = False
            self.lost("a replica ended before it took part")
        else:
            self._slots.append(_ReplicaSlot(replica))
            self._most_slots = max(self._most_slots, len(self._slots))
        self._wake()

    def withdraw(self, replica: Replica) -> None:
        """Give a replica no more batches; those that it has are given to another one. It does not end."""
        for slot in [slot for slot in self._slots if slot.replica is replica]:
            self._slots.remove(slot)
            self._take_back(slot, deadly=False)

    def detach(self, replica: Replica) -> None:
        """Give a replica no more batches, and end it; those that it has are given to another one."""
        self.withdraw(replica)
        replica.end()

    def ended(self, replica: Replica, why: str) -> None:
        """Handle the loss of a replica: the batches that it had are given to another one.

        A question that two replicas were computing when they died is answered with an error, because it may be what
        they died of. The second time it was computed alone.

        Args:
            replica: the one that is gone.
            why: the reason, in one sentence.
        """
        for slot in [slot for slot in self._slots if slot.replica is replica]:
            self._slots.remove(slot)
            self.lasted = bool(slot.answered or slot.batches)
            self._take_back(slot, deadly=True)
            self.lost(why)

    def ask(self, names: Iterable[str], pairs: Pairs) -> list[Question]:
        """Ask members for the scores of pairs.

        Args:
            names: candidate ids.
            pairs: the pairs, for all of them.

        Returns:
            One question for each member, in the order of `names`. Those to members that are fenced off have failed
            already.
        """
        loop = asyncio.get_running_loop()
        self._order += 1
        questions = []
        for name in names:
            member = self.members[name]
            question = Question(name, pairs, self._order, loop.create_future(), deque([(0, len(pairs))]))
            questions.append(question)
            if self._closed:
                question.fail(NotAnswered("it is closed"))
            elif not member.breaker.admits():
                question.fail(NotAnswered(f"fenced off: {member.breaker.reason}"))
            elif self.quarantine.holds(name, pairs):
                question.fail(PageFailed(_QUARANTINED))
            else:
                question.deaths = int(self.quarantine.doubts(name, pairs))
                member.put(question)
        self._wake()
        return questions

    def defer(self, questions: Iterable[Question]) -> None:
        """Let questions wait until no request does: theirs has ended, and their answers only become labels.

        In their old place they would be computed before requests that can still be answered in time, which then are
        late as well: after a burst nothing would be answered for as long as it takes to compute all of it.

        Args:
            questions: of a request that has ended; those that are answered, or with a replica, are left alone.
        """
        for question in questions:
            member = self.members[question.member]
            if not question.late and question in member.queue:
                member.queue.remove(question)
                question.late = True
                member.put(question)

    def close(self) -> None:
        """Fail all questions that wait or are under way, and end the replicas."""
        self._closed, self.lost = True, _unheard  # drops the reference to the champion
        for member in self.members.values():
            for line in member.lines:
                _fail(line, NotAnswered("it is closed"))
            self._metrics.member_gone(member.name)
        slots, self._slots = self._slots, []
        for slot in slots:
            batches, slot.batches = slot.batches, []
            for batch in batches:
                _disarm(batch)
                _fail(batch.questions, NotAnswered("it is closed"))
            slot.replica.end()

    def _wake(self) -> None:
        loop = asyncio.get_running_loop()
        if self._woken_by is not loop:  # else it has been woken already
            self._woken_by = loop
            loop.call_soon(self._dispatch, time.monotonic() + self._settings.batch_window_ms / 1000)

    def _dispatch(self, until: float) -> None:
        waiting = sum(member.waiting for member in self.members.values())
        left = until - time.monotonic()
        if waiting and self._arrivals.count > 0 and left > 0 and waiting < self._settings.batch_pairs:
            asyncio.get_running_loop().call_later(min(left, 0.0005), self._dispatch, until)
            return
        self._woken_by = None
        while (choice := self._choose()) is not None:
            self._send(*choice)

    def _choose(self) -> tuple[_ReplicaSlot, Member, float] | None:
        """Return a replica, the member whose pairs it computes next, and the seconds that its even share has room for.

        The replica that is done first comes first. One that has its share is given nothing ahead: another will be free
        before it is.
        """
        now = self._clock()
        left = {slot: slot.left(now) for slot in self._slots}
        waiting = sum(member.expected_seconds for member in self.members.values())
        even = (waiting + sum(left.values())) / max(len(left), 1)
        for slot in sorted((slot for slot in self._slots if slot.room > 0), key=lambda one: (left[one], -one.room)):
            room = even - left[slot]
            ahead = len(slot.batches) >= slot.replica.slots
            if ahead and waiting and room <= 0:
                continue
            if (member := self._next(slot)) is not None:
                return slot, member, room
        return None

    def _next(self, slot: _ReplicaSlot) -> Member | None:
        """Return the member that has waited longest; of those that wait for one page, the one that takes longest.

        Late questions come after all others. What a replica has died of comes first: few of them may be computed.
        """
        for member in self.members.values():
            for line in member.lines:
                while line and not line[0].waiting:
                    line.popleft()
        if suspected := [one for one in self.members.values() if slot.takes(one) and self._risks(one)]:
            return suspected[0]
        waiting = [member for member in self.members.values() if member.line and slot.takes(member)]
        return min(waiting, key=lambda one: (not one.queue, one.line[0].order, -one.expected_seconds), default=None)

    def _risks(self, member: Member) -> bool:
        """Tell whether a replica is given what another one has died of with this member.

        Not before the member has been tried with a harmless page. Only one at a time, and only while there is another
        one for everything else, or nothing else to compute.

        Returns:
            Whether now is such a time.
        """
        if not member.suspects or (member.queue and member.queue[0].pairs is HARMLESS):
            return False
        batches = [batch for slot in self._slots for batch in slot.batches]
        if any(batch.risky for batch in batches):
            return False
        idle = not batches and not any(member.line for member in self.members.values())
        return len(self._slots) > 1 or self._most_slots < 2 or idle

    def _send(self, slot: _ReplicaSlot, member: Member, room: float) -> None:
        risky = self._risks(member)
        parts = self._alone(member) if risky else self._gather(member, *self._size(member, room))
        seconds = member.seconds_for(sum(stop - start for _, start, stop in parts))
        batch = _Batch(member, parts, slot, seconds, risky=risky)
        slot.batches.append(batch)
        slices = [(question.pairs, start, stop) for question, start, stop in batch.parts]
        slot.replica.send(member.name, slices, lambda answers, seconds: self._arrived(batch, answers, seconds))
        self._arm(slot)

    def _size(self, member: Member, room: float) -> tuple[int, int]:
        """Return the pairs of a batch that takes `room` seconds, and the smallest rest that is a batch of its own."""
        most = self._settings.batch_pairs if member.queue else min(_LATE_PAIRS, self._settings.batch_pairs)
        if len(self._slots) < 2 or not member.seconds_a_pair:
            return most, _LEAST_PAIRS
        least = max(_LEAST_PAIRS, math.ceil(_LEAST_SECONDS / member.seconds_a_pair))
        return min(most, max(least, math.ceil(room / member.seconds_a_pair))), least

    def _alone(self, member: Member) -> list[tuple[Question, int, int]]:
        """Return up to a batch of one question's rows, of the first that a replica has died or hung of."""
        question, room = member.suspects[0], self._settings.batch_pairs
        parts: list[tuple[Question, int, int]] = []
        while question.todo and room > 0:
            start, stop = question.todo.popleft()
            if stop - start > room:
                question.todo.appendleft((start + room, stop))
                stop = start + room
            parts.append((question, start, stop))
            room -= stop - start
        if not question.todo:
            member.suspects.popleft()
        return parts

    def _gather(self, member: Member, most: int, least: int) -> list[tuple[Question, int, int]]:
        """Return questions' rows, taken out of the queue; only the first question is taken in part."""
        parts: list[tuple[Question, int, int]] = []
        room, line = most, member.line
        while line and (not parts or (line[0].waiting <= room and parts[0][0].pairs is not HARMLESS)):
            question = line[0]
            while question.todo and not question.dropped and room > 0:
                start, stop = question.todo.popleft()
                if stop - start >= room + least:  # a small rest goes along
                    question.todo.appendleft((start + room, stop))
                    stop = start + room
                parts.append((question, start, stop))
                room -= stop - start
            if question.waiting:
                break
            line.popleft()
        return parts

    def _arm(self, slot: _ReplicaSlot) -> None:
        for batch in slot.computing:
            if batch.timer is None:
                batch.begun = self._clock()
                batch.timer = asyncio.get_running_loop().call_later(self._limit(batch), self._hangs, batch)

    def _limit(self, batch: _Batch) -> float:
        """Return the seconds that a batch may take, by what its member takes for as many pairs as a rule."""
        most = self._settings.member_timeout_s
        if not batch.slot.replica.killable or batch.member.seconds_a_pair is None:
            return most
        return min(most, max(self._settings.page_timeout_s, _PATIENCE * batch.seconds))

    def _arrived(self, batch: _Batch, answers: Sequence[Answer], seconds: float) -> None:
        if batch.lost:
            batch.member.breaker.returned()
            return
        if batch not in batch.slot.batches:  # it was given to another
            return
        batch.slot.batches.remove(batch)
        _disarm(batch)
        member = batch.member
        self._metrics.batch(member.name, batch.pairs, len(batch.questions), seconds)
        if all(isinstance(answer, np.ndarray) for answer in answers):
            batch.slot.answered.add(member.name)
            member.learn(seconds, batch.pairs)
        broken = any(isinstance(answer, MemberBroken) for answer in answers) and batch.slot.replica.killable
        worked = member.name in batch.slot.answered
        others = worked or len(batch.questions) > 1  # one of which may have broken it: each is tried alone, elsewhere
        for (question, start, stop), answer in zip(batch.parts, answers, strict=True):
            if broken and others and isinstance(answer, MemberBroken) and not question.deaths:
                question.deaths = 1
                self._put_back(member, question, start, stop)
            else:
                self._heard(member, question, start, stop, answer)
        if broken and (worked or not member.breaker.fenced):  # else it fails in fresh processes too
            self._renew(batch)
        elif batch.slot in self._slots:
            self._arm(batch.slot)
        self._wake()

    def _renew(self, batch: _Batch) -> None:
        """End a replica in which a member is broken."""
        if len(batch.questions) == 1:
            self.quarantine.add(batch.member.name, batch.questions[0].pairs)
        self._drop_slot(batch.slot, f"{batch.member.name} fails on every page")
        self._doubt(batch.member)
        self._reassure(batch.member, batch.questions)
        self._wake()

    def _heard(self, member: Member, question: Question, start: int, stop: int, answer: Answer) -> None:
        if isinstance(answer, np.ndarray):
            question.fill(start, stop, answer)
            if question.done:
                member.breaker.succeeded()
        elif not question.done:
            question.fail(answer)
            counts = not isinstance(answer, PageFailed)  # else the page is to blame, and not the member
            self._metrics.member_failed(member.name, "error", counts and member.breaker.failed(str(answer)))

    def _hangs(self, batch: _Batch) -> None:
        """End what takes too long, and free the replica's slot at once.

        A replica that can be ended takes no more with it than the page that it computed. Of a batch of several pages
        each is tried once more, alone. One that cannot be ended has its member fenced off until it returns.
        """
        if batch not in batch.slot.batches:
            return
        member = batch.member
        reason = NotAnswered(f"no answer within {self._limit(batch):.3g} s (settings page_timeout_s, member_timeout_s)")
        if batch.slot.replica.killable:
            self._end_replica(batch, reason)
            return
        batch.lost, batch.timer = True, None
        batch.slot.batches.remove(batch)
        member.breaker.hangs(str(reason))
        self._metrics.member_failed(member.name, "timeout", True)
        _fail(batch.questions, reason)
        for line in member.lines:
            _fail(line, reason)
        self._arm(batch.slot)
        self._wake()

    def _end_replica(self, batch: _Batch, reason: NotAnswered) -> None:
        slot, member = batch.slot, batch.member
        batch.lost, batch.timer = True, None
        slot.batches.remove(batch)
        self._metrics.member_failed(member.name, "timeout", member.breaker.failed(str(reason)))
        alone = len(batch.questions) == 1
        self._suspect(batch, reason, _MOST_DEATHS if alone else 1)
        self._drop_slot(slot, f"{member.name}: {reason}")
        self._reassure(member, batch.questions)
        self._wake()

    def _drop_slot(self, slot: _ReplicaSlot, why: str) -> None:
        """End a replica because of what it computed; the batches that it was given are given to another one."""
        slot.replica.give_up()
        if slot in self._slots:
            self._slots.remove(slot)
            self._take_back(slot, deadly=False)
            self.lasted = True
            self.lost(why)

    def _suspect(self, batch: _Batch, reason: NotAnswered, deaths: int) -> list[Question]:
        """Try what a replica died or hung of again, alone; or give it up. Returns the questions that are given up."""
        given_up = []
        for question in batch.questions:
            question.deaths += deaths
            if question.deaths >= _MOST_DEATHS and not question.done:
                given_up.append(question)
                question.fail(reason)
                self.quarantine.add(batch.member.name, question.pairs)
        for question, start, stop in reversed(batch.parts):
            if not question.done:
                self._put_back(batch.member, question, start, stop)
        if given_up:
            self._doubt(batch.member)
        return given_up

    def _doubt(self, member: Member) -> None:
        """Fail the waiting questions that are in quarantine now, and have those that are in doubt computed alone."""
        for question in [question for line in member.lines for question in line]:
            if self.quarantine.holds(member.name, question.pairs):
                question.fail(PageFailed(_QUARANTINED))
            elif not question.deaths and self.quarantine.doubts(member.name, question.pairs):
                question.deaths = 1
                member.put(question)

    def _reassure(self, member: Member, questions: Sequence[Question]) -> None:
        """Ask a member about a harmless page before all others: when it answers, its failures are forgotten."""
        if any(question.pairs is HARMLESS for question in (*questions, *member.queue)):
            return
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        member.put(Question(member.name, HARMLESS, 0, answer, deque([(0, len(HARMLESS))])), first=True)

    def _take_back(self, slot: _ReplicaSlot, deadly: bool) -> None:
        """Queue again what a replica was given; `deadly`: it may have died of what it was computing."""
        computing, given, slot.batches = slot.computing, slot.batches, []
        for batch in reversed(given):
            _disarm(batch)
            if deadly and batch in computing:
                reason = NotAnswered("the process that computed it died")
                for _ in self._suspect(batch, reason, 1):
                    fences = batch.member.breaker.failed(str(reason))
                    self._metrics.member_failed(batch.member.name, "error", fences)
                    self._reassure(batch.member, batch.questions)
                continue
            for question, start, stop in reversed(batch.parts):
                self._put_back(batch.member, question, start, stop)
        self._wake()

    @staticmethod
    def _put_back(member: Member, question: Question, start: int, stop: int) -> None:
        question.todo.appendleft((start, stop))
        if question.deaths or not any(question in line for line in member.lines):
            member.put(question, first=True)


def _unheard(_why: str) -> None:
    """Ignore the loss of a replica."""


def _fail(questions: Iterable[Question], reason: NotAnswered) -> None:
    for question in list(questions):
        question.fail(reason)
    if isinstance(questions, deque):
        questions.clear()


def _disarm(batch: _Batch) -> None:
    if batch.timer is not None:
        batch.timer.cancel()
        batch.timer = None
