"""How often a true gain is promoted, at the first look and at the tenth: by the judge, and by labels alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.harness import Figure, figure
from benchmarks.judging.null_worlds import Run
from benchmarks.judging.readings import Gain, Page, gain_in_labels, gain_of
from esci_tournament.tasks.ensemble.case import JudgeSettings
from esci_tournament.tasks.ensemble.judge import judge
from esci_tournament.tasks.ensemble.spending import History

LOOKS = (1, 10)
# Queries, share of pairs that are answered otherwise, true gain in macro F1
CELLS = (
    (500, 0.18, 0.02),
    (500, 0.18, 0.04),
    (2000, 0.18, 0.01),
    (2000, 0.18, 0.02),
    (2000, 0.3, 0.01),
    (2000, 0.3, 0.02),
    (22_000, 0.3, 0.005),
    (22_000, 0.3, 0.01),
)
IN_LABELS = ((2000, 0.01), (2000, 0.02))
LOW, TWICE, MARGIN = 0.45, 2.0, 0.05  # the targets: twice the power where it is low, nowhere lower by more than that


def figures(seed: int, quick: bool, run: Run) -> list[Figure]:
    """Return the power of each cell at both looks, beside that of labels alone.

    Args:
        seed: of all worlds.
        quick: few repeats, and no large sizes.
        run: maps a function over numbers, in processes.
    """
    found = []
    cells = [(queries, gain_of(points, differ), f"{differ:.0%} of answers differ, gain of {100 * points:g} points")
             for queries, differ, points in CELLS if not quick or queries < 2000]  # fmt: skip
    cells += [(queries, gain_in_labels(points), f"better offsets alone, gain of {100 * points:g} points")
              for queries, points in IN_LABELS if not quick]  # fmt: skip
    for queries, gain, name in cells:
        repeats = 8 if quick else 200 if queries <= 2000 else 100
        what = f"{queries:,} queries, {name}"
        results = np.array(run(partial(verdicts, seed, queries, gain), range(repeats), what)).mean(axis=0)
        for place, look in enumerate(LOOKS):
            ours, labels = results[2 * place : 2 * place + 2]
            low = look == LOOKS[-1] and labels < LOW
            target = min(TWICE * labels, 1.0) if low else labels - MARGIN
            found.append(
                figure(f"{what}: promoted at look {look}", ours, "share", f">= {target:.3f}", "labels alone", labels)
            )
    return found


def verdicts(seed: int, queries: int, gain: Gain, number: int) -> tuple[bool, ...]:
    """Return whether one challenger is promoted, at each look by the judge and by labels alone."""
    page = Page(np.random.default_rng([seed, 11, queries, number, int(1e6 * gain.signal)]), queries)
    case = page.case(*page.both(gain), History(), gain.offsets)
    blind = replace(case, challenger_loss=None, champion_loss=None)
    settings = JudgeSettings(threads=1, seed=number)
    return tuple(
        judge(replace(one, before=History(look - 1)), settings).outcome == "promote"
        for look in LOOKS
        for one in (case, blind)
    )
