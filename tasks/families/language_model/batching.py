"""Token ids of texts, pairs put together from them, and batches of similar lengths."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from esci_tournament.registry.files import publish

_POOL = 50  # batches among which pairs of like length are brought together; more would order the data by length


@dataclass(frozen=True)
class Ragged:
    """Rows of different length in one flat array: row i is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: int32 (total,), the rows one after the other.
        offsets: int64 (n + 1,), start of each row, and the end of the last.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | np.ndarray]) -> Ragged:
        """Return the rows as one array.

        Args:
            rows: sequences of integers, such as token ids; may be empty.

        Returns:
            A copy of the rows.

        Example:
            >>> Ragged.of([[5, 6], [], [7]]).lengths().tolist()
            [2, 0, 1]
        """
        arrays = [np.asarray(row, dtype=np.int32) for row in rows]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in arrays], out=offsets[1:])
        return cls(np.concatenate(arrays) if arrays else np.zeros(0, np.int32), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def lengths(self) -> np.ndarray:
        """Return the length of each row, int64 (n,)."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Template:
    """The special tokens that a tokenizer puts around a text and around a pair of texts, and the segment of each.

    Attributes:
        single: special tokens (before, after) one text, each a sequence of (token id, segment).
        pair: special tokens (before, between, after) two texts, likewise.
        query_segment: segment of the first text of a pair.
        product_segment: segment of the second text of a pair.
        pad: id of the padding token.
        separator: id of the token between the fields of a product.
    """

    single: tuple[tuple[tuple[int, int], ...], ...]
    pair: tuple[tuple[tuple[int, int], ...], ...]
    query_segment: int
    product_segment: int
    pad: int
    separator: int

    def within(self, rows: int, spare: int) -> Template:
        """Return the template with `spare` in place of the tokens from number `rows` on."""

        def kept(gaps: tuple[tuple[tuple[int, int], ...], ...]) -> tuple[tuple[tuple[int, int], ...], ...]:
            return tuple(tuple((token if token < rows else spare, segment) for token, segment in gap) for gap in gaps)

        pad, separator = (token if token < rows else spare for token in (self.pad, self.separator))
        return replace(self, single=kept(self.single), pair=kept(self.pair), pad=pad, separator=separator)

    @property
    def pair_overhead(self) -> int:
        """Number of special tokens in a pair."""
        return sum(map(len, self.pair))

    @property
    def single_overhead(self) -> int:
        """Number of special tokens around one text."""
        return sum(map(len, self.single))


def read_template(tokenizer: Tokenizer, pad: int, separator: int) -> Template:
    """Return the special tokens that a tokenizer adds, found by encoding a probe, which works for every architecture.

    Args:
        tokenizer: a tokenizer with its post-processor.
        pad: id of its padding token.
        separator: id of the token to put between the fields of a product.

    Returns:
        The template.
    """
    probe = _probe(tokenizer)
    single, pair = tokenizer.encode(probe), tokenizer.encode(probe, probe)
    text = [segment for segment, owner in zip(pair.type_ids, pair.sequence_ids, strict=True) if owner is not None]
    return Template(
        single=_gaps(single, 1), pair=_gaps(pair, 2), query_segment=text[0], product_segment=text[-1], pad=pad,
        separator=separator,
    )  # fmt: skip


def _probe(tokenizer: Tokenizer) -> str:
    return next((text for text in ("a", "1", ".") if tokenizer.encode(text, add_special_tokens=False).ids), "the")


def _gaps(encoding: object, texts: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    gaps: list[list[tuple[int, int]]] = [[] for _ in range(texts + 1)]
    seen = 0
    for token, segment, owner in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):  # type: ignore[attr-defined]
        if owner is None:
            gaps[seen].append((token, segment))
        else:
            seen = owner + 1
    return tuple(tuple(gap) for gap in gaps)


def encode(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> list[np.ndarray]:
    """Return the token ids of each text without special tokens; equal texts are tokenised once.

    Args:
        tokenizer: a tokenizer without truncation and padding.
        texts: the texts.
        limit: tokens kept of each text at most.

    Returns:
        An int32 array for each text, in their order; equal texts share one array.
    """
    known = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    unique, ids = list(known), []
    for start in range(0, len(unique), 4096):  # a chunk at a time: the tokenizer's own records are bulky
        chunk = tokenizer.encode_batch_fast(unique[start : start + 4096], add_special_tokens=False)
        ids += [np.asarray(encoding.ids[:limit], dtype=np.int32) for encoding in chunk]
    return [ids[known[text]] for text in texts]


def join_fields(fields: Sequence[list[np.ndarray]], budgets: Sequence[int], separator: int, limit: int) -> Ragged:
    """Join each product's fields to one row, with the separator between them.

    Fields without text leave no trace, so that the tokens they would cost go to the fields that follow.

    Args:
        fields: for each field, the int32 token ids of each product, as :func:`encode` returns them.
        budgets: tokens kept of each field at most.
        separator: id of the token between two fields.
        limit: tokens kept of a product at most, separators included.

    Returns:
        One row for each product.

    Example:
        >>> title, color = [np.array([1, 2, 3])], [np.array([4])]
        >>> join_fields([title, color], budgets=[2, 9], separator=0, limit=10)[0].tolist()
        [1, 2, 0, 4]
    """
    between = np.asarray([separator], dtype=np.int32)

    def row(parts: tuple[np.ndarray, ...]) -> np.ndarray:
        kept = [part[:budget] for part, budget in zip(parts, budgets, strict=True) if len(part)]
        spaced = [piece for part in kept for piece in (between, part)][1:]
        return np.concatenate(spaced)[:limit] if spaced else between[:0]

    return Ragged.of(row(parts) for parts in zip(*fields, strict=True))


@dataclass(frozen=True)
class Batch:
    """Padded token ids of b texts or pairs, t tokens each.

    Attributes:
        tokens: int64 (b, t).
        mask: int64 (b, t), 1 where a token stands, 0 for padding.
        segments: int64 (b, t).
        side: int8 (b, t), 1 for tokens of the query (or of a single text), 2 for those of the product, else 0.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    segments: torch.Tensor
    side: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(
            *(part.to(device, non_blocking=True) for part in (self.tokens, self.mask, self.segments, self.side))
        )


@dataclass(frozen=True)
class PairTokens:
    """Pairs as rows of two token tables: a text that stands in many pairs is tokenised and kept once.

    Attributes:
        queries: token ids of the distinct queries.
        products: token ids of the distinct products.
        query: int64 (n,), row of each pair in `queries`.
        product: int64 (n,), row of each pair in `products`.
        template: the special tokens.
        max_length: tokens a pair at most, special tokens included. A query takes at most half of it.
    """

    queries: Ragged
    products: Ragged
    query: np.ndarray
    product: np.ndarray
    template: Template
    max_length: int

    def __len__(self) -> int:
        return len(self.query)

    def lengths(self) -> np.ndarray:
        """Return the tokens of each pair, special tokens included, int64 (n,)."""
        free = self.max_length - self.template.pair_overhead
        query = np.minimum(self.queries.lengths()[self.query], max(1, free // 2))
        product = np.minimum(self.products.lengths()[self.product], free - query)
        return query + product + self.template.pair_overhead

    def pairs(self, rows: np.ndarray) -> Batch:
        """Return some pairs as one batch, each "query, product" with its special tokens.

        Args:
            rows: int (b,), numbers of pairs; at least one.

        Returns:
            The pairs in the order of `rows`, padded to the longest.
        """
        template, free = self.template, self.max_length - self.template.pair_overhead
        parts = []
        for row in rows:
            query = self.queries[self.query[row]][: max(1, free // 2)]
            product = self.products[self.product[row]][: free - len(query)]
            parts.append([(query, template.query_segment, 1), (product, template.product_segment, 2)])
        return _pad(parts, template.pair, template.pad)

    def texts(self, table: Ragged, rows: np.ndarray) -> Batch:
        """Return single texts as one batch, each with its special tokens.

        Args:
            table: `queries` or `products`.
            rows: int (b,), rows of the table; at least one.

        Returns:
            The texts in the order of `rows`, padded to the longest.
        """
        limit = self.max_length - self.template.single_overhead
        return _pad([[(table[row][:limit], 0, 1)] for row in rows], self.template.single, self.template.pad)


def _pad(
    items: list[list[tuple[np.ndarray, int, int]]], gaps: tuple[tuple[tuple[int, int], ...], ...], pad: int
) -> Batch:
    overhead = sum(map(len, gaps))
    width = max(sum(len(ids) for ids, _, _ in texts) for texts in items) + overhead
    tokens = np.full((len(items), width), pad, dtype=np.int64)
    mask, segments = np.zeros_like(tokens), np.zeros_like(tokens)
    side = np.zeros(tokens.shape, dtype=np.int8)
    for row, texts in enumerate(items):
        at = 0
        for number, gap in enumerate(gaps):
            for token, segment in gap:
                tokens[row, at], segments[row, at] = token, segment
                at += 1
            if number < len(texts):
                ids, segment, owner = texts[number]
                end = at + len(ids)
                tokens[row, at:end], segments[row, at:end], side[row, at:end] = ids, segment, owner
                at = end
        mask[row, :at] = 1
    return Batch(*map(torch.from_numpy, (tokens, mask, segments, side)))


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the batches of one epoch: each pair once, in random order, pairs of similar length together.

    Pairs are shuffled, cut into pools of 50 batches, ordered by length within a pool, cut into batches, and the batches
    of all pools shuffled. The order follows from `seed` and `epoch` alone, so a resumed run sees the same one.

    Args:
        lengths: int (n,), tokens of each pair.
        batch_size: pairs a batch; the last one of a pool may be smaller.
        seed: of the run.
        epoch: from 0.

    Returns:
        int64 arrays of row numbers, one a batch.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    pools = [order[start : start + _POOL * batch_size] for start in range(0, len(order), _POOL * batch_size)]
    batches = []
    for pool in pools:
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[start : start + batch_size] for start in range(0, len(pool), batch_size)]
    return [batches[number] for number in generator.permutation(len(batches))]


def length_batches(lengths: np.ndarray, batch_size: int, max_tokens: int) -> list[np.ndarray]:
    """Return batches for scoring, longest texts first.

    Args:
        lengths: int (n,), tokens of each pair or text.
        batch_size: rows a batch at most.
        max_tokens: padded tokens a batch at most; a single longer row is a batch of its own.

    Returns:
        int64 arrays of row numbers, each row once.

    Example:
        >>> [batch.tolist() for batch in length_batches(np.array([3, 8, 2]), batch_size=2, max_tokens=8)]
        [[1], [0, 2]]
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = int(np.clip(max_tokens // max(1, int(lengths[order[start]])), 1, batch_size))
        batches.append(order[start : start + size])
        start += size
    return batches


def kept(folder: Path, key: str, make: Callable[[], Ragged]) -> Ragged:
    """Return the rows that `make` makes, from `folder` if they were made there under this key before.

    They are written into a temporary folder that is then renamed, so that a killed run leaves nothing half-written, and
    read back memory-mapped.

    Args:
        folder: where to keep the rows; made if need be.
        key: what the rows follow from, usable as part of a file name.
        make: called without arguments when the folder has nothing under the key.

    Returns:
        The rows, with memory-mapped values.
    """
    target = folder / f"tokens-{key}"
    if not (target / "offsets.npy").is_file():
        made = make()
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".tokens-"))
        try:
            np.save(scratch / "values.npy", made.values, allow_pickle=False)
            np.save(scratch / "offsets.npy", made.offsets, allow_pickle=False)
            if not target.exists():
                publish(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    values = np.load(target / "values.npy", mmap_mode="r", allow_pickle=False)
    return Ragged(values, np.load(target / "offsets.npy", allow_pickle=False))
