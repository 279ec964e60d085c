"""What the stores keep is whole or absent after a power cut at any moment, and there once a call has returned (F2)."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esci_tournament.registry import files
from esci_tournament.registry.database import Database
from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.files import publish, publish_first, write_atomically
from esci_tournament.registry.scores import ScoreStore
from esci_tournament.registry.stages import StageStore
from tests.registry.power_cut import Disk

KEY = ("minilm/3", "d" * 64, "r" * 64)
ROWS = {
    "example_id": np.arange(3),
    "probabilities": np.full((3, 4), 0.25, np.float32),
    "out_of_sample": np.ones(3, bool),
}
WEIGHTS = {"model.safetensors": b"w" * 5000, "graph/edges.npy": b"e" * 300}
OLD, NEW = json.dumps({"keys": ["old"] * 50}).encode(), json.dumps({"keys": ["new"] * 70}).encode()


def make_stage(root: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "graph").mkdir()
        for name, content in WEIGHTS.items():
            (folder / name).write_bytes(content)

    store = StageStore(root / "home" / "stages")
    store.obtain(store.key("train", seed=1), build)


def stage_found(root: Path) -> bool:
    store = StageStore(root / "home" / "stages")
    key = store.key("train", seed=1)
    folder = store.find(key)
    if folder is None:
        return False
    assert {name: (folder / name).read_bytes() for name in WEIGHTS} == WEIGHTS
    assert store.record(key)["inputs"] == {"seed": 1}
    assert store.damaged(key) == ""
    return True


def put_scores(root: Path) -> None:
    ScoreStore(root / "home" / "scores").put(*KEY, **ROWS)


def scores_found(root: Path) -> bool:
    store = ScoreStore(root / "home" / "scores")
    try:
        assert np.array_equal(store.get(*KEY).probabilities, ROWS["probabilities"])
    except NotFoundError:
        assert not store.has(*KEY)
        return False
    return True


def write_keys(root: Path) -> None:
    write_atomically(root / "keys.json", NEW)


def keys_found(root: Path) -> bool:
    content = (root / "keys.json").read_bytes()
    assert content in (OLD, NEW)
    return content == NEW


def make_secret(root: Path) -> None:
    (root / ".secret.1").write_bytes(b"s3cret")
    publish_first(root / ".secret.1", root / "secret")


def secret_found(root: Path) -> bool:
    if not (root / "secret").exists():
        return False
    assert (root / "secret").read_bytes() == b"s3cret"
    return True


def replace_folder(root: Path) -> None:
    made = root / ".making"
    made.mkdir()
    (root / "new").mkdir()  # by somebody who did not wait for the disk
    (made / "products.arrow").write_bytes(b"p" * 100)
    publish(made, root / "new" / "place")


def folder_found(root: Path) -> bool:
    if not (root / "new" / "place").exists():
        return False
    assert (root / "new" / "place" / "products.arrow").read_bytes() == b"p" * 100
    return True


WRITERS = [
    (make_stage, stage_found),
    (put_scores, scores_found),
    (write_keys, keys_found),
    (make_secret, secret_found),
    (replace_folder, folder_found),
]
Writer, Finder = Callable[[Path], None], Callable[[Path], bool]


@pytest.fixture(scope="module", params=WRITERS, ids=lambda one: one[0].__name__)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Disk, Finder]]:
    write, found = request.param
    disk = watched(tmp_path_factory.mktemp("disk"), write)
    yield disk, found
    disk.close()


def watched(root: Path, write: Writer) -> Disk:
    (root / "keys.json").write_bytes(OLD)
    disk = Disk(root)
    with pytest.MonkeyPatch.context() as patch:
        disk.watch(patch)
        write(root)
    return disk


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moment=st.integers(0), seed=st.none() | st.integers(0, 2**32))
def test_after_a_power_cut_all_is_found_or_nothing(
    written: tuple[Disk, Finder], tmp_path_factory: pytest.TempPathFactory, moment: int, seed: int | None
) -> None:
    """F2: at every moment, and whatever of the unsynced has arrived on the disk."""
    disk, found = written
    left = tmp_path_factory.mktemp("left") / "root"
    disk.moments[moment % len(disk.moments)].after_the_cut(left, None if seed is None else random.Random(seed))
    found(left)


def test_what_has_been_told_as_done_is_there_after_a_power_cut(written: tuple[Disk, Finder], tmp_path: Path) -> None:
    """F2: nothing but what was synced has arrived on the disk."""
    disk, found = written
    disk.moments[-1].after_the_cut(tmp_path / "root")
    assert found(tmp_path / "root")


@pytest.mark.parametrize("forgotten", ["_sync_all", "_sync_folder"])
def test_a_forgotten_sync_would_be_noticed(
    forgotten: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The disk of these tests loses what a real one may lose."""
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(files, forgotten, lambda _path: None)
    disk = watched(tmp_path / "disk", make_stage)
    request.addfinalizer(disk.close)

    def survives() -> bool:
        for number in range(400):
            left, chance = tmp_path / f"left-{number}", random.Random(number)
            disk.moments[number % len(disk.moments)].after_the_cut(left, chance)
            try:
                stage_found(left)
            except (AssertionError, OSError, ValueError):
                return False
        disk.moments[-1].after_the_cut(tmp_path / "left")
        return stage_found(tmp_path / "left")

    assert not survives()


def test_a_stage_whose_record_a_power_cut_took_does_not_stand_in_the_way(tmp_path: Path) -> None:
    """F2: as older versions left one, which did not wait for the disk."""
    store = StageStore(tmp_path)
    key = store.key("train", seed=1)
    (tmp_path / key).mkdir()
    (tmp_path / key / "model").write_bytes(b"")
    with store.make(key) as folder:
        (folder / "model").write_bytes(b"weights")
    assert (store.whole(key) / "model").read_bytes() == b"weights"
    assert len(list(tmp_path.glob(".damaged-*"))) == 1


def test_a_commit_of_the_ledger_waits_for_the_disk(ledger_url: str) -> None:
    """F2: whatever the build of SQLite, or the settings of PostgreSQL's server, role or database say."""
    is_postgres = ledger_url.startswith("postgresql")
    url = f"{ledger_url}?options=-csynchronous_commit%3Doff" if is_postgres else ledger_url
    with Database.open(url).writing() as connection:
        if is_postgres:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        else:  # in write-ahead mode NORMAL loses the newest commits at a power cut
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
