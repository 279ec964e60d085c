"""Which challengers the judge need not be asked about, because it takes a while: those far from any bound."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from esci_tournament.tasks.ensemble.case import JudgeInput
from esci_tournament.tasks.ensemble.counts import influences, macro_f1

HOPELESS = 0.8  # a gain below this share of the normal bound over queries cannot be promoted: the judge is not asked


def gain_and_error(case: JudgeInput) -> tuple[float, float]:
    """Return the gain in macro F1, and its standard error over queries to first order."""
    assert case.champion is not None  # there is one in every benchmark
    moved = influences(case.challenger)["macro_f1"] - influences(case.champion)["macro_f1"]
    gain = float(macro_f1(case.challenger.sum(axis=0)) - macro_f1(case.champion.sum(axis=0)))
    return gain, float(np.sqrt((moved**2).sum()))


def hopeless(case: JudgeInput, level: float) -> bool:
    """Return whether neither macro F1 nor log loss, where that is known, has gained nearly enough at a level."""
    needed = HOPELESS * float(norm.isf(level))
    gain, error = gain_and_error(case)
    if gain >= needed * error:
        return False
    if case.challenger_loss is None or case.champion_loss is None:
        return True
    losses = case.champion_loss - case.challenger_loss
    return float(losses.sum()) < needed * float(losses.std() * np.sqrt(len(losses)))
