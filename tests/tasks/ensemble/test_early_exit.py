from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from esci_tournament.registry.errors import NotFoundError, StoreError, UsageError
from esci_tournament.tasks.ensemble.early_exit import FILE, EarlyExit, Level, margins, never, too_few

LEVELS = (Level(0.001, (None, 3.0), bound=0.001), Level(0.005, (4.0, 2.0), bound=0.005, exits=(0.2, 0.3, 0.5)))
RULE = EarlyExit(("b/1", "a/1", "c/1"), LEVELS[1], LEVELS, pairs=5000, queries=200)
SCORES = np.log([[0.97, 0.01, 0.01, 0.01], [0.7, 0.1, 0.1, 0.1], [0.3, 0.3, 0.2, 0.2]])


def test_the_margin_is_the_logarithm_of_the_two_largest() -> None:
    assert margins(SCORES) == pytest.approx([np.log(97), np.log(7), 0], abs=1e-5)
    assert margins(np.array([[0.0, -np.inf, -30.0, -np.inf]])) == pytest.approx([30])
    assert margins(np.zeros((0, 4))).shape == (0,)


def test_a_label_stands_from_the_threshold_of_its_stage_on() -> None:
    assert RULE.sure(1, SCORES).tolist() == [True, False, False]
    assert RULE.sure(2, np.log([[0.9, 0.1, 1e-9, 1e-9], [0.7, 0.3, 1e-9, 1e-9]])).tolist() == [True, False]
    assert RULE.at(0.001).sure(1, SCORES).tolist() == [False] * 3
    assert RULE.sure(3, SCORES).tolist() == [True] * 3
    for stage in (0, 4):
        with pytest.raises(UsageError, match="stage"):
            RULE.sure(stage, SCORES)


def test_the_largest_risk_that_was_calibrated_and_allowed_is_taken() -> None:
    assert [RULE.at(risk).level.risk for risk in (0.001, 0.004, 0.005, 0.3)] == [0.001, 0.001, 0.005, 0.005]
    off = RULE.at(0)
    assert not off.on
    assert off.reason.startswith("the risk is set to 0")
    assert not off.sure(2, SCORES).any()
    assert not RULE.at(0.0005).on
    assert RULE.at(0.0005).reason.startswith("no threshold was shown to change at most 0.05 %")


def test_why_a_risk_has_no_rule_is_known_of_each() -> None:
    few = replace(never(RULE.order, 0.001), reason=too_few(0.001, 1000, 0.002, 4000))
    rule = replace(RULE, levels=(few, LEVELS[1]))
    assert rule.at(0.004).reason == few.reason
    assert rule.at(0.005).reason == ""
    assert rule.at(0).reason.startswith("the risk is set to 0")
    one = EarlyExit(("only/1",), never(("only/1",)), reason="the ensemble has one member")
    assert one.at(0.005).reason == one.reason


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    RULE.save(tmp_path)
    assert EarlyExit.load(tmp_path) == RULE
    assert EarlyExit.load(tmp_path, risk=0.002) == RULE.at(0.002)


def test_a_file_of_an_earlier_release_is_read_with_what_it_tells(tmp_path: Path) -> None:
    facts = json.loads(json.dumps(RULE.to_json()))
    for level in (facts["level"], *facts["levels"]):
        del level["reason"]
    (tmp_path / FILE).write_text(json.dumps(facts), encoding="utf-8")
    assert EarlyExit.load(tmp_path) == RULE
    told = "100 pairs of 9 queries cannot show that at most 0.5 % of labels change"
    off = facts | {"reason": told, "level": facts["level"] | {"thresholds": [None, None]}, "levels": []}
    (tmp_path / FILE).write_text(json.dumps(off), encoding="utf-8")
    assert EarlyExit.load(tmp_path, risk=0.005).reason == told


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"order": ["a"]}'])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    (tmp_path / FILE).write_text(damage, encoding="utf-8")
    with pytest.raises(StoreError, match=FILE):
        EarlyExit.load(tmp_path)


def test_thresholds_for_other_members_are_refused(tmp_path: Path) -> None:
    content = RULE.to_json() | {"order": ["b/1", "a/1"]}
    (tmp_path / FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(StoreError, match="2 thresholds for 2 members"):
        EarlyExit.load(tmp_path)


def test_an_ensemble_of_earlier_versions_has_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="made without early exit"):
        EarlyExit.load(tmp_path)


def test_one_member_has_no_stage_to_leave_at() -> None:
    rule = EarlyExit(("only/1",), never(("only/1",)))
    assert not rule.on
    assert rule.sure(1, SCORES).all()
