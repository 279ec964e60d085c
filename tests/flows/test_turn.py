"""Tournaments are held one after the other: in a home, and on a device among all homes of a ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from esci_tournament.flows import turn as turns
from esci_tournament.flows.turn import device_lock, turn
from esci_tournament.registry.errors import BusyError
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.workspace import Workspace

MakeWorkspace = Callable[..., Workspace]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeWorkspace]:
    """Return a function that makes a home; all of them share a ledger, and nobody waits long."""
    monkeypatch.setattr(turns, "PATIENCE_S", 0.05)
    made = []

    def make(name: str, **settings: str) -> Workspace:
        ledger = f"sqlite:///{tmp_path / 'ledger.db'}"
        made.append(Workspace(Settings(home=tmp_path / name, ledger_url=ledger, **settings)))
        return made[-1]

    yield make
    for one in made:
        one.ledger.close()


@contextmanager
def held_elsewhere(workspace: Workspace) -> Iterator[None]:
    """Hold a turn in another thread, as another process would hold it."""
    holds, ends = threading.Event(), threading.Event()

    def hold() -> None:
        with turn(workspace, "a tournament of somebody else"):
            holds.set()
            ends.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(30)
    try:
        yield
    finally:
        ends.set()
        thread.join()


def test_both_locks_are_held_while_it_lasts_and_given_back_when_it_fails(workspace: MakeWorkspace) -> None:
    one = workspace("home")
    device = device_lock(one.settings)
    with suppress(KeyError), turn(one):
        assert one.ledger.is_locked(device)
        assert (one.settings.home / "tournament.holder.json").is_file()
        raise KeyError
    assert not one.ledger.is_locked(device)
    assert not (one.settings.home / "tournament.holder.json").exists()


def test_two_homes_of_one_ledger_take_turns_on_a_device(workspace: MakeWorkspace) -> None:
    with held_elsewhere(workspace("first", device="cuda:0")):
        with pytest.raises(BusyError):
            turn(workspace("second", device="cuda:0")).__enter__()
        with turn(workspace("third", device="cuda:1")):
            pass
    with turn(workspace("fourth", device="cuda:0")):
        pass
