"""When the crash test ends the next process: storms, in which nothing gets far, and lulls, in which work goes on."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

STORM, STORM_GAP_S = 30, (0.1, 0.5)  # kills, and seconds between two of them
LULL_S, LULL_GAP_S = 100.0, (6.0, 20.0)  # seconds at most, it ends when a tournament has; between two of its kills


@dataclass
class Rhythm:
    """Lulls and storms in turn, a lull first, so that a number of kills is done by a moment.

    A lull in which no tournament ends takes half of the time that is left for lulls: on a slow machine too a tournament
    comes to its end. All moments are seconds of one clock.

    Attributes:
        kills: How many are to be done.
        start: Moment of the first lull.
        end: Moment by which all are done. When they are not, the storm lasts until they are.
        chance: Draws the time between two kills.
        done: How many were done.
    """

    kills: int
    start: float
    end: float
    chance: random.Random
    done: int = 0
    _in_storm: int = 0  # kills left of the storm; 0 in a lull
    _lull_ends: float = 0.0
    _tournaments: int = 0
    _next: float = field(default=0.0)

    def __post_init__(self) -> None:
        self._calm(self.start)

    @property
    def is_calm(self) -> bool:
        """Whether it is a lull."""
        return not self._in_storm

    def is_time(self, now: float, tournaments: int) -> bool:
        """Tell whether a process is to be ended now.

        Args:
            now: The moment.
            tournaments: How many have ended by now; one more ends a lull.
        """
        if self.done >= self.kills:
            return False
        if not self._in_storm and (now >= self._lull_ends or tournaments > self._tournaments):
            self._in_storm, self._next = STORM, now
        self._tournaments = max(self._tournaments, tournaments)
        return now >= self._next

    def killed(self, now: float, one: bool) -> bool:
        """Take note of a kill, and draw the moment of the next.

        Args:
            now: The moment.
            one: Whether there was a process to end; if not, another is tried.

        Returns:
            Whether a lull begins.
        """
        self.done += one
        if self._in_storm and one:
            self._in_storm -= 1
            if not self._in_storm and now < self.end:
                self._calm(now)
                return True
            self._in_storm = max(1, self._in_storm)
        self._next = now + self.chance.uniform(*(STORM_GAP_S if self._in_storm else LULL_GAP_S))
        return False

    def _calm(self, now: float) -> None:
        left = self.kills - self.done
        free = self.end - now - left * sum(STORM_GAP_S) / 2
        self._in_storm = 0
        self._lull_ends = now + min(LULL_S, max(0.0, free) / 2)
        self._next = now + self.chance.uniform(*LULL_GAP_S)
