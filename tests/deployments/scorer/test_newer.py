"""Which data the champion shall know: its own, or what was named since, as soon as a copy knows it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from esci_tournament.deployments.scorer.champion import Card
from esci_tournament.deployments.scorer.compute.fleet import Fleets
from esci_tournament.deployments.scorer.copies import Copies
from esci_tournament.deployments.scorer.newer import NewerData
from esci_tournament.registry.files import write_atomically
from esci_tournament.registry.live_data import set_live_data
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.subsets import Subsets
from tests.deployments.scorer.conftest import NAMES, constant_ensemble
from tests.harness import until

BASE = Card("esci-ensemble", 1, "t-1", "data", NAMES)


@dataclass
class Served:
    """A home whose champion has been copied, and what follows its data."""

    workspace: Workspace
    copies: Copies
    newer: NewerData
    failures: list[str] = field(default_factory=list)

    def wanted(self, serving: Card | None) -> Card:
        (held,) = self.workspace.ledger.tournaments()
        return self.newer.card_of(BASE, held, serving, self.copies)

    def name(self, data: str, loaded: bool = True) -> None:
        """Have scorers know newer data, as a refresh does."""
        stages = self.workspace.stages
        if loaded:
            stages.obtain(stages.key("load", version=data), lambda folder: (folder / "products.arrow").touch())
        set_live_data(self.workspace.ledger, data)


@pytest.fixture
def served(tmp_path: Path, fitted: tuple[Aggregator, Subsets]) -> Iterator[Served]:
    settings = Settings(home=tmp_path / "home", replicas=0)
    workspace, copies = Workspace(settings), Copies(tmp_path / "copies")
    workspace.ledger.record_data_version("data")
    workspace.ledger.start_tournament("t-1", "data")
    place = copies.folder / "esci-ensemble-1"
    (place / "ensemble").mkdir(parents=True)
    constant_ensemble(place / "ensemble" / "data", fitted, 0)
    for apart in (place / "ensemble").glob("data-*"):
        apart.rename(tmp_path / apart.name)
    write_atomically(place / "card.json", BASE.to_json().encode())
    failures: list[str] = []
    fleets = Fleets(settings, "cpu", tmp_path / "vectors")
    yield Served(workspace, copies, NewerData(workspace, fleets, failures.append), failures)
    workspace.ledger.close()


def test_without_newer_data_the_champion_serves_as_it_came(served: Served) -> None:
    assert served.wanted(None) == served.wanted(BASE) == BASE


def test_it_goes_on_as_it_is_until_a_copy_knows_the_newer_data(served: Served) -> None:
    served.name("newer")
    assert served.wanted(BASE) == BASE
    fresh = until(lambda: served.wanted(BASE) != BASE and served.wanted(BASE), 20, "a copy is there")
    assert fresh == replace(BASE, data_version="newer", refreshed=True)
    assert served.wanted(fresh) == fresh
    assert served.wanted(None) == fresh  # and a process that begins, begins with it
    assert served.failures == []


def test_a_champion_of_another_tournament_comes_before_what_it_shall_know(served: Served) -> None:
    served.name("newer")
    other = replace(BASE, version=2, tournament="t-2")
    assert served.wanted(other) == BASE
    time.sleep(0.1)
    assert served.copies.find(BASE.name, 1, "newer") is None


def test_data_that_is_not_in_this_home_is_told_once_and_the_champion_goes_on(served: Served) -> None:
    served.name("newer", loaded=False)
    assert [served.wanted(BASE) for _ in range(3)] == [BASE] * 3
    assert served.failures == ["data newer is not in this home; refresh it here"]


def test_a_copy_that_does_not_load_is_given_up_and_the_next_data_is_not(served: Served) -> None:
    served.name("newer")
    fresh = until(lambda: served.wanted(BASE) != BASE and served.wanted(BASE), 20, "a copy is there")
    served.newer.give_up(fresh)
    assert served.wanted(BASE) == BASE
    served.name("newest")
    newest = until(lambda: served.wanted(BASE) != BASE and served.wanted(BASE), 20, "the next copy is there")
    assert newest.data_version == "newest"
