"""Write the official layout from tables that other people made: KDD Cup's CSV files, joined tables, one's own.

A table of judgements has a query, a product and a label in each row; it may have the product's texts too. A catalogue
has products and their texts, and no query. Nothing is guessed in silence: :class:`Imported` says what was read as what,
what was made up, and which rows were left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from esci_tournament.registry.errors import DataError, StoreError, UsageError
from esci_tournament.registry.files import disk_in_words, publish, temporary_folder
from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.spelling import counted
from esci_tournament.tasks.data.column_names import TEXTS, recognised
from esci_tournament.tasks.data.columns import plain
from esci_tournament.tasks.data.dataset import LOCALES
from esci_tournament.tasks.data.layout import (
    EXAMPLES_COLUMNS,
    EXAMPLES_FILE,
    LABEL_COLUMN,
    PRODUCTS_COLUMNS,
    PRODUCTS_FILE,
    SPLITS,
)
from esci_tournament.tasks.data.reading import Reading
from esci_tournament.tasks.data.tables import Table, tables_in

Progress = Callable[[float, str], None]
SHOWN = 3  # rows that are left out for one reason and named
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "train"),  # a part of it is drawn anew for that
}
_KEPT = ("query", "query_id", "product_id", "product_locale", LABEL_COLUMN, "split", "example_id")
_FLAGS = ("small_version", "large_version")


@dataclass(frozen=True)
class Options:
    """What is said of tables beside what they say themselves.

    Attributes:
        columns: Official name -> the tables' name for it.
        labels: What labels mean that are neither letters nor words: label -> letter.
        locale: Locale of tables without one.
        split: Split of tables whose columns and names do not tell it.
        most_bytes: Bytes that a compressed file may have when it is unpacked.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    locale: str | None = None
    split: str | None = None
    most_bytes: int = 64 * 2**30


@dataclass(frozen=True)
class LeftOut:
    """Rows that were not taken.

    Attributes:
        reason: Why.
        count: How many.
        rows: The first of them, each with its table, its number in it (from 0) and a value.
    """

    reason: str
    count: int
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    """What was read and written.

    Attributes:
        tables: A sentence for each table or file: what it was read as, and its rows.
        made: A sentence for each thing that no table says.
        left_out: Which rows were not taken.
        pairs: Judged pairs that were written.
        products: Products that were written.
        test_pairs: Those of the pairs whose split is test.
    """

    tables: tuple[str, ...]
    made: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    pairs: int
    products: int
    test_pairs: int


def import_tables(
    source: Path, target: Path, options: Options | None = None, progress: Progress = lambda share, doing: None
) -> Imported:
    """Write the two official files from the tables of a folder.

    Products are written as they are read; of the pairs, ids, queries and labels are held in memory, and of each product
    a number.

    Args:
        source: A folder, looked through with all folders in it, or one table.
        target: Folder that receives the files; made if need be.
        options: What is said of the tables.
        progress: Called with the share of tables done, in [0, 1], and which one is read.

    Returns:
        What was read, made up and left out.

    Raises:
        DataError: If a table cannot be read or understood, or there are no judgements or no products.
        UsageError: If the target has such a file already, or an option makes no sense.
        StoreError: If the disk is full, or the target cannot be written.
    """
    options = options or Options()
    _check(options, target)
    tables, others = tables_in(source, options.most_bytes)
    kinds = [_Kind.of(table, options) for table in tables]
    said = [_not_read(one) for one in kinds if not (one.judged or one.catalogue)]
    if others:
        more = f" and {len(others) - SHOWN:,} more" if len(others) > SHOWN else ""
        said.append(f"no tables, not read: {', '.join(others[:SHOWN])}{more}")
    if not any(one.judged for one in kinds):
        seen = "; ".join([*said, *(one.sentence for one in kinds if one.catalogue)]) or "there is no table"
        advice = "judgements have columns for query, product, locale and label; say which with --column product_id=NAME"
        raise DataError(f"no table has judgements ({seen})", file=source, advice=advice)
    if not any(one.catalogue for one in kinds):
        advice = "add the catalogue, or say --column product_title=NAME"
        raise DataError("no table has the titles of products", file=source, advice=advice)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {target}: {error.strerror or error}; choose another one") from error
    with disk_in_words("import", target), temporary_folder(target, "import") as made:
        products = _Products(made / PRODUCTS_FILE)
        pairs = _Pairs(options)
        with products:
            # Catalogues first: where a joined table has another text, theirs is the product's own
            for number, kind in enumerate(sorted(kinds, key=lambda one: one.judged)):
                if kind.judged or kind.catalogue:
                    progress(number / len(kinds), f"reading {kind.table.name}")
                    said.append(_read(kind, options, products, pairs))
        frame, left_out, sentences = pairs.chosen(products)
        _write_pairs(frame, made / EXAMPLES_FILE)
        for file in (EXAMPLES_FILE, PRODUCTS_FILE):
            publish(made / file, target / file)
    progress(1.0, "written")
    return Imported(
        tuple(said),
        (*products.sentences(), *sentences),
        tuple(left_out),
        len(frame),
        len(products.texts),
        int((frame["split"] == "test").sum()),
    )


