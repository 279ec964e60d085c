"""The log of a candidate: what is done with it, line by line, between what its own code prints."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path

from esci_tournament.tasks.candidates.steps import CandidateInputs

BETWEEN_S = 2.0  # seconds between two lines of progress


class TrainingLog:
    """Appends lines to a file that the candidate's process appends to as well.

    Args:
        path: The file; it and its folder are made when missing.
        clock: Returns seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock = path, clock
        self._last, self._at = "", -BETWEEN_S
        path.parent.mkdir(parents=True, exist_ok=True)

    def begin(self, inputs: CandidateInputs, tournament: str, threads: int) -> None:
        """Write what is trained, on what, and where.

        Args:
            inputs: The candidate and all that its model follows from.
            tournament: Id of the tournament.
            threads: Threads of its process.
        """
        what = "scored with the model it has" if inputs.fitted else "trained and scored"
        self.say(
            f"{inputs.candidate} is {what} in tournament {tournament}: data {inputs.data_version[:12]}, "
            f"seed {inputs.seed}, on {inputs.device}, threads {threads}"
        )
        self.say(f"spec: {inputs.spec.model_dump_json(exclude_none=True)}")

    def progress(self, share: float, doing: str) -> None:
        """Write a line when something else is being done, at most every few seconds.

        Args:
            share: Share done, in [0, 1].
            doing: What is being done.
        """
        now = self._clock()
        if doing != self._last and (now - self._at >= BETWEEN_S or share >= 1.0):
            self._last, self._at = doing, now
            self.say(f"{share:.0%} {doing}")

    def say(self, words: str) -> None:
        """Write a line with the moment in front of it (UTC)."""
        line = " ".join(words.split())
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S} {line}\n")
