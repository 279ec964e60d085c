"""The clock of a machine is moved an hour, back or forth: nothing is lost, doubled, ended or served too early by it."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from esci_tournament.deployments.stack.logins import LOGIN_S, make_login, take_login
from esci_tournament.deployments.stack.services import Service
from esci_tournament.deployments.stack.state import Process
from esci_tournament.deployments.stack.supervise import Supervisor, Watched
from esci_tournament.flows.dispatch import Dispatcher
from esci_tournament.registry import rows
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.live_data import BEFORE, live_data, named_so_far, set_live_data
from esci_tournament.registry.settings import read_settings
from tests.flows.conftest import say

HOUR = 3600.0
MOVES = pytest.mark.parametrize("moved", [-HOUR, HOUR], ids=["back", "forth"])


class Clock:
    """The clock that people set; what runs since the boot is not touched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moved, real = 0.0, time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.moved)
        monkeypatch.setattr(rows, "now", lambda: dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.moved))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@MOVES
def test_a_promotion_counts_whatever_the_clock_says(champion: Any, clock: Clock, moved: float) -> None:
    """The verdict comes at one time, the approval an hour earlier or later, the next tournament at the first again."""
    second = champion.challenge("t-second", ["good"])
    clock.moved = moved
    say(champion, second)
    assert champion.champion() == 2
    clock.moved = 0.0
    work = champion.workspace
    assert [chapter.promotion.version for chapter in work.ledger.history(work.settings.ensemble_name)] == [1, 2]
    assert work.ledger.pending(work.settings.ensemble_name) == []


@MOVES
def test_a_login_link_is_valid_for_its_ten_minutes(
    tmp_path: Path, clock: Clock, moved: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_login(tmp_path), make_login(tmp_path)
    clock.moved = moved
    assert take_login(tmp_path, first)
    later = time.monotonic() + LOGIN_S + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not take_login(tmp_path, second)


@MOVES
def test_a_process_is_known_again(monkeypatch: pytest.MonkeyPatch, moved: float) -> None:
    """Its start, in seconds since 1970, is derived from the clock as it is when somebody asks."""
    me = psutil.Process()
    process, told = Process.of(me.pid), me.create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: told + moved)
    assert process.is_alive()
    assert not Process(process.pid, process.started, process.since_boot + 1).is_alive()  # the same id, another process


@MOVES
def test_a_service_is_neither_ended_nor_forgotten(tmp_path: Path, clock: Clock, moved: float) -> None:
    asked: list[float] = []

    def health(since: float) -> bool:
        asked.append(since)
        return False

    supervisor = Supervisor(read_settings(home=tmp_path), services=[])
    service = Service(name="mlflow", command=("true",), environment={}, health=health)
    one = Watched(service, tmp_path / "log", healthy=True, looked=0.0, answered=time.monotonic())
    clock.moved = moved
    supervisor._look(one)  # it ends a service that has not answered for hang_timeout_s, and would fail here
    assert len(asked) == 1
    assert abs(asked[0] - (time.time() - supervisor.settings.hang_timeout_s)) < 5


@MOVES
def test_an_attempt_that_failed_is_made_again_in_time(moved: float) -> None:
    dispatcher = SimpleNamespace(workspace=SimpleNamespace(settings=read_settings(retry_s=60.0)))

    def is_time(seconds_ago: float) -> bool:
        ended_at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds_ago)
        last = SimpleNamespace(end="failed", ended_at=ended_at)
        return Dispatcher._is_time(dispatcher, SimpleNamespace(last=last, count=lambda *_: 1))  # type: ignore[arg-type]

    assert not is_time(5)
    assert is_time(5 + moved)


@MOVES
def test_the_newest_data_is_served(tmp_path: Path, clock: Clock, moved: float) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        for digest in ("old", "new", "newest"):
            ledger.record_data_version(digest)
        set_live_data(ledger, "new")
        clock.moved = moved
        ledger.start_tournament("t-1", "old", payload={BEFORE: named_so_far(ledger)})
        (tournament,) = ledger.tournaments()
        assert live_data(ledger, tournament) == "old"
        clock.moved = 0.0
        set_live_data(ledger, "newest")
        assert live_data(ledger, tournament) == "newest"