def _check(options: Options, target: Path) -> None:
    if options.locale is not None and options.locale not in LOCALES:
        raise UsageError(f"locale {options.locale} is not known; there are {', '.join(LOCALES)}")
    if options.split is not None and options.split not in SPLITS:
        raise UsageError(f"split {options.split} is not known; there are {', '.join(SPLITS)}")
    if there := [name for name in (EXAMPLES_FILE, PRODUCTS_FILE) if (target / name).exists()]:
        raise UsageError(f"{target} has {' and '.join(there)} already; name another folder, or remove it")


@dataclass(frozen=True)
class _Kind:
    """What a table is taken for."""

    table: Table
    columns: dict[str, str]
    judged: bool
    catalogue: bool
    split: str | None

    @classmethod
    def of(cls, table: Table, options: Options) -> _Kind:
        columns = recognised(table.columns, options.columns, table.name)
        product = "product_id" in columns or "product_title" in columns
        judged = "query" in columns and LABEL_COLUMN in columns and product
        catalogue = "product_title" in columns and (judged or ("query" not in columns and "product_id" in columns))
        if (judged or catalogue) and "product_locale" not in columns and options.locale is None:
            advice = f"say --locale {LOCALES[0]}, or --column product_locale=NAME"
            raise DataError("no column says the locale", file=table.name, advice=advice)
        return cls(table, columns, judged, catalogue, _split_of(table.name))

    @property
    def sentence(self) -> str:
        """What the table is and what its columns were read as."""
        read = [name if name == theirs else f"{theirs} as {name}" for name, theirs in self.columns.items()]
        others = [name for name in self.table.columns if name not in self.columns.values()]
        kind = " and ".join(["judgements"] * self.judged + ["products"] * self.catalogue)
        return f"{self.table.name}: {kind}; {', '.join(read)}" + (f"; not read: {', '.join(others)}" if others else "")


def _not_read(kind: _Kind) -> str:
    """Return why a table is left out, and how many rows that are."""
    has = ", ".join(kind.table.columns)
    if "query" not in kind.columns:
        return f"{kind.table.name}: not read, it has neither queries nor the titles of products ({has})"
    rows = sum(batch.num_rows for batch in kind.table.read([kind.columns["query"]]))
    without = "labels" if LABEL_COLUMN not in kind.columns else "products"
    return f"{kind.table.name}: {counted(rows, 'row')} left out, for lack of {without} ({has})"


def _split_of(name: str) -> str | None:
    """Return the split that a table's path names, None for none or both."""
    found = {_SPLITS[word] for word in re.findall(r"[a-z]+", name.casefold()) if word in _SPLITS}
    return found.pop() if len(found) == 1 else None


