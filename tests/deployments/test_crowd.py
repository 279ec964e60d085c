"""Many slow clients whose time is up at the same moment."""

from __future__ import annotations

from types import SimpleNamespace

from esci_tournament.deployments import crowd as crowd_module
from esci_tournament.deployments.crowd import ConnectionLimits, Crowd
from esci_tournament.deployments.room import Waiting
from tests.deployments.test_room import Guest


def test_those_who_are_late_together_are_closed_a_few_at_a_time(monkeypatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(crowd_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    crowd = Crowd(ConnectionLimits(per_address=None))
    due: list[float] = []
    loop = SimpleNamespace(call_later=lambda pause, *_: due.append(now[0] + pause))
    guests = [Guest("192.0.2.1/32", since=now[0], crowd=crowd, loop=loop) for _ in range(900)]
    for number, one in enumerate(guests):
        assert crowd.enter(one)
        if number % 3:
            crowd.move(one, Waiting.BODY)
            one.since = now[0]
    now[0] += crowd.limits.head_s + 1
    begun, most = now[0], 0
    while len(crowd):
        before = len(crowd)
        crowd._sweep(loop)  # type: ignore[arg-type]
        most = max(most, before - len(crowd))
        now[0] = due[-1]
    assert most <= 32, "a thousand answers at once would keep everyone else waiting for a tenth of a second"
    assert now[0] - begun < 1.0
