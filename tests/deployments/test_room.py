"""Who is closed to make room: laws over random histories, and floods beside honest clients."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.deployments import room as room_module
from esci_tournament.deployments.crowd import ConnectionLimits, Crowd
from esci_tournament.deployments.room import Waiting


@dataclass(eq=False)
class Guest:
    """A connection that only counts, at a clock of its own."""

    address: str
    waiting: Waiting = Waiting.HEAD
    since: float = 0.0
    taken: int = 0
    paused: bool = False
    crowd: Crowd | None = None
    closed: bool = False
    loop: asyncio.AbstractEventLoop = field(default_factory=lambda: _Loop())  # type: ignore[arg-type]
    transport: asyncio.Transport = field(default_factory=asyncio.Transport)

    def drop(self) -> None:
        assert self.crowd is not None
        assert self.waiting is not Waiting.BUSY
        self.crowd.leave(self)
        self.closed = True

    expire = drop


class _Loop:
    def call_later(self, *arguments: object) -> object:
        return arguments


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    own = Clock()
    monkeypatch.setattr(room_module, "time", own)
    return own


def crowd_of(connections: int = 1000, per_address: int | None = 500) -> Crowd:
    return Crowd(ConnectionLimits(connections=connections, per_address=per_address))


def come(crowd: Crowd, clock: Clock, address: str, kind: Waiting = Waiting.HEAD, taken: int = 0) -> Guest:
    one = Guest(address, since=clock.now, crowd=crowd)
    assert crowd.enter(one), "everyone is let in while one may be closed"
    if kind is not Waiting.HEAD:
        crowd.move(one, kind)
    one.taken = taken
    return one


@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "move", "leave"]), st.integers(0, 30), st.integers(0, 4)), max_size=150
    )
)
def test_limits_hold_and_nothing_is_left_over(steps) -> None:
    crowd = crowd_of(connections=16, per_address=6)
    guests: list[Guest] = []
    for step, number, kind in steps:
        inside = [one for one in guests if not one.closed]
        if step == "enter":
            one = Guest(f"10.0.0.{number % 5}/32", crowd=crowd)
            own = [other for other in inside if other.address == one.address]
            possible = [other for other in inside if other.waiting is not Waiting.BUSY]
            taken = crowd.enter(one)
            one.closed = not taken
            if len(own) < 6 and (len(inside) < 16 or possible):
                assert taken
            guests.append(one)
        elif inside and step == "move":
            crowd.move(inside[number % len(inside)], Waiting(kind))
        elif inside:
            inside[number % len(inside)].drop() if inside[number % len(inside)].waiting is not Waiting.BUSY else None
        inside = [one for one in guests if not one.closed]
        assert len(crowd) == len(inside) <= 16 + crowd.limits.reserve
        counts = {one.address: sum(other.address == one.address for other in inside) for one in inside}
        assert all(crowd.room.of(address) == count <= 6 for address, count in counts.items())
    for one in guests:
        crowd.leave(one)
    assert [len(crowd.room._queues), *map(len, crowd.room._crowds.values())] == [1, 0, 0]
    assert all(ranking.first is None for ranking in crowd.room._crowds.values())


@pytest.mark.parametrize("kind", [Waiting.LINGER, Waiting.HEAD, Waiting.BODY, Waiting.IDLE])
@pytest.mark.parametrize("places", [1, 3, 5000], ids=["one place", "three places", "a place each"])
@pytest.mark.parametrize("apart", [True, False], ids=["another address", "the same address"])
def test_a_client_is_heard_and_its_connections_are_kept_in_a_flood(clock, kind, places, apart) -> None:
    """2,000 connections a second from attackers, whatever they leave unfinished; a page takes a client 100 ms.

    Bodies younger than two seconds could not be closed: a house full of them was deaf, and closed unused connections.
    """
    crowd = crowd_of()
    client = "192.0.2.1/32" if apart else "10.0.0.0/32"
    unused = [come(crowd, clock, client, Waiting.IDLE) for _ in range(8)]
    upload = come(crowd, clock, client, Waiting.BODY)
    page = come(crowd, clock, client)
    for number in range(2600):
        clock.now += 0.0005
        come(crowd, clock, f"10.0.{number % places // 250}.{number % places % 250}/32", kind, 1 + number % 500)
        upload.taken += 100  # 200 kB a second
        if number % 100 == 50:  # after 25 ms of the header 175 of the body, which is short
            assert not page.closed
            crowd.move(page, Waiting.BODY)
        if number % 200 == 199:
            assert not page.closed, f"after {number} connections"
            page.drop()
            page = come(crowd, clock, client)
        for one in unused[number % 8 :: 8] if number % 100 == 0 else ():
            crowd.move(one, Waiting.IDLE)  # used again: each within 400 ms
    assert not upload.closed
    if kind is not Waiting.IDLE:  # else their turn comes, as that of the others
        assert not any(one.closed for one in unused)
    assert len(crowd) <= 1000


def test_a_flood_of_bodies_that_make_some_progress_does_not_hold_the_house(clock) -> None:
    """Just above the least rate, or 20 kB at once and then nothing."""
    for rate, first in ((1100, 0), (0, 20_000)):
        crowd = crowd_of(per_address=None)
        upload = come(crowd, clock, "192.0.2.1/32", Waiting.BODY)
        flood: list[Guest] = []
        for number in range(4000):
            clock.now += 0.0005
            flood.append(come(crowd, clock, f"10.0.0.{number % 200}/32", Waiting.BODY, first))
            upload.taken += 100
            if number % 100 == 0:
                for one in flood:
                    one.taken += rate // 20
        assert not upload.closed
        assert len(crowd) == 1000


def test_what_the_server_itself_holds_up_is_not_closed(clock) -> None:
    crowd = crowd_of(connections=16, per_address=None)
    paused = [come(crowd, clock, "192.0.2.1/32", Waiting.BODY) for _ in range(10)]
    for one in paused:
        one.paused = True
    busy = [come(crowd, clock, "192.0.2.1/32", Waiting.BUSY) for _ in range(5)]
    for _ in range(100):
        clock.now += 1.0
        come(crowd, clock, "192.0.2.1/32")
    assert not any(one.closed for one in (*paused, *busy))


def test_a_new_connection_goes_before_one_that_nobody_has_used_for_long(clock) -> None:
    crowd = crowd_of(connections=16, per_address=None)
    unused = [come(crowd, clock, "192.0.2.1/32", Waiting.IDLE) for _ in range(15)]
    clock.now += 60
    new = come(crowd, clock, "192.0.2.2/32")
    clock.now += 0.1
    come(crowd, clock, "192.0.2.3/32")
    assert not new.closed
    assert sum(one.closed for one in unused) == 1
