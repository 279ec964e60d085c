"""The circuit breaker: who fails or hangs is fenced off, and tried again from time to time."""

from __future__ import annotations

import time

from esci_tournament.deployments.scorer.compute.breaker import Breaker


def test_a_fenced_member_is_tried_by_one_request_only():
    breaker = Breaker(failures=1, retry_s=0.05)
    breaker.failed("once")
    assert not breaker.admits()
    time.sleep(0.06)
    assert [breaker.admits() for _ in range(3)] == [True, False, False]


def test_only_failures_in_a_row_fence_and_the_one_that_fences_is_told():
    breaker = Breaker(failures=2, retry_s=60)
    assert not breaker.failed("once")
    breaker.succeeded()
    assert not breaker.failed("once more")
    assert breaker.failed("twice in a row")
    assert (breaker.fenced, breaker.admits(), breaker.reason) == (True, False, "twice in a row")
    breaker.succeeded()
    assert (breaker.fenced, breaker.admits(), breaker.reason) == (False, True, "")


def test_one_that_hangs_is_not_tried_before_its_call_has_returned():
    breaker = Breaker(failures=3, retry_s=0)
    breaker.hangs("no answer for 30 s")
    assert not breaker.admits()
    breaker.returned()
    assert breaker.fenced
    assert breaker.admits()
    breaker.succeeded()
    assert not breaker.fenced
