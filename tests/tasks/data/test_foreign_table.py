"""Parquet files of others: bounded by their footer, read in a child, refused in words."""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from esci_tournament.registry.errors import SpecError
from esci_tournament.tasks.candidates import listed_queries
from esci_tournament.tasks.candidates.provenance import read_queries
from esci_tournament.tasks.families.score_file import reading
from esci_tournament.tasks.families.score_file.reading import check_file, read_file

ROWS = 500


@pytest.fixture
def scores() -> pa.Table:
    draw = np.random.default_rng(0).dirichlet(np.ones(4), ROWS)
    columns = {"example_id": np.arange(ROWS)} | {letter: draw[:, at] for at, letter in enumerate("ESCI")}
    return pa.table(columns)


def test_a_score_file_is_read_as_it_stands(scores: pa.Table, tmp_path: Path) -> None:
    parquet.write_table(scores, tmp_path / "x.parquet", row_group_size=100)
    check_file(tmp_path / "x.parquet")
    ids, values = read_file(tmp_path / "x.parquet")
    assert ids.tolist() == list(range(ROWS))
    assert (values == scores.drop_columns("example_id").to_pandas().to_numpy(np.float32)).all()


@pytest.mark.parametrize("texts", [False, True])
def test_listed_queries_are_read_once_each(texts: bool, tmp_path: Path) -> None:
    ids = np.repeat(np.arange(70_000), 3)
    frame = pd.DataFrame({"query": [f"q {one}" for one in ids[:9000]], "product_locale": pd.Categorical(["us"] * 9000)})
    (frame if texts else pd.DataFrame({"query_id": ids})).to_parquet(tmp_path / "x.parquet")
    seen = read_queries(tmp_path / "x.parquet")
    assert (len(seen.keys), len(seen.ids)) == ((3000, 0) if texts else (0, 70_000))


def test_forty_million_rows_in_a_small_file_are_refused_by_the_footer(tmp_path: Path) -> None:
    """F4: 175 kB on disk; the watcher's memory rose by 948 MiB in 6.8 s."""
    path = tmp_path / "x.parquet"
    part = pa.table({"query_id": pa.array(np.zeros(4_000_000, np.int64))})
    with parquet.ParquetWriter(path, part.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(part)
    assert path.stat().st_size < 200_000
    del part
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(SpecError, match="has 40,000,000 rows; 10,000,000 are allowed"):
        read_queries(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert time.monotonic() - began < 30


BOMBS = ("a long text in a dictionary", "long texts")  # which only a child survives; others are read here, for speed


def refusal(path: Path, child: bool) -> None:
    """Read a file both ways; each refuses it in words, in an answer of bounded length."""
    output = [str(path.with_name(name)) for name in ("ids", "values")]
    for read in (
        lambda: read_queries(path) if child else listed_queries.copy_numbers(str(path), output[0]),
        lambda: read_file(path) if child else reading.copy_numbers(str(path), *output),
    ):
        with pytest.raises(SpecError) as told:
            read()
        assert len(str(told.value)) < 3000


def long_text(path: Path) -> None:
    """A text of 10 MB that a dictionary repeats in each of many rows."""
    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int32)), pa.array(["x" * 10_000_000]))
    locale = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int32)), pa.array(["us"]))
    parquet.write_table(pa.table({"query": words, "product_locale": locale}), path, compression="zstd")


def long_texts(path: Path) -> None:
    """Texts of 50 MB each, which together are more than the child may hold, packed to next to nothing."""
    schema = pa.schema({"query": pa.string(), "product_locale": pa.string()})
    with parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for number in range(8):
            writer.write_table(pa.table({"query": [f"{number}" + "x" * 50_000_000], "product_locale": ["us"]}, schema))


def nested(path: Path) -> None:
    deep: Any = pa.array([1])
    for _ in range(60):
        deep = pa.StructArray.from_arrays([deep], ["x"])
    parquet.write_table(pa.table({"query_id": deep}), path)


FILES: dict[str, Callable[[Path], object]] = {
    "a long text in a dictionary": long_text,
    "long texts": long_texts,
    "nested": nested,
    "a list": lambda path: parquet.write_table(pa.table({"query_id": [[1, 2]], "E": [[1.0]]}), path),
    "no column": lambda path: parquet.write_table(pa.table({}), path),
    "no row": lambda path: parquet.write_table(pa.table({"query_id": pa.array([], pa.int64())}), path),
    "many columns": lambda path: parquet.write_table(pa.table({f"c{n}": [1] for n in range(5000)}), path),
    "a column twice": lambda path: parquet.write_table(pa.table([[1], [2]], names=["query_id", "query_id"]), path),
    "gaps": lambda path: parquet.write_table(pa.table({"query_id": pa.array([1, None])}), path),
    "ids beyond int64": lambda path: parquet.write_table(
        pa.table({"query_id": pa.array([2**64 - 1], pa.uint64())}), path
    ),
    "bytes": lambda path: parquet.write_table(pa.table({"query": [b"\xff"], "product_locale": [b"us"]}), path),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("query_id\n1\n"),
    "magic alone": lambda path: path.write_bytes(b"PAR1" + b"\xff" * 8 + b"PAR1"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a sparse file": lambda path: path.touch() or os.truncate(path, 2**40),
    "absent": lambda path: None,
}


@pytest.mark.parametrize("kind", FILES)
def test_whatever_a_registrant_names_is_refused_in_words(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (listed_queries, reading):
        monkeypatch.setattr(module, "_MEMORY_MIB", 300)
    path = tmp_path / "x.parquet"
    FILES[kind](path)
    refusal(path, kind in BOMBS)


def test_damage_is_refused_or_harmless(scores: pa.Table, tmp_path: Path) -> None:
    """Flips and cuts in one process that stands for the child: a crash there would end this test."""
    path = tmp_path / "x.parquet"
    parquet.write_table(scores, path, use_dictionary=["example_id"])
    whole, draw = path.read_bytes(), random.Random(0)
    refused = 0
    for number in range(300):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 20))):
            near_end = draw.random() < 0.7  # where the footer is
            at = draw.randrange(len(content) - 3000, len(content)) if near_end else draw.randrange(len(content))
            content[at] = draw.randrange(256)
        path.write_bytes(content[: draw.randrange(len(content))] if number % 10 == 0 else content)
        for output in ("ids", "values"):
            (tmp_path / output).unlink(missing_ok=True)
        try:
            reading.copy_numbers(str(path), str(tmp_path / "ids"), str(tmp_path / "values"))
        except SpecError:
            refused += 1
    assert refused > 100


def test_a_limit_on_what_is_unpacked_is_told(scores: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(scores, path)
    monkeypatch.setattr(reading, "BOUNDS", reading.Bounds(rows=10, unpacked_mib=1))
    with pytest.raises(SpecError, match="has 500 rows; 10 are allowed"):
        reading.check_footer(str(path))
    monkeypatch.setattr(listed_queries, "_DISTINCT", 3)
    parquet.write_table(pa.table({"query_id": [1, 2, 3, 4]}), path)
    with pytest.raises(SpecError, match="more than 3 queries"):
        listed_queries.copy_numbers(str(path), str(tmp_path / "numbers"))


def test_what_stands_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "pointer").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "7" * 64 + "\nsize 9\n"
    )
    (tmp_path / "parts").mkdir()
    for name, said in (("pointer", "Git LFS pointer.*git lfs pull"), ("parts", "is a folder; write its parts as one")):
        with pytest.raises(SpecError, match=said):
            reading.copy_numbers(str(tmp_path / name), *(str(tmp_path / one) for one in ("ids", "values")))
