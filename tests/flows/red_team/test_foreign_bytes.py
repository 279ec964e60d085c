"""Files that others wrote: what they do to the process that opens them is a refusal in words.

Each test is named after what is tried; the ids in the docstrings are rows of the table in docs/security.md. More of the
same kind: tests/registry/test_border.py, tests/tasks/data/test_archive.py and test_foreign_table.py,
tests/tasks/ensemble/test_model_text.py, tests/tasks/families/pyfunc/test_model.py,
tests/deployments/scorer/test_swap.py.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from esci_tournament.deployments.champion import load_champion
from esci_tournament.flows.intake import take_in
from esci_tournament.registry.errors import StoreError, TournamentError
from esci_tournament.registry.poll import Sighting
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.specs import parse_spec
from esci_tournament.tasks.data import archive
from esci_tournament.tasks.ensemble.aggregate import Aggregator

pytestmark = pytest.mark.slow


def bomb(path: Path) -> None:
    part = pa.table({"query_id": pa.array(np.zeros(4_000_000, np.int64))})
    with parquet.ParquetWriter(path, part.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(part)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def magic(path: Path) -> None:
    path.write_bytes(b"PAR1" + b"\xff" * 4000 + b"\xa0\x0f\0\0PAR1")


@pytest.mark.parametrize(("make", "field"), [(bomb, "trained_queries"), (pipe, "file"), (magic, "trained_queries")])
def test_a_file_that_a_registrant_names_is_refused_once_and_costs_the_watcher_nothing(
    make_world: Any, tmp_path: Path, make: Callable[[Path], None], field: str
) -> None:
    """F4: 40 million rows in 175 kB; a pipe, which nobody writes to; bytes that only look like Parquet."""
    make(tmp_path / "x.parquet")
    world = make_world()
    work = world.workspace
    spec = {
        "name": "evil",
        "family": "scores",
        "file": str(world.files / "weak.parquet"),
        "provenance": "made up by a stranger",
    }
    spec |= {"trained_on": "listed_queries" if field == "trained_queries" else "other_queries"}
    version = work.models.register_candidate(parse_spec(spec | {field: str(tmp_path / "x.parquet")}))
    registered = work.models.tracking.client.get_model_version(version.name, str(version.version))
    queue, sighting = Queue(work.ledger), Sighting(registered, "digest of the tag")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    arrival = take_in(work, queue, sighting)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert arrival.outcome == "refused"
    assert take_in(work, queue, sighting) is None, "once"
    world.entrant("good", "newcomer")


def test_a_champion_whose_aggregator_was_cut_ends_no_process(champion: Any) -> None:
    """F6, F8.1: 66 of 80 damaged texts ended the process that parsed them."""
    work = champion.workspace
    files = list(Path(work.settings.home).rglob("aggregator.txt"))
    assert files
    for file in files:
        os.chmod(file.parent, 0o755)
        file.chmod(0o644)
        content = file.read_bytes()
        for share in (0.1, 0.9, 0.999, 0.5):
            file.write_bytes(content[: int(len(content) * share)])
            with pytest.raises(StoreError, match="aggregator"):
                Aggregator.load(file.parent)
    with pytest.raises(TournamentError):
        load_champion(work)


def test_an_archive_that_ends_the_process_which_unpacks_it_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F3.5, by its kind: what a library cannot bear is met by a process of its own, which has no password."""
    monkeypatch.setattr(archive, "_MEMORY_MIB", 24)
    (tmp_path / "x.zip").write_bytes(b"PK\5\6" + bytes(18))
    with pytest.raises(TournamentError) as told:
        archive.unpack(tmp_path / "x.zip", tmp_path, "x.zip")
    assert told.value.exit_code == 3
