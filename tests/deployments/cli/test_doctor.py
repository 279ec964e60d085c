"""`tournament doctor`: settings and checks of this machine."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_doctor_speaks_json(held, tournament):
    doctor = tournament("doctor", "--home", held.home, "--json")
    assert doctor.code == 0, doctor.err
    assert all(row["ok"] for row in doctor.document["checks"])
