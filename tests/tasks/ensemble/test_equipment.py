from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import LeakError
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.budget import Cost
from esci_tournament.tasks.ensemble.early_exit import EarlyExit
from esci_tournament.tasks.ensemble.equipment import SUBSETS, copy_equipment, exit_order, make_equipment
from esci_tournament.tasks.ensemble.exit_calibration import set_aside
from esci_tournament.tasks.ensemble.fitting import fit_aggregator
from esci_tournament.tasks.ensemble.scores import MemberScores
from esci_tournament.tasks.ensemble.subsets import Subsets

NAMES = ("plain/1", "other/1", "copy/1")
WORTH = {"members": [{"member": name, "utility": worth} for name, worth in zip(NAMES, (0.5, 0.3, 0.2), strict=True)]}
COSTS = {"plain/1": Cost(10, 20), "other/1": Cost(10, 3), "copy/1": Cost(10, 2)}


def test_members_are_asked_by_worth_a_millisecond() -> None:
    assert exit_order(NAMES, WORTH, COSTS) == ("copy/1", "other/1", "plain/1")  # equals by name
    free = COSTS | {"plain/1": Cost(10, 0)}
    assert exit_order(NAMES, WORTH, free)[0] == "plain/1"
    known = {name: COSTS[name] for name in NAMES[:2]}
    assert exit_order(NAMES, WORTH, known) == ("other/1", "plain/1", "copy/1")


def test_the_folder_serves_what_the_settings_ask_for(tmp_path: Path) -> None:
    world = make_world(1, rows=2000, members=3, kinds=("plain", "plain", "duplicate"))
    parameters = AggregatorParameters(maximum_rounds=15, threads=1)
    aggregator = fit_aggregator(world.columns, world.labels, world.groups, NAMES, parameters)
    ids = np.random.default_rng(0).permutation(2000).astype(np.int64)
    pairs = pd.DataFrame({"example_id": ids, "label": world.labels, "query_key": world.groups})
    known = np.ones(2000, dtype=bool)
    scores = [MemberScores(name, ids, world.columns[:, place], known) for place, name in enumerate(NAMES)]
    settings = Settings(home=tmp_path / "home", subsets_limit=4, early_exit_risk=0.02)
    made = tmp_path / "made"
    made.mkdir()
    make_equipment(made, pairs, scores, aggregator, WORTH, COSTS, settings)
    (made / "stage.json").write_text("{}", encoding="utf-8")
    (tmp_path / "ensemble").mkdir()
    copy_equipment(made, tmp_path / "ensemble")
    assert not (tmp_path / "ensemble" / "stage.json").exists()

    subsets, rule = Subsets.load(tmp_path / "ensemble" / SUBSETS), EarlyExit.load(tmp_path / "ensemble")
    assert rule.order == ("copy/1", "other/1", "plain/1")
    assert (rule.pairs, rule.metric) == ((~set_aside(world.groups)).sum(), settings.primary_metric)
    assert max(level.risk for level in rule.levels) == 0.02
    for count in (1, 2, 3):
        assert set(subsets.best(rule.order[:count])[1]) == set(rule.order[:count])

    leaked = [MemberScores(one.member, ids, one.probabilities, ~known) for one in scores]
    with pytest.raises(LeakError):
        make_equipment(tmp_path / "other", pairs, leaked, aggregator, WORTH, COSTS, settings)
