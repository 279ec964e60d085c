"""Products by id: memory-mapped text, found through a compact index that is built once and kept on disk.

1.8 million products take 36 MB of index (a hash, a row and a text version each), which is mapped into memory too.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from esci_tournament.registry.errors import DataError, StoreError
from esci_tournament.registry.files import disk_in_words, publish, temporary_folder
from esci_tournament.tasks.data.columns import canonical
from esci_tournament.tasks.data.layout import PRODUCTS_FILE
from esci_tournament.tasks.data.parquet_files import is_there, opened, stamp_of

TEXTS = ("title", "brand", "color", "bullets", "description")
_OFFICIAL = {
    "product_id": "product_id",
    "locale": "product_locale",
    "title": "product_title",
    "brand": "product_brand",
    "color": "product_color",
    "bullets": "product_bullet_point",
    "description": "product_description",
}
_HEADER, _FORMAT = "index.json", 2
_ARRAYS = ("keys", "rows", "versions")


class Text(NamedTuple):
    """The texts of one product, "" where there is none; `product_id` is "" for a product without an id."""

    product_id: str
    title: str
    brand: str
    color: str
    bullets: str
    description: str


def text_version(text: Text) -> int:
    """Return the version of a product's text: 64 bits of BLAKE2b of its five text fields, without the id.

    Args:
        text: The product.

    Returns:
        A whole number from 0 to 2**64 - 1.

    Example:
        >>> lamp = Text("B07XJ8C8F5", "Velo red lamp", "Velo", "red", "", "")
        >>> text_version(lamp) == text_version(lamp._replace(product_id="other"))
        True
        >>> text_version(lamp) == text_version(lamp._replace(color="blue"))
        False
    """
    return int.from_bytes(_digest_of_text(text, 8), "little")


def own_version(text: Text) -> int:
    """Return the version of a text that a request brings: 128 bits, and one more that no :func:`text_version` has.

    64 bits are enough to notice that a product of the catalogue has changed. They are too few where anybody may send
    texts until one has the version of a product of the catalogue.

    Args:
        text: The product.

    Returns:
        A whole number from 2**128 to 2**129 - 1.
    """
    return int.from_bytes(_digest_of_text(text, 16), "little") | 1 << 128


def _digest_of_text(text: Text, size: int) -> bytes:
    """Return BLAKE2b of the five text fields, each after its length, so that none can pass for another one."""
    digest = hashlib.blake2b(digest_size=size)
    for field in text[1:]:
        content = field.encode("utf-8", "surrogatepass")
        digest.update(b"%d\x1f" % len(content))
        digest.update(content)
    return digest.digest()


class ProductCatalogue:
    """The products of one data version. Reading is safe from any thread.

    Args:
        table: columns product_id, locale and the five texts, memory-mapped; m rows.
        keys: uint64 (n,), ascending hashes of locale and id, without repeats.
        rows: int32 (n,), the row of each key.
        versions: uint64 (m,), :func:`text_version` of each row.
    """

    def __init__(self, table: pa.Table, keys: np.ndarray, rows: np.ndarray, versions: np.ndarray) -> None:
        self._keys, self._rows, self._versions = keys, rows, versions
        columns = [table.column(name) for name in ("product_id", *TEXTS)]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in columns[0].chunks)])
        self._texts = [_Strings(column) for column in columns]

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def open(cls, products: Path, indices: Path) -> ProductCatalogue:
        """Open the catalogue of an Arrow file; its index is built when it is missing or of another file.

        Args:
            products: the file `products.arrow` of a loaded data set.
            indices: folder of the indices; an index is used again as long as the file's size and time are the same.

        Returns:
            The catalogue, text and index mapped into memory.

        Raises:
            StoreError: if the file cannot be read or the index cannot be written.
        """
        try:
            table = pa.ipc.open_file(pa.memory_map(str(products))).read_all()
            facts = {"format": _FORMAT, "rows": table.num_rows, "bytes": products.stat().st_size}
            facts |= {"changed_ns": products.stat().st_mtime_ns}
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"the catalogue {products} cannot be read: {error}; name another with --catalogue"
            ) from error
        name = hashlib.sha256(str(products.resolve()).encode()).hexdigest()[:16]
        arrays = _read_index(indices / name, facts)
        if arrays is None:
            with disk_in_words("index of the catalogue", indices), temporary_folder(indices, name) as made:
                _write_index(made, table, facts)
                shutil.rmtree(indices / name, ignore_errors=True)
                with suppress(OSError):  # another scorer was faster
                    publish(made, indices / name)
            arrays = _read_index(indices / name, facts)
        if arrays is None:
            raise StoreError(f"the index {indices / name} differs from what was written to it; check the disk")
        return cls(table, *arrays)

    @classmethod
    def empty(cls) -> ProductCatalogue:
        """Return a catalogue without products, with which every page must bring its texts."""
        names = ("product_id", "locale", *TEXTS)
        table = pa.table({name: pa.array([], pa.large_string()) for name in names})
        return cls(table, np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0, np.uint64))

    def find(self, locale: str, product_ids: Sequence[str]) -> np.ndarray:
        """Find products by id.

        Args:
            locale: locale of all of them.
            product_ids: n ids.

        Returns:
            int64 (n,), the row of each product, -1 for one that is not known.

        Example:
            >>> ProductCatalogue.empty().find("us", ["B07XJ8C8F5"]).tolist()
            [-1]
        """
        if not len(self._keys):
            return np.full(len(product_ids), -1, dtype=np.int64)
        wanted = _hashes([locale] * len(product_ids), product_ids)
        place = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[place] == wanted, self._rows[place].astype(np.int64), -1)

    def versions(self, rows: np.ndarray) -> np.ndarray:
        """Return the text version of each row, uint64 (n,).

        Args:
            rows: int (n,), as :meth:`find` returns them; none may be -1.
        """
        return self._versions[rows]

    def texts(self, rows: Sequence[int]) -> list[Text]:
        """Return the texts of some rows, in the order of `rows`; none may be -1."""
        chunks = np.searchsorted(self._starts, rows, side="right") - 1
        places = list(zip(chunks.tolist(), (np.asarray(rows) - self._starts[chunks]).tolist(), strict=True))
        return list(map(Text, *(strings.take(places) for strings in self._texts)))

    def sample(self, number: int) -> list[int]:
        """Return at most `number` row numbers, spread evenly over the catalogue, ascending."""
        return np.unique(np.linspace(0, max(len(self) - 1, 0), min(number, len(self))).astype(int)).tolist()


class _Strings:
    """A text column read by row straight from its Arrow buffers: `take` of a table in chunks copies whole columns."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._chunks = [_buffers(chunk) for chunk in column.chunks]

    def take(self, places: Sequence[tuple[int, int]]) -> list[str]:
        chunks, found = self._chunks, []
        for number, place in places:
            offsets, content = chunks[number]
            found.append(str(content[offsets[place] : offsets[place + 1]], "utf-8"))
        return found


