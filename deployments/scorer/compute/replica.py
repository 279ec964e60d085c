"""A replica: all members of a champion in one place, which computes a few batches at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

import numpy as np

from esci_tournament.deployments.scorer.compute.pairs import NotAnswered, Pairs, frames_of
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.families.protocol import Candidate

Slice = tuple[Pairs, int, int]  # pairs of a request, from a row to before another
Answer = np.ndarray | NotAnswered  # float32 (n, 4) for the n pairs of a slice, or why there is none
Done = Callable[[list[Answer], float], None]


class Replica(Protocol):
    """What the dispatcher gives batches to; used in the event loop's thread.

    Attributes:
        slots: batches that it computes at once. alive: whether it can.
    """

    slots: int

    @property
    def alive(self) -> bool: ...

    def send(self, member: str, slices: Sequence[Slice], done: Done) -> None:
        """Compute a batch; `done` is called in the event loop with an answer for each slice and the seconds it took."""

    def give_up(self) -> bool:
        """Stop what it computes because it takes too long; return whether that was possible: else it may come yet."""

    def end(self) -> None:
        """Compute nothing more."""


Ended = Callable[[Replica, str], None]  # called with a replica that is gone, and why


class LocalReplica:
    """The members in this process, computing in threads.

    Args:
        candidates: candidate id -> fitted model. slots: batches computed at once. threads: of torch, for each of them.
        most_pairs: that a model is given at once.
    """

    alive = True

    def __init__(self, candidates: Mapping[str, Candidate], slots: int, threads: int, most_pairs: int) -> None:
        self.candidates, self.slots, self._most_pairs = dict(candidates), slots, most_pairs
        # A call that hangs keeps its thread, and its slot is given to another
        self._pool = ThreadPoolExecutor(slots + len(self.candidates), "member", _set_threads, (threads,))

    def send(self, member: str, slices: Sequence[Slice], done: Done) -> None:
        loop = asyncio.get_running_loop()
        candidate = self.candidates[member]

        def work() -> None:
            begun = time.monotonic()
            answers = answers_of(candidate, [pairs.between(*rows) for pairs, *rows in slices], self._most_pairs)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done, answers, time.monotonic() - begun)

        self._pool.submit(work)

    def give_up(self) -> bool:
        return False

    def end(self) -> None:
        self.candidates = {}
        self._pool.shutdown(wait=False, cancel_futures=True)


def answers_of(candidate: Candidate, parts: Sequence[Pairs], most_pairs: int) -> list[Answer]:
    """Return a model's answer for each part, computed together; when that fails each is asked alone."""
    try:
        scores = scores_of(candidate, parts, most_pairs)
    except NotAnswered as error:
        if len(parts) > 1:
            return [answer for part in parts for answer in answers_of(candidate, [part], most_pairs)]
        return [error]
    bounds = np.cumsum([len(part) for part in parts])[:-1]
    return list(np.split(scores, bounds))


def scores_of(candidate: Candidate, parts: Sequence[Pairs], most_pairs: int) -> np.ndarray:
    """Return probabilities, float32 (pairs, 4), computed in this thread, at most `most_pairs` at a time.

    Raises:
        NotAnswered: if the model fails, or its answer is no array of finite numbers of that shape.
    """
    pairs, products = parts[0].frames if len(parts) == 1 else frames_of(parts)
    try:
        answers = [
            candidate.predict_proba(pairs.iloc[start : start + most_pairs], products)
            if len(pairs) > most_pairs
            else candidate.predict_proba(pairs, products)
            for start in range(0, len(pairs), most_pairs)
        ]
        answer = answers[0] if len(answers) == 1 else np.concatenate(answers)
    except Exception as error:  # whatever a model raises, it is the model that fails and not the scorer
        raise NotAnswered(f"{type(error).__name__}: {error}"[:500]) from error
    if answer.shape != (len(pairs), len(LABELS)) or not np.isfinite(answer).all():
        raise NotAnswered(f"its answer for {len(pairs)} pairs has shape {answer.shape} or is not finite")
    return np.asarray(answer, dtype=np.float32)


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