def _read(kind: _Kind, options: Options, products: _Products, pairs: _Pairs) -> str:
    rows = 0
    number = pairs.begin(kind) if kind.judged else -1
    reading = Reading(labels=options.labels)
    for batch in kind.table.read(list(kind.columns.values())):
        if not batch.num_rows:
            continue
        columns = {name: batch.column(theirs) for name, theirs in kind.columns.items()}
        if LABEL_COLUMN in columns:
            declared = kind.table.declared.get(kind.columns[LABEL_COLUMN])
            columns[LABEL_COLUMN] = reading.letters(plain(columns[LABEL_COLUMN]), declared)
        texts = {name: _text(column) for name, column in columns.items()}
        given = texts.get("product_locale")
        texts["product_locale"] = (
            _all(options.locale or "", batch.num_rows)
            if given is None
            else pc.utf8_lower(pc.utf8_trim_whitespace(given))
        )
        if "product_id" in texts:
            texts["product_id"] = pc.utf8_trim_whitespace(texts["product_id"])
        else:
            texts["product_id"] = products.ids_for(texts)
        if kind.catalogue:
            products.add(texts)
        if kind.judged:
            pairs.add(texts, number, rows, kind)
        rows += batch.num_rows
    return f"{kind.sentence}; {counted(rows, 'row')}"


class _Products:
    """The products, written as they come, each once."""

    def __init__(self, path: Path) -> None:
        self.texts: dict[str, int] = {}  # locale and id -> a hash of the texts
        self._schema = pa.schema([(name, pa.string()) for name in PRODUCTS_COLUMNS])
        self._path, self._other, self._rows = path, dict[str, None](), 0
        self._made_ids = self._nameless = 0

    def __enter__(self) -> _Products:
        self._writer = pq.ParquetWriter(self._path, self._schema)
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def ids_for(self, texts: Mapping[str, pa.Array]) -> pa.Array:
        """Return an id made of a product's texts, for a table without ids."""
        rows = zip(*(texts[name].to_pylist() for name in TEXTS if name in texts), strict=True)
        ids = [
            hashlib.blake2b("\x1f".join(row).encode(), digest_size=8).hexdigest() if row[0].strip() else ""
            for row in rows
        ]
        self._made_ids += len(ids)
        return pa.array(ids, pa.large_string())

    def add(self, texts: Mapping[str, pa.Array]) -> None:
        """Take the products that are not there yet."""
        ids, locales = texts["product_id"].to_pylist(), texts["product_locale"].to_pylist()
        none = [""] * len(ids)
        rows = zip(*(texts[name].to_pylist() if name in texts else none for name in TEXTS), strict=True)
        fresh = list[int]()
        for number, (locale, one, row) in enumerate(zip(locales, ids, rows, strict=True)):
            if not one or locale not in LOCALES:
                self._nameless += 1
                continue
            key, content = f"{locale}\x1f{one}", "\x1f".join(row)
            mark = hash(content)
            before = self.texts.setdefault(key, mark)
            if before != mark:
                self._other[key] = None
            elif len(self.texts) > self._rows + len(fresh):
                fresh.append(number)
        chosen = pa.array(fresh, pa.int64())
        empty = pa.nulls(len(ids), pa.large_string())
        arrays = [_filled(texts.get(name, empty)).take(chosen).cast(pa.string()) for name in PRODUCTS_COLUMNS]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._rows += len(fresh)

    def sentences(self) -> Iterator[str]:
        """Yield what no table says, and where tables say two things."""
        if self._made_ids:
            yield "product_id: made from the product's texts, which no table numbers"
        if self._nameless:
            yield f"{self._nameless:,} rows name no product that can be kept: it has no id, or an unknown locale"
        if self._other:
            shown = ", ".join(" ".join(reversed(key.split("\x1f"))) for key in list(self._other)[:SHOWN])
            yield f"{len(self._other):,} products have several texts ({shown}); the first one is kept"


