"""Who is let in: a bound on what is under way, and a rate for each key."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.deployments.scorer.admission import Admission, Bucket, Overloaded


@given(st.integers(1, 200), st.lists(st.integers(0, 300)))
def test_no_more_than_the_bound_is_under_way_but_for_one_page_alone(most: int, pages: list[int]) -> None:
    """A page of 0 stands for the oldest page that has its answer."""
    admission, inside = Admission(most), []
    for pairs in pages:
        if not pairs:
            if inside:
                admission.leave(inside.pop(0))
            continue
        if sum(inside) + pairs <= most or not inside:
            admission.enter(pairs)
            inside.append(pairs)
        else:
            with pytest.raises(Overloaded) as refused:
                admission.enter(pairs)
            assert 1 <= refused.value.retry_after_s <= 30
        assert admission.pairs == sum(inside)
        assert admission.crowded == (sum(inside) > most / 2)


def test_who_is_turned_away_is_told_to_wait_as_long_as_what_waits_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    admission = Admission(100)
    admission.enter(100)
    now[0] = 10.0
    admission.leave(20)  # two pairs a second
    with pytest.raises(Overloaded, match="80 pairs wait") as refused:
        admission.enter(50)
    assert refused.value.retry_after_s == 30  # 40 s, but nobody is sent away for longer than half a minute
    admission.leave(60)
    with pytest.raises(Overloaded) as refused:
        admission.enter(90)
    assert refused.value.retry_after_s == 10


def test_a_key_may_send_its_burst_at_once_and_then_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bucket = Bucket(rate=0.5, burst_s=6)
    for _ in range(3):
        bucket.take()
    with pytest.raises(Overloaded, match=r"0\.5 requests a second") as refused:
        bucket.take()
    assert refused.value.retry_after_s == 2
    now[0] += 2
    bucket.take()
    now[0] += 3600  # an hour of silence is worth no more than one burst
    for _ in range(3):
        bucket.take()
    with pytest.raises(Overloaded):
        bucket.take()


def test_the_slowest_key_may_send_one_request() -> None:
    Bucket(rate=0.001, burst_s=1).take()
