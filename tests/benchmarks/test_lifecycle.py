"""The crash test: its parts, and how what they came to adds up. That it runs is seen by running it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import lifecycle
from benchmarks.lifecycle import figures_of, main, parts_of

COUNTS: dict[str, Any] = {
    **{"kills": {"worker, SIGTERM": 5, "flow run, signal 9": 5}, "outages": {"the disk is full": 1}},
    **{"registered": 3, "lost": 0, "late": 0, "twice": 0, "tournaments": 2, "broken attempts": 1, "looks": 50},
    **{"unreachable": 1, "none": 0, "unequal": 0, "decisions": 2, "promotions": 1, "undone": 0, "undecided": 0},
    **{"unknown": 0, "minutes": 1.5},
}


def ran(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[tuple[int, bool]]:
    """Let parts come to these counts, and return the kills and the database of each that is run."""
    calls: list[tuple[int, bool]] = []

    def run(_folder: Path, kills: int, _seconds: float, _seed: int, on_postgres: bool) -> dict[str, Any]:
        calls.append((kills, on_postgres))
        return COUNTS | {"databases": {"postgresql" if on_postgres else "sqlite": kills}} | changes

    monkeypatch.setattr(lifecycle, "run", run)
    return calls


def test_parts_are_run_one_by_one_and_add_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls, results = ran(monkeypatch), tmp_path / "kills.json"
    common = ["--kills", "20", "--results", str(results), "--json"]
    assert main([*common, "--part", "2/2"]) == 1  # ten of twenty
    assert main([*common]) == 0  # the first part; the second is in the file
    assert calls == [(10, True), (10, False)]
    capsys.readouterr()
    assert main([*common]) == 0
    figures = {one["name"]: one["value"] for one in json.loads(capsys.readouterr().out)["figures"]}
    assert (figures["processes ended"], figures["ended: worker, SIGTERM"], figures["candidates registered"]) == (
        20,
        10,
        6,
    )
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["lost", "late", "twice", "none", "unequal", "undone", "undecided", "unknown"])
def test_one_of_them_fails_the_test(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    ran(monkeypatch, **{name: 1})
    assert main(["--kills", "20"]) == 1


def test_every_kill_is_of_one_part() -> None:
    for kills in (20, 100, 999, 1000):
        chosen, parts = parts_of(None, kills)
        assert sum(kills * number // parts - kills * (number - 1) // parts for number in chosen) == kills
    with pytest.raises(SystemExit, match="9/8"):
        parts_of("9/8", 1000)
    assert all(one.met is not False for one in figures_of([COUNTS | {"databases": {}}], 10))
