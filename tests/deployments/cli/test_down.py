"""`tournament down`. That it stops servers is tested in `test_lifecycle.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_down_with_nothing_running_says_so(tournament: Any, tmp_path: Path) -> None:
    answer = tournament("down", "--home", tmp_path, "--json")
    assert (answer.code, answer.document["ended"]) == (0, [])
    assert "nothing runs" in answer.err