class _Pairs:
    """The judged pairs, in memory until all are there."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._tables: list[str] = []
        self._splits: list[str] = []
        self._parts: list[pd.DataFrame] = []
        self._has: list[set[str]] = []

    def begin(self, kind: _Kind) -> int:
        """Begin a table."""
        self._tables.append(kind.table.name)
        self._has.append(set(kind.columns))
        self._splits.append(kind.split or self._options.split or "train")
        return len(self._tables) - 1

    def add(self, texts: Mapping[str, pa.Array], table: int, first_row: int, kind: _Kind) -> None:
        """Take a batch."""
        number = len(texts["query"])
        columns = {name: texts.get(name, pa.nulls(number, pa.large_string())) for name in (*_KEPT, *_FLAGS)}
        if "split" not in texts:
            columns["split"] = _all(self._splits[table], number)
        frame = pa.table(columns).to_pandas()
        frame["table"], frame["row"] = np.int32(table), np.arange(first_row, first_row + number)
        for name in ("product_locale", LABEL_COLUMN, "split", *_FLAGS):
            frame[name] = frame[name].astype("category")
        self._parts.append(frame)

    def chosen(self, products: _Products) -> tuple[pd.DataFrame, list[LeftOut], list[str]]:
        """Return the pairs that are written, which are not, and what no table says of them."""
        frame = pd.concat(self._parts, ignore_index=True)
        self._parts.clear()
        for name in ("product_locale", LABEL_COLUMN, "split", *_FLAGS):
            frame[name] = frame[name].astype(object).fillna("")
        words = frame["split"].str.strip().str.casefold()
        frame["split"] = words.map(_SPLITS).fillna("")
        sentences = self._about_splits(words)
        frame, left_out = self._sifted(frame, words, products)
        sentences += _number_queries(frame)
        frame, again = self._once(frame)
        left_out += again
        sentences += _number_pairs(frame)
        for name in _FLAGS:
            frame[name] = (
                frame[name].str.casefold().map({"1": 1, "true": 1, "0": 0, "false": 0}).fillna(1).astype(np.int64)
            )
            if not all(name in has for has in self._has):
                sentences.append(f"{name}: 1, where no column says it")
        return frame, left_out, sentences

    def _about_splits(self, words: pd.Series) -> list[str]:
        sentences = []
        for name, has, split in zip(self._tables, self._has, self._splits, strict=True):
            if "split" not in has:
                how = (
                    "the name says so"
                    if _split_of(name)
                    else "--split says so"
                    if self._options.split
                    else "nothing tells it"
                )
                sentences.append(f"split of {name}: {split}, {how}")
        if others := sorted({*words.unique()} & {"validation", "valid", "val", "dev"}):
            sentences.append(f"split {', '.join(others)}: read as train, of which a part is drawn for validation")
        return sentences

    def _sifted(self, frame: pd.DataFrame, words: pd.Series, products: _Products) -> tuple[pd.DataFrame, list[LeftOut]]:
        query = frame["query"].fillna("")
        locale, product = frame["product_locale"], frame["product_id"].fillna("")
        key = locale + "\x1f" + product.astype(object)
        label = frame[LABEL_COLUMN]
        reasons = [
            ("it has no query", query.str.strip() == "", query),
            ("it has no product id", product == "", product),
            (f"its locale is not one of {', '.join(LOCALES)}", ~locale.isin(LOCALES), locale),
            ("it has no label", label == "", label),
            (f"its label is not one of {', '.join(LABELS)} or a word for it", ~label.isin(LABELS), label),
            ("its split is neither train nor test", frame["split"] == "", words),
            ("no table has the text of its product", ~key.isin(products.texts), product),
        ]
        kept = np.ones(len(frame), bool)
        left_out = []
        for reason, wrong, shown in reasons:
            rows = np.flatnonzero(kept & wrong.to_numpy(bool))
            kept[rows] = False
            left_out += self._told(reason, frame, rows, shown)
        if not kept.any():
            numbers = [one for one in label.unique() if re.fullmatch(r"-?[0-9.]+", str(one))]
            advice = "; ".join(f"{counted(one.count, 'row')}: {one.reason} ({', '.join(one.rows)})" for one in left_out)
            if numbers:
                said = f"say what each means with --label {numbers[0]}=E, or the setting data_labels; {advice}"
                problem = "no judgement is left: labels are numbers, and nothing says which number is which class"
                raise DataError(problem, count=len(frame), advice=said)
            raise DataError("no judgement is left", count=len(frame), advice=advice)
        return frame[kept].reset_index(drop=True), left_out

    def _once(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, list[LeftOut]]:
        """Keep the first judgement of each pair."""
        of = ["query_id", "product_locale", "product_id"]
        again = frame.duplicated(of).to_numpy()
        if not again.any():
            return frame, []
        first = frame.loc[~again, [*of, LABEL_COLUMN]]
        rows = np.flatnonzero(again)
        before = frame.iloc[rows][of].merge(first, on=of, how="left")[LABEL_COLUMN].to_numpy()
        same = before == frame[LABEL_COLUMN].to_numpy()[rows]
        left_out = self._told("the pair is judged before, alike", frame, rows[same], frame["product_id"])
        left_out += self._told("the pair is judged before, otherwise", frame, rows[~same], frame["product_id"])
        return frame[~again].reset_index(drop=True), left_out

    def _told(self, reason: str, frame: pd.DataFrame, rows: np.ndarray, shown: pd.Series) -> list[LeftOut]:
        if not len(rows):
            return []
        first = tuple(
            f"{self._tables[frame['table'].iloc[row]]} row {frame['row'].iloc[row]}: {str(shown.iloc[row])!r}"
            for row in rows[:SHOWN]
        )
        return [LeftOut(reason, len(rows), first)]


def _number_queries(frame: pd.DataFrame) -> list[str]:
    """Give queries the numbers that tables have, or new ones."""
    numbers = _integers(frame["query_id"])
    text = frame["product_locale"] + "\x1f" + frame["query"].astype(object)
    why = ""
    if numbers is None:
        why = "not every row has a whole number there" if frame["query_id"].notna().any() else "no column has them"
    else:
        of = pd.DataFrame({"locale": frame["product_locale"], "id": numbers, "text": text}).drop_duplicates()
        why = "tables use one number for several queries" if of.duplicated(["locale", "id"]).any() else ""
    frame["query_id"] = pd.factorize(text)[0] if why else numbers
    return [f"query_id: made, one for each text of a locale; {why}"] if why else []


def _number_pairs(frame: pd.DataFrame) -> list[str]:
    """Give pairs the numbers that tables have, or new ones."""
    numbers = _integers(frame["example_id"])
    if numbers is not None and len(np.unique(numbers)) == len(numbers):
        frame["example_id"] = numbers
        return []
    why = "tables use the same numbers" if numbers is not None else "not every row has one"
    frame["example_id"] = np.arange(len(frame))
    return [f"example_id: made, the number of the row that is written, from 0; {why}"]


def _write_pairs(frame: pd.DataFrame, path: Path) -> None:
    kinds = {"integer": pa.int64(), "text": pa.string()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in EXAMPLES_COLUMNS.items()])
    pq.write_table(pa.Table.from_pandas(frame[list(EXAMPLES_COLUMNS)], schema=schema, preserve_index=False), path)


def _integers(column: pd.Series) -> np.ndarray | None:
    """Return text as integers, None unless every row is one."""
    texts = pa.array(column.fillna("").astype(object).tolist(), pa.large_string())
    try:
        return pc.replace_substring_regex(texts, r"^([0-9]+)\.0+$", r"\1").cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return None


def _text(column: pa.Array) -> pa.Array:
    """Return any column as text, "" where there is nothing."""
    column = plain(column)
    if pa.types.is_nested(column.type):
        column = pa.array([_joined(one) for one in column.to_pylist()], pa.large_string())
    elif pa.types.is_floating(column.type):
        column = pa.array(
            [
                None if one is None or one != one else f"{one:.0f}" if one == int(one) else repr(one)
                for one in column.to_pylist()
            ],
            pa.large_string(),
        )
    return pc.fill_null(column.cast(pa.large_string()), "")


def _joined(value: object) -> str | None:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\n".join(str(one) for one in value if one is not None)
    return None if value is None else str(value)


def _filled(column: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.large_string()), column)


def _all(value: str, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.large_string()), rows)
