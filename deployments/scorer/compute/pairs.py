"""The pairs of a page that must be scored: as frames for members, and as bytes for another process."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import orjson
import pandas as pd

from esci_tournament.deployments.scorer.catalogue import TEXTS, Text

Frames = tuple[pd.DataFrame, pd.DataFrame]


class NotAnswered(Exception):
    """Raised when a member gives no scores for a request: it failed, hangs, or is fenced off."""


class PageFailed(NotAnswered):
    """Raised when a member fails on a page and answers for another one just after: the page is to blame."""


class MemberBroken(NotAnswered):
    """Raised when a member fails on a harmless page too: it may work in a fresh process."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of one request that must be scored: its query and some products.

    Attributes:
        query: query of the request.
        locale: locale of the request, us, es or jp.
        texts: texts of each product.

    Example:
        >>> lamp = Text("B1", "Velo red lamp", "Velo", "red", "", "")
        >>> pairs = Pairs("red lamp", "us", [lamp, lamp._replace(product_id="B2")])
        >>> [text.product_id for text in Pairs.decoded(pairs.encoded).part([1]).texts]
        ['B2']
    """

    query: str
    locale: str
    texts: list[Text]

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, rows: Sequence[int]) -> Pairs:
        """Return some of the pairs, in the order of `rows`."""
        return Pairs(self.query, self.locale, [self.texts[row] for row in rows])

    def between(self, start: int, stop: int) -> Pairs:
        """Return the pairs from `start` to before `stop`."""
        return self if (start, stop) == (0, len(self)) else self.part(range(start, stop))

    @cached_property
    def frames(self) -> Frames:
        """Pairs and products as candidates read them, see :func:`frames_of`; made once for all members."""
        return frames_of([self])

    @property
    def characters(self) -> int:
        """Length of all texts."""
        return sum(map(len, itertools.chain.from_iterable(self.texts)))

    @cached_property
    def encoded(self) -> bytes:
        """The pairs as JSON, UTF-8; made once for all members and replicas."""
        return orjson.dumps([self.query, self.locale, [list(text) for text in self.texts]])

    @classmethod
    def decoded(cls, content: bytes | memoryview) -> Pairs:
        """Return the pairs in the JSON of :attr:`encoded`."""
        query, locale, texts = orjson.loads(content)
        return cls(query, locale, [Text(*text) for text in texts])


HARMLESS = Pairs("a", "us", [Text("", "a", "", "", "", "")])  # every member that works has an answer for it


def frames_of(parts: Sequence[Pairs]) -> Frames:
    """Return the pairs of several requests as the frames that candidates read.

    Args:
        parts: the requests' pairs, at least one pair in all.

    Returns:
        Pairs, one row a pair in the order of the requests: query, locale and product (int32, row in the second frame);
        and products, one row a pair too, with the columns of `Dataset.products`.
    """
    queries, locales, texts = [], [], []
    for part in parts:
        queries += [part.query] * len(part)
        locales += [part.locale] * len(part)
        texts += part.texts
    columns = dict(zip(("product_id", *TEXTS), map(list, zip(*texts, strict=True)), strict=True))
    pairs = pd.DataFrame({"query": queries, "locale": locales, "product": np.arange(len(texts), dtype=np.int32)})
    return pairs, pd.DataFrame({"product_id": columns.pop("product_id"), "locale": locales} | columns)
