"""Progress of a tournament: from 0 to 1, never decreasing."""

from __future__ import annotations

from pathlib import Path

import pytest

from esci_tournament.tasks.report.progress import (
    WEIGHTS,
    Told,
    forget_progress,
    overall,
    read_progress,
    write_progress,
)


def test_it_grows_with_every_stage_and_ends_at_the_whole() -> None:
    shares = {"sage/1": 0.0, "bert/1": 0.0}
    seen = [overall({}), overall(shares)]
    for name in ("fetch", *WEIGHTS, "sage/1", "bert/1", "drift", "register the challenger"):
        shares[name] = 1.0
        seen.append(overall(shares))
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, pytest.approx(1.0))


def test_training_is_shared_by_all_who_enter() -> None:
    before = {"load": 1.0}
    trained = 1.0 - sum(WEIGHTS.values()) / 100
    assert overall(before | {"sage/1": 1.0, "bert/1": 0.0}) - overall(before) == pytest.approx(trained / 2)


def test_a_run_tells_until_it_ends(tmp_path: Path) -> None:
    assert read_progress(tmp_path, "run") is None
    told = Told(0.25, "sage/1: epoch 1", {"sage/1": (0.5, "epoch 1")})
    write_progress(tmp_path, "run", told)
    assert read_progress(tmp_path, "run") == told
    (tmp_path / "old.json").write_text('{"share": 0.5, "doing": "as an older release wrote it"}')
    assert read_progress(tmp_path, "old") == Told(0.5, "as an older release wrote it")
    forget_progress(tmp_path, "run")
    forget_progress(tmp_path, "run")
    assert read_progress(tmp_path, "run") is None
