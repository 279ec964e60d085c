"""What is asked of a champion's members, and who waits for which of them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from esci_tournament.deployments.scorer.compute.breaker import Breaker
from esci_tournament.deployments.scorer.compute.pairs import NotAnswered, Pairs
from esci_tournament.deployments.scorer.compute.replica import Answer
from esci_tournament.registry.labels import LABELS

_SMOOTHING = 0.2  # weight of the newest batch in a member's seconds a pair


@dataclass(eq=False)
class Question:
    """What is asked of one member: the scores of some pairs.

    Attributes:
        member: candidate id. pairs: of one request. order: of its page among all.
        answer: float32 (len(pairs), 4), or why there is none; a result, never an exception.
        todo: rows that no replica has been given yet. deaths: replicas that died with it.
    """

    member: str
    pairs: Pairs
    order: int
    answer: asyncio.Future[Answer]
    todo: deque[tuple[int, int]]
    dropped: bool = False
    deaths: int = 0
    _scores: np.ndarray = field(init=False)
    _left: int = field(init=False)

    def __post_init__(self) -> None:
        self._scores, self._left = np.empty((len(self.pairs), len(LABELS)), dtype=np.float32), len(self.pairs)

    @property
    def done(self) -> bool:
        return self.answer.done()

    @property
    def scores(self) -> np.ndarray | None:
        """The answer, if there is one."""
        found = self.answer.result() if self.answer.done() else None
        return found if isinstance(found, np.ndarray) else None

    @property
    def waiting(self) -> int:
        """Pairs that wait for a replica."""
        return 0 if self.dropped else sum(stop - start for start, stop in self.todo)

    def drop(self) -> None:
        """Let go of what no replica was given yet: nobody needs the answer any more."""
        self.dropped = True

    def fill(self, start: int, stop: int, scores: np.ndarray) -> None:
        """Take scores of some rows; the last of them is the answer."""
        self._scores[start:stop] = scores
        self._left -= stop - start
        if not self._left:
            self._say(self._scores)

    def fail(self, reason: NotAnswered) -> None:
        """Say that there is no answer."""
        self.drop()
        self._say(reason)

    def _say(self, answer: Answer) -> None:
        # Whoever asked may be gone, and the loop with it
        if not self.answer.done() and not self.answer.get_loop().is_closed():
            self.answer.set_result(answer)


@dataclass
class Member:
    """A member of the champion: who waits for it, and how it has been doing."""

    name: str
    breaker: Breaker
    queue: deque[Question] = field(default_factory=deque)
    seconds_a_pair: float | None = None

    @property
    def waiting(self) -> int:
        """Pairs that wait for a replica."""
        return sum(question.waiting for question in self.queue)

    @property
    def expected_seconds(self) -> float:
        """Time that what waits will take a replica, as far as is known."""
        return self.seconds_for(self.waiting)

    def seconds_for(self, pairs: int) -> float:
        """Return the time that some pairs will take a replica, as far as is known; 0 before the first batch."""
        return (self.seconds_a_pair or 0.0) * pairs

    def learn(self, seconds: float, pairs: int) -> None:
        """Take note of a batch's time."""
        newest = seconds / max(pairs, 1)
        known = self.seconds_a_pair
        self.seconds_a_pair = newest if known is None else known + _SMOOTHING * (newest - known)
