"""Forms in which people have their data: rows of docs/compatibility.md, each made and read as the product does."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from esci_tournament.registry.errors import DataError
from esci_tournament.registry.labels import LABEL_NAMES, LABELS
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.importing import Imported, Options, import_tables
from esci_tournament.tasks.data.layout import EXAMPLES_FILE, PRODUCTS_FILE
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.reading import Reading

Row = Callable[[Path], str]
Change = Callable[[pa.Table], pa.Table]

PAIRS = pd.DataFrame(
    {
        "example_id": range(8),
        "query": ["red lamp"] * 4 + ["blue sofa"] * 4,
        "query_id": [0] * 4 + [1] * 4,
        "product_id": [str(1000 + number) for number in range(8)],
        "product_locale": ["us"] * 8,
        "esci_label": [*LABELS, *LABELS],
        "small_version": [1] * 8,
        "large_version": [1] * 8,
        "split": ["train"] * 4 + ["test"] * 4,
    }
)
PRODUCTS = pd.DataFrame(
    {
        "product_id": PAIRS["product_id"],
        "product_title": [f"Lamp {number}" for number in range(8)],
        "product_description": "",
        "product_bullet_point": "",
        "product_brand": "Velo",
        "product_color": "red",
        "product_locale": "us",
    }
)
JOINED = PAIRS.merge(PRODUCTS, on=["product_id", "product_locale"])
WORDS = dict(zip(LABELS, map(str.lower, LABEL_NAMES), strict=True))


def _table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def _plain(folder: Path, pairs: Change = lambda table: table, products: Change = lambda table: table) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pairs(_table(PAIRS)), folder / EXAMPLES_FILE)
    pq.write_table(products(_table(PRODUCTS)), folder / PRODUCTS_FILE)
    return folder


def _said(work: Callable[[], str]) -> str:
    try:
        return work()
    except DataError as error:
        return f"refused: {error.problem}"


def _same(found: Dataset, folder: Path) -> None:
    assert found.version == load_esci(_plain(folder / "plain")).version


def _read(
    folder: Path,
    pairs: Change = lambda table: table,
    products: Change = lambda table: table,
    reading: Reading | None = None,
    works: str = "works",
) -> str:
    """Read a folder with changed files; what is read must be the data set that the official files hold."""

    def work() -> str:
        _same(load_esci(_plain(folder / "given", pairs, products), reading=reading), folder)
        return works

    return _said(work)


def _cast(**types: pa.DataType) -> Change:
    def change(table: pa.Table) -> pa.Table:
        for name, kind in types.items():
            table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
        return table

    return change


def _labels(meaning: dict[str, object]) -> Change:
    def change(table: pa.Table) -> pa.Table:
        labels = pa.array([meaning[one] for one in table["esci_label"].to_pylist()])
        return table.set_column(table.column_names.index("esci_label"), "esci_label", labels)

    return change


def _text(kind: pa.DataType) -> Change:
    return lambda table: table.cast(
        pa.schema(
            [
                pa.field(one.name, kind if one.type in (pa.string(), pa.large_string()) else one.type)
                for one in table.schema
            ]
        )
    )


def _parts(folder: Path) -> str:
    given = _plain(folder / "given")
    for name, frame in ((EXAMPLES_FILE, PAIRS), (PRODUCTS_FILE, PRODUCTS)):
        (given / name).unlink()
        (given / name).mkdir()
        for number in range(2):
            rows = _table(frame.iloc[4 * number : 4 * number + 4])
            pq.write_table(rows, given / name / f"part-0000{number}-c000.snappy.parquet")
        (given / name / "_SUCCESS").touch()
    _same(load_esci(given), folder)
    return "works"


def _partitions(folder: Path) -> str:
    given = _plain(folder / "given")
    for name, frame in ((EXAMPLES_FILE, PAIRS), (PRODUCTS_FILE, PRODUCTS)):
        (given / name).unlink()
        (given / name / "product_locale=us").mkdir(parents=True)
        pq.write_table(
            _table(frame.drop(columns="product_locale")), given / name / "product_locale=us" / "data_0.parquet"
        )
    _same(load_esci(given), folder)
    return "works"


def _delta(folder: Path) -> str:
    given = _plain(folder / "given")
    (given / PRODUCTS_FILE).unlink()
    (given / PRODUCTS_FILE / "_delta_log").mkdir(parents=True)
    return _said(lambda: load_esci(given).version)


def _pointers(folder: Path) -> str:
    given = _plain(folder / "given")
    (given / PRODUCTS_FILE).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "7" * 64 + "\nsize 9\n"
    )
    return _said(lambda: load_esci(given).version)


def _odd_folder(folder: Path) -> str:
    (folder / "link").symlink_to(_plain(folder / "50%25 off? #日本 é"))
    _same(load_esci(folder / "link"), folder)
    return "works"


def _imported(folder: Path, make: Callable[[Path], object], options: Options | None = None, works: str = "") -> str:
    """Import what is made in a folder; the same pairs must come out, and only what is told may differ."""

    def work() -> str:
        (folder / "given").mkdir(parents=True)
        make(folder / "given")
        found: Imported = import_tables(folder / "given", folder / "esci", options)
        pairs = load_esci(folder / "esci").pairs
        assert found.pairs == len(pairs) > 0
        assert pairs["product"].ge(0).all()
        expected = PAIRS.set_index("product_id")["esci_label"].map(LABELS.index)
        if pairs["product_id"].isin(expected.index).all():
            assert pairs["label"].tolist() == expected.loc[pairs["product_id"]].tolist()
        return works or "works with `tournament data import`"

    return _said(work)


def _zip(path: Path, frame: pd.DataFrame) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(path.name.removesuffix(".zip"), frame.to_csv(index=False))


def _kdd_cup(folder: Path) -> None:
    theirs = PAIRS.rename(columns={"product_locale": "query_locale"}).assign(esci_label=PAIRS["esci_label"].map(WORDS))
    columns = ["query_id", "query", "query_locale", "product_id"]
    _zip(folder / "train-v0.3.csv.zip", theirs[[*columns, "esci_label"]])
    _zip(folder / "test_public-v0.3.csv.zip", theirs[columns])
    _zip(folder / "product_catalogue-v0.3.csv.zip", PRODUCTS.rename(columns={"product_color": "product_color_name"}))


def _hub(folder: Path) -> None:
    (folder / "data").mkdir()
    rows = JOINED.assign(esci_label=JOINED["esci_label"].map(WORDS).str.title(), product_text="all of it")
    for split, part in rows.groupby("split"):
        part.to_parquet(folder / "data" / f"{split}-00000-of-00001-0a1b2c.parquet")


def _disk(folder: Path) -> None:
    """Write what `datasets` writes by `save_to_disk`, classes as numbers and their names in the file."""
    said = {"info": {"features": {"esci_label": {"names": [*LABEL_NAMES], "_type": "ClassLabel"}}}}
    rows = JOINED.assign(esci_label=JOINED["esci_label"].map(LABELS.index)).drop(columns="split")
    table = _table(rows).replace_schema_metadata({"huggingface": json.dumps(said)})
    for split in ("train", "test"):
        (folder / split).mkdir()
        half = table.slice(0, 4) if split == "train" else table.slice(4)
        with pa.ipc.new_stream(str(folder / split / "data-00000-of-00001.arrow"), half.schema) as out:
            out.write_table(half)


OWN = JOINED[["query", "product_id", "product_title", "esci_label"]].set_axis(
    ["search term", "sku", "name", "grade"], axis=1
)
OWN_OPTIONS = Options(labels=dict(zip("3210", LABELS, strict=True)), locale="us")
GRADES = OWN.assign(grade=OWN["grade"].map(dict(zip(LABELS, (3, 2, 1, 0), strict=True))))


def _json_lines(folder: Path) -> None:
    OWN.to_json(folder / "t.jsonl", orient="records", lines=True)


def _spreadsheet(folder: Path) -> None:
    (folder / "mine.csv").write_bytes(OWN.to_csv(index=False, sep=";").encode("utf-16"))


EVENTS = [
    {
        "action_name": "add_to_cart",
        "query_id": "q1",
        "user_query": "red lamp",
        "client_id": "c",
        "timestamp": "2026-01-01T00:00:05Z",
        "event_attributes": {"object": {"object_id": "1000"}},
    }
]


def _log(folder: Path, name: str, content: str | bytes) -> str:
    given = _plain(folder / "given")
    (given / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def work() -> str:
        events = load_esci(given).events
        assert events is not None
        assert events["action"].tolist() == ["add"]
        assert events["time"].astype(str).tolist() == ["2026-01-01 00:00:05"]
        return "works"

    return _said(work)


def _lines(*documents: object) -> str:
    return "".join(json.dumps(one) + "\n" for one in documents)


def _in_unit(power: int) -> str:
    return _lines({**EVENTS[0], "timestamp": 1_767_225_605 * 10**power})


def _events_table(folder: Path, times: object = None) -> str:
    frame = pd.DataFrame(
        {
            "timestamp": pd.to_datetime(["2026-01-01T09:00:05+09:00"]).as_unit("ns") if times is None else times,
            "client_id": [7],
            "session_id": [7],
            "query": ["red lamp"],
            "locale": ["us"],
            "product_id": ["1000"],
            "action": ["add"],
        }
    )
    frame.to_parquet(buffer := io.BytesIO())
    return _log(folder, "behaviour_events.parquet", buffer.getvalue())


ROWS: dict[str, Row] = {
    # Files
    "a folder of part files (Spark, Dask) in place of a file": _parts,
    "partitions (`product_locale=us/`)": _partitions,
    "a table of Delta": _delta,
    "Git LFS pointers in place of the files": _pointers,
    "folders with percent signs, question marks, `#`, spaces and other alphabets, through links": _odd_folder,
    # Types
    "text as large_string, string_view or binary": lambda folder: [
        _read(folder / str(kind), products=_text(kind)) for kind in (pa.large_string(), pa.string_view(), pa.binary())
    ][-1],
    "text as dictionaries (pandas' categories)": partial(_read, pairs=_text(pa.dictionary(pa.int32(), pa.string()))),
    "integers as unsigned, decimal(38, 0) or whole floats": partial(
        _read, pairs=_cast(query_id=pa.uint32(), small_version=pa.decimal128(38, 0), example_id=pa.float64())
    ),
    "flags as true and false": partial(_read, pairs=_cast(small_version=pa.bool_(), large_version=pa.bool_())),
    "product ids as integers": partial(
        _read, pairs=_cast(product_id=pa.int64()), products=_cast(product_id=pa.int32())
    ),
    "query ids as text": partial(_read, pairs=_cast(query_id=pa.string())),
    "the index of a pandas or polars frame": partial(
        _read,
        pairs=lambda table: table.append_column("row_nr", pa.array(range(8))),
        products=lambda table: table.append_column("__index_level_0__", pa.array(list("ABCDEFGH"))),
    ),
    "columns of one's own": partial(_read, products=lambda table: table.append_column("price", pa.array([1.5] * 8))),
    "columns of one's own, with `data_extra_columns`": partial(
        _read,
        products=lambda table: table.append_column("price", pa.array([1.5] * 8)),
        reading=Reading("ignore"),
        works="works with `data_extra_columns`",
    ),
    # Labels
    "labels as words": partial(_read, pairs=_labels(WORDS)),
    "labels as numbers": partial(_read, pairs=_labels(dict(zip(LABELS, (3, 2, 1, 0), strict=True)))),
    "labels as numbers or gains, with `data_labels`": partial(
        _read,
        pairs=_labels(dict(zip(LABELS, (1.0, 0.1, 0.01, 0.0), strict=True))),
        reading=Reading(labels=dict(zip(("1", "0.1", "0.01", "0"), LABELS, strict=True))),
        works="works with `data_labels`",
    ),
    # Other tables
    "KDD Cup 2022's CSV files (v0.2, v0.3), zipped": partial(_imported, make=_kdd_cup),
    "the hub's joined copies (`tasksource/esci`)": partial(_imported, make=_hub),
    "`datasets.save_to_disk`": partial(_imported, make=_disk),
    "one CSV, JSON lines or parquet table of one's own": lambda folder: [
        _imported(folder / "csv", lambda given: OWN.to_csv(given / "t.csv.gz"), OWN_OPTIONS),
        _imported(folder / "json", _json_lines, OWN_OPTIONS),
        _imported(folder / "parquet", lambda given: GRADES.to_parquet(given / "t.parquet"), OWN_OPTIONS),
    ][-1],
    "CSV as spreadsheets save it (semicolons, UTF-16)": partial(_imported, make=_spreadsheet, options=OWN_OPTIONS),
    "a table with numbers as labels, unsaid": partial(
        _imported, make=lambda folder: GRADES.to_csv(folder / "t.csv"), options=Options(locale="us")
    ),
    "a table without a locale, unsaid": partial(_imported, make=lambda folder: OWN.to_csv(folder / "t.csv")),
    # Behaviour
    "behaviour in parquet, nanoseconds of a time zone, clients as integers": _events_table,
    "behaviour in parquet, times as numbers or ISO 8601": lambda folder: [
        _events_table(folder / "numbers", [1_767_225_605_000]),
        _events_table(folder / "text", ["2026-01-01T09:00:05+09:00"]),
    ][-1],
    "UBI: lines of JSON": lambda folder: _log(folder, "ubi_events.ndjson", _lines(*EVENTS)),
    "UBI: the bulk format": lambda folder: _log(folder, "ubi_events.jsonl", _lines({"index": {}}, *EVENTS)),
    "UBI: elasticdump": lambda folder: _log(
        folder, "ubi_events.json", _lines({"_index": "ubi", "_id": "1", "_source": EVENTS[0]})
    ),
    "UBI: a JSON list": lambda folder: _log(folder, "ubi_events.json", json.dumps(EVENTS, indent=1)),
    "UBI: the answer of a search": lambda folder: _log(
        folder, "ubi_events.json", json.dumps({"hits": {"hits": [{"_source": EVENTS[0]}]}})
    ),
    "UBI: CSV": lambda folder: _log(folder, "ubi_events.csv", pd.json_normalize(EVENTS).to_csv(index=False)),
    "UBI: any of these with gzip": lambda folder: _log(
        folder, "ubi_events.ndjson.gz", gzip.compress(_lines(*EVENTS).encode())
    ),
    "UBI: times in seconds, milliseconds, microseconds or nanoseconds": lambda folder: [
        _log(folder / str(power), "ubi_events.ndjson", _in_unit(power)) for power in (0, 3, 6, 9)
    ][-1],
}

NOTES: dict[str, str] = {
    "a folder of part files (Spark, Dask) in place of a file": "The data version is that of one file.",
    "partitions (`product_locale=us/`)": "The key of the folders is a column.",
    "a table of Delta": "Its folder also holds rows that were deleted; write the current version as parquet.",
    "Git LFS pointers in place of the files": "`git lfs pull` in the clone, or `tournament data download`.",
    "folders with percent signs, question marks, `#`, spaces and other alphabets, through links": "Relative paths and "
    "read-only folders too. MLflow's own `load_model` fails below a home with an escape such as %20 in its path.",
    "text as large_string, string_view or binary": "Bytes must be UTF-8.",
    "text as dictionaries (pandas' categories)": "",
    "integers as unsigned, decimal(38, 0) or whole floats": "A missing id or a fraction is refused with its row.",
    "flags as true and false": "small_version and large_version alone.",
    "product ids as integers": "They are compared as text: 007 is another product than 7.",
    "query ids as text": "Import the table: numbers are made.",
    "the index of a pandas or polars frame": "It is ignored by its name, by pandas' own record, or if it counts rows.",
    "columns of one's own": "The message names the setting.",
    "columns of one's own, with `data_extra_columns`": '"ignore", or a list of names.',
    "labels as words": "In any case; the data version is that of the letters.",
    "labels as numbers": "Their order cannot be guessed; the message names the setting.",
    "labels as numbers or gains, with `data_labels`": 'Such as `{ "3" = "E", "2" = "S" }`; also for other words.',
    "KDD Cup 2022's CSV files (v0.2, v0.3), zipped": "The public test pairs have no labels: set `test_share`.",
    "the hub's joined copies (`tasksource/esci`)": "Taken apart into pairs and products.",
    "`datasets.save_to_disk`": "Names of classes are read from the file.",
    "one CSV, JSON lines or parquet table of one's own": "`--column`, `--label` and `--locale` say what names do not.",
    "CSV as spreadsheets save it (semicolons, UTF-16)": "",
    "a table with numbers as labels, unsaid": "Say `--label 3=E`.",
    "a table without a locale, unsaid": "Say `--locale us`.",
    "behaviour in parquet, nanoseconds of a time zone, clients as integers": "Times become UTC, in microseconds.",
    "behaviour in parquet, times as numbers or ISO 8601": "Units as in UBI logs.",
    "UBI: lines of JSON": "",
    "UBI: the bulk format": "",
    "UBI: elasticdump": "",
    "UBI: a JSON list": "At most 1 GiB; lines have no limit.",
    "UBI: the answer of a search": "",
    "UBI: CSV": "Dots in the header say what stands inside of what.",
    "UBI: any of these with gzip": "",
    "UBI: times in seconds, milliseconds, microseconds or nanoseconds": "The unit that gives a time from 2000 to 2099.",
}