def _buffers(chunk: pa.Array) -> tuple[memoryview, memoryview]:
    wide = chunk.type == pa.large_string()
    size = 8 if wide else 4
    _, offsets, content = chunk.buffers()
    where = memoryview(offsets)[chunk.offset * size : (chunk.offset + len(chunk) + 1) * size].cast("B")
    return where.cast("q" if wide else "i"), memoryview(content or b"")


def import_products(source: Path, folder: Path) -> Path:
    """Return the Arrow file of a folder's products; the official parquet file is converted first.

    Args:
        source: a folder with the products file of the Shopping Queries Dataset, or a loaded data set.
        folder: where converted files are kept; one is used again as long as size and time of the parquet file, or of
            its part files, are the same.

    Returns:
        Path of a file `products.arrow`.

    Raises:
        DataError: if the folder has no such file or it cannot be read.
        StoreError: if the disk is full.
    """
    if (source / "products.arrow").is_file():
        return source / "products.arrow"
    parquet = source / PRODUCTS_FILE
    if not is_there(parquet):
        raise DataError("the catalogue's folder holds no products", file=parquet, advice="correct --catalogue")
    name = hashlib.sha256(stamp_of(parquet).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    target = folder / f"products-{name}"
    if not (target / "products.arrow").is_file():
        with disk_in_words("catalogue", folder), temporary_folder(folder, target.name) as made:
            _convert(parquet, made / "products.arrow")
            shutil.rmtree(target, ignore_errors=True)
            publish(made, target)
    return target / "products.arrow"


def _convert(parquet: Path, target: Path) -> None:
    schema = pa.schema([(name, pa.large_string()) for name in _OFFICIAL])
    table, row = opened(parquet), 0
    if missing := [official for official in _OFFICIAL.values() if official not in table.schema.names]:
        advice = "check it with `data check`"
        raise DataError("the products cannot be read", file=parquet, column=", ".join(missing), advice=advice)
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, schema) as out:
        for part, batch in table.batches(list(_OFFICIAL.values())):
            columns = [
                canonical(column, "text", part.path, name, row).fill_null("")
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            ]
            out.write_batch(pa.record_batch(columns, schema=schema))
            row += batch.num_rows


def _hashes(locales: Sequence[str], product_ids: Sequence[str]) -> np.ndarray:
    digest, join = hashlib.blake2b, "\x1f".join
    content = b"".join(
        digest(join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for parts in zip(locales, product_ids, strict=True)
    )
    return np.frombuffer(content, dtype="<u8")


def _read_index(folder: Path, facts: dict[str, int]) -> list[np.ndarray] | None:
    """Return keys, rows and versions if they are undamaged and of the file with these facts; this takes 40 ms."""
    try:
        header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS]
        return arrays if header == {**facts, "digest": _digest(arrays)} else None
    except (OSError, ValueError):
        return None


def _digest(arrays: Sequence[np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.asarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _write_index(folder: Path, table: pa.Table, facts: dict[str, int]) -> None:
    hashes, versions = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for columns in _columns(table):
        hashes.append(_hashes(columns["locale"], columns["product_id"]))
        texts = zip(*(columns[name] for name in ("product_id", *TEXTS)), strict=True)
        versions.append(np.fromiter((text_version(Text(*text)) for text in texts), np.uint64))
    keys = np.concatenate(hashes)
    # Of a product that the file has twice the first one counts, as in the tournament
    order = np.argsort(keys, kind="stable")
    _, first = np.unique(keys[order], return_index=True)
    rows = order[first].astype(np.int32)
    arrays: list[np.ndarray] = [keys[order][first], rows, np.concatenate(versions)]
    for name, array in zip(_ARRAYS, arrays, strict=True):
        np.save(folder / f"{name}.npy", array)
    (folder / _HEADER).write_text(json.dumps({**facts, "digest": _digest(arrays)}), encoding="utf-8")


def _columns(table: pa.Table) -> Iterator[dict[str, list[str]]]:
    for batch in table.select(["product_id", "locale", *TEXTS]).to_batches():
        yield {name: batch.column(name).to_pylist() for name in batch.schema.names}
