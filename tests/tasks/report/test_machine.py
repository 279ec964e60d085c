"""The description of the machine in a report."""

from __future__ import annotations

import json
import os
import platform

import pytest

from esci_tournament.registry.processes import usable_cores
from esci_tournament.tasks.report.machine import describe_machine


def test_the_machine_is_described_by_what_it_says_of_itself() -> None:
    machine = describe_machine("cuda:1")
    assert machine["device"] == "cuda:1"
    assert machine["cores"] == usable_cores()
    assert machine["python"] == platform.python_version()
    assert machine["cpu"]
    assert json.loads(json.dumps(machine)) == machine


def test_memory_is_in_gib() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert describe_machine("cpu")["memory_gib"] == pytest.approx(total / 1024**3, abs=0.06)
