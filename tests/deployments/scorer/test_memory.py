"""Memory that a large page has used goes back to the operating system."""

from __future__ import annotations

import platform
import time

import psutil
import pytest

from esci_tournament.deployments.scorer import memory
from esci_tournament.deployments.scorer.memory import LARGE_BYTES, Trimmer, trim


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries return memory by themselves, or never")
def test_free_memory_of_the_heap_is_returned() -> None:
    blocks = [bytearray(50_000) for _ in range(4000)]
    between = blocks[::50]  # so that the heap cannot shrink from its end
    del blocks
    before = psutil.Process().memory_info().rss
    assert trim()
    assert before - psutil.Process().memory_info().rss > 50 * 2**20
    assert len(between) == 80


def test_only_large_pages_lead_to_it_and_many_at_once_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    monkeypatch.setattr(memory, "_PAUSE_S", 0.05)
    monkeypatch.setattr(memory, "trim", lambda: calls.append(time.monotonic()))
    trimmer = Trimmer()
    trimmer.after(LARGE_BYTES - 1)
    time.sleep(0.2)
    assert not calls
    for _ in range(20):
        trimmer.after(LARGE_BYTES)
    time.sleep(0.3)
    assert len(calls) == 1
    trimmer.after(LARGE_BYTES)
    time.sleep(0.3)
    assert len(calls) == 2
