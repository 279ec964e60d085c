"""Where replicas come from: without processes of their own, all of them compute in this one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esci_tournament.deployments.scorer.catalogue import Text
from esci_tournament.deployments.scorer.compute.fleet import Fleets, LocalFleet
from esci_tournament.deployments.scorer.compute.pairs import Pairs
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.subsets import Subsets
from tests.deployments.scorer.conftest import NAMES, Hashed, constant_ensemble

PAGE = Pairs("lamp", "us", [Text(f"P{row}", f"lamp {row}", "", "", "", "") for row in range(3)])


def test_with_no_replicas_set_the_members_are_loaded_and_answer_in_this_process(
    fitted: tuple[Aggregator, Subsets], tmp_path: Path
) -> None:
    folder = constant_ensemble(tmp_path / "ensemble", fitted, 0)
    fleets = Fleets(Settings(replicas=0), "cpu", tmp_path / "vectors")
    fleets.start()
    fleet = fleets.fleet(folder, None, "data", {})
    assert isinstance(fleet, LocalFleet)
    assert (list(fleet.candidates), fleet.devices, fleet.size) == (list(NAMES), ["cpu"], 1)

    async def ask() -> Any:
        replica = await fleet.replica(lambda *_: None)
        come = asyncio.get_running_loop().create_future()
        replica.send(NAMES[0], [(PAGE, 0, 3)], lambda answers, seconds: come.set_result(answers))
        return await asyncio.wait_for(come, 10)

    (answer,) = asyncio.run(ask())
    np.testing.assert_array_equal(answer, fleet.candidates[NAMES[0]].predict_proba(*PAGE.frames))
    fleets.close()


def test_vectors_are_computed_by_the_members_of_the_fleet_outside_the_event_loop() -> None:
    members: dict[str, Any] = {"alpha/1": Hashed("a")}
    given: list[Any] = []

    def embed(candidates: dict[str, Any]) -> dict[str, int]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        given.append(candidates)
        return {"alpha/1": 300}

    assert asyncio.run(LocalFleet(members, 1, 1, 100, embed).embed()) == {"alpha/1": 300}
    assert given == [members]
