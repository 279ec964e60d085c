import numpy as np
import pytest

from benchmarks.early_exit import RISKS, leaves, outcome, summarise
from esci_tournament.tasks.ensemble.early_exit import EarlyExit, Level


def log(probabilities: list[list[float]]) -> np.ndarray:
    return np.log(np.maximum(probabilities, 1e-12))


FRESH = [
    log([[0.9, 0.1, 0, 0], [0.4, 0.6, 0, 0], [0.6, 0.4, 0, 0]]),
    log([[0.9, 0.1, 0, 0], [0.2, 0.8, 0, 0], [0.45, 0.55, 0, 0]]),
    log([[0.8, 0.2, 0, 0], [0.7, 0.3, 0, 0], [0.7, 0.3, 0, 0]]),
]
RULE = EarlyExit(("a", "b", "c"), Level(0.01, (2.0, 1.0)))
TRUTH, MILLISECONDS = np.array([0, 0, 0], np.int8), np.array([1.0, 3.0, 6.0])


def test_pairs_leave_where_the_rule_lets_them_and_what_that_saves_is_counted() -> None:
    sure = leaves(RULE, FRESH)
    assert sure.argmax(axis=0).tolist() == [0, 1, 2]
    differ, calls, time, lost = outcome(sure, FRESH, TRUTH, MILLISECONDS)
    assert differ == pytest.approx(1 / 3)  # the second pair leaves with another label than all three members give it
    assert calls == pytest.approx(1 - (1 + 2 + 3) / 9)
    assert time == pytest.approx(1 - (1 + 4 + 10) / 30)
    assert lost > 0


def test_a_world_above_its_risk_is_counted() -> None:
    good, bad = np.array([0.002, 0.3, 0.4, 0.0]), np.array([0.006, 0.3, 0.4, 0.0])
    told = np.array([0.004, 0.004, 1.0, 1.0])
    names = [f"{risk:g}{what}" for risk in (0, *RISKS) for what in ("", " before")]
    results = [
        dict.fromkeys([*names, "naive"], row) | {f"{risk:g} told": told for risk in (0, *RISKS)} for row in (good, bad)
    ]
    figures = {one.name: one for one in summarise(results)}
    assert figures["at 0.5 %: worlds where more labels differ"].value == 0.5
    assert figures["at 0.5 %: worlds where more labels differ"].met is False
    assert figures["at 1 %: worlds where more labels differ"].met is True
    assert figures["at 1 %: worlds where more differ than the bound"].value == 0.5
