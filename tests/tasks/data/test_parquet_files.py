"""A folder of part files is one file; what is no parquet file is told by what it is."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.layout import EVENTS_FILE, EXAMPLES_FILE, PRODUCTS_FILE
from esci_tournament.tasks.data.load import load_esci, structural_problems
from esci_tournament.tasks.data.parquet_files import bytes_of, opened, parts_of, stamp_of
from esci_tournament.tasks.data.rule_frames import columns_found, unread_files


def in_parts(source: Path, folder: Path, sizes: int = 400) -> None:
    """Write a file as Spark does: a folder of parts, an empty one, checksums and a mark that it is complete."""
    table = pq.read_table(source)
    folder.mkdir(parents=True)
    starts = range(0, table.num_rows, sizes)
    for number, start in enumerate(starts):
        pq.write_table(table.slice(start, sizes), folder / f"part-{number}-c000.snappy.parquet")  # 10 comes after 9
    pq.write_table(table.slice(0, 0), folder / f"part-{len(starts)}-c000.snappy.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".part-0-c000.snappy.parquet.crc").write_bytes(b"crc")


@pytest.fixture
def spark_world(tiny_world: Path, tmp_path: Path) -> Path:
    for name in (EXAMPLES_FILE, PRODUCTS_FILE, EVENTS_FILE):
        in_parts(tiny_world / name, tmp_path / "spark" / name, 120)
    return tmp_path / "spark"


def test_a_folder_of_parts_is_the_file_with_the_same_rows(spark_world: Path, tiny_dataset: Dataset) -> None:
    assert len(list((spark_world / EXAMPLES_FILE).glob("part-1?-*"))) > 1
    found = load_esci(spark_world)
    assert found.version == tiny_dataset.version
    assert found.products["title"].equals(tiny_dataset.products["title"])
    assert unread_files(found) == []
    assert columns_found(found).query("found != expected").empty


def test_the_key_of_a_partition_is_a_column(tiny_world: Path, tmp_path: Path) -> None:
    table = pq.read_table(tiny_world / PRODUCTS_FILE)
    for locale in ("us", "es", "jp"):
        folder = tmp_path / PRODUCTS_FILE / f"product_locale={locale}"
        folder.mkdir(parents=True)
        rows = table.filter(pa.compute.equal(table["product_locale"], locale)).drop_columns(["product_locale"])
        pq.write_table(rows, folder / "data_0.parquet")
    (tmp_path / EXAMPLES_FILE).symlink_to(tiny_world / EXAMPLES_FILE)
    assert structural_problems(tmp_path) == []
    found = load_esci(tmp_path)
    assert found.products["locale"].value_counts()["es"] == sum(
        one == "es" for one in table["product_locale"].to_pylist()
    )
    assert (found.pairs["product"] >= 0).all()
    assert opened(tmp_path / PRODUCTS_FILE).read().num_rows == table.num_rows


def test_partitions_are_read_as_hive_spells_them(tmp_path: Path) -> None:
    for name in ("label=a%2Fb", "label=__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / "t" / name).mkdir(parents=True)
        pq.write_table(pa.table({"x": [1]}), tmp_path / "t" / name / "000000_0")  # Hive's names have no suffix
    assert opened(tmp_path / "t").read(["label"])["label"].to_pylist() == [None, "a/b"]


def _pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "7" * 64 + "\nsize 49245\n")


def _empty(path: Path) -> None:
    path.mkdir()
    (path / "_SUCCESS").touch()


def _delta(path: Path) -> None:
    (path / "_delta_log").mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), path / "part-0.parquet")


def _one_damaged(path: Path) -> None:
    path.mkdir()
    pq.write_table(pa.table({"x": [1]}), path / "part-0.parquet")
    (path / "part-1.parquet").write_bytes(b"PAR1 no more")


def _pointer_in_folder(path: Path) -> None:
    path.mkdir()
    _pointer(path / "part-0.parquet")


WRONG = {
    "pointer": (_pointer, ["Git LFS pointer", "git lfs pull", "tournament data download"]),
    "pointer among parts": (_pointer_in_folder, ["Git LFS pointer", "part-0.parquet"]),
    "no part": (_empty, ["no part file"]),
    "delta": (_delta, ["Delta"]),
    "damaged part": (_one_damaged, ["damaged", "part-1.parquet"]),
    "link to nowhere": (lambda path: path.symlink_to("nowhere"), ["link to nowhere", "does not exist"]),
    "pipe": (os.mkfifo, ["neither a file nor a folder"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_file_is_told_by_what_it_is(case: str, tiny_world: Path, tmp_path: Path) -> None:
    make, parts = WRONG[case]
    (tmp_path / EXAMPLES_FILE).symlink_to(tiny_world / EXAMPLES_FILE)
    make(tmp_path / PRODUCTS_FILE)
    (problem,) = structural_problems(tmp_path)
    assert [part for part in (*parts, PRODUCTS_FILE) if part not in str(problem)] == [], str(problem)


def test_parts_that_differ_are_named(spark_world: Path) -> None:
    part = sorted((spark_world / PRODUCTS_FILE).glob("part-1-*"))[0]
    table = pq.read_table(part)
    pq.write_table(
        table.rename_columns(["titel" if one == "product_title" else one for one in table.column_names]), part
    )
    (problem,) = structural_problems(spark_world)
    assert "other columns" in str(problem)
    assert part.name in str(problem)
    assert "product_title, titel" in str(problem)
    pq.write_table(table.set_column(0, table.column_names[0], pa.array([1.5] * len(table))), part)
    assert "wrong type" in str(*structural_problems(spark_world))
    pq.write_table(table.set_column(1, table.column_names[1], pa.nulls(len(table))), part)  # Spark infers from values
    assert structural_problems(spark_world) == []


def test_a_stamp_changes_with_a_part(spark_world: Path) -> None:
    folder = spark_world / PRODUCTS_FILE
    before = stamp_of(folder)
    assert stamp_of(folder) == before
    assert bytes_of(folder) == sum(part.path.stat().st_size for part in parts_of(folder))
    part = parts_of(folder)[1].path
    os.utime(part, ns=(0, 0))
    assert stamp_of(folder) != before
