"""The text of pairs, each distinct query and product once, and its tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from esci_tournament.registry.errors import SpecError
from esci_tournament.tasks.families.checkpoint_model import in_table
from esci_tournament.tasks.families.japanese import words_of
from esci_tournament.tasks.families.language_model.batching import (
    PairTokens,
    Ragged,
    encode,
    join_fields,
    kept,
    read_template,
)
from esci_tournament.tasks.families.language_model.keywords import Keywords, shortened
from esci_tournament.tasks.families.language_model.spec import LanguageModelRecipe
from esci_tournament.tasks.families.language_model.text import digest_texts, field_texts, query_texts

_WHOLE = 100_000  # tokens; no field is longer


@dataclass(frozen=True)
class PairTexts:
    """The distinct queries and products of some pairs, as text, and the place of each pair's own among them.

    Attributes:
        queries: the distinct queries.
        query: int64 (n,), the query of each pair, index into `queries`.
        fields: for each field, the text of each distinct product.
        product: int64 (n,), the product of each pair, index into the lists of `fields`.
    """

    queries: list[str]
    query: np.ndarray
    fields: dict[str, list[str]]
    product: np.ndarray

    @classmethod
    def of(
        cls,
        pairs: pd.DataFrame,
        products: pd.DataFrame,
        recipe: LanguageModelRecipe,
        keywords: Keywords | None = None,
    ) -> PairTexts:
        """Return the texts that the recipe wants of some pairs.

        Args:
            pairs: columns query and product (row in `products`).
            products: columns of `Dataset.products`.
            recipe: names the fields, their keywords and the maximum length.
            keywords: document frequencies, needed when the recipe shortens fields to keywords.

        Returns:
            The texts.

        Raises:
            DataError: if `products` lacks a field or a row is beyond its end.
        """
        query, queries = pd.factorize(pd.Series(query_texts(pairs["query"]), dtype=object))
        rows, product = np.unique(pairs["product"].to_numpy(dtype=np.int64), return_inverse=True)
        # keywords may stand anywhere in a text: it is then read whole
        whole = field_texts(products, rows, recipe.fields, _WHOLE if keywords else recipe.max_length)
        fields = shortened(whole, recipe.keywords, keywords)
        return cls(list(queries), query.astype(np.int64), fields, product.astype(np.int64))

    def of_products(self, rows: np.ndarray) -> PairTexts:
        """Return the texts of some of the products, without queries and pairs.

        Args:
            rows: int (m,), index into the lists of `fields`.

        Returns:
            Texts with m products.
        """
        none = np.zeros(0, dtype=np.int64)
        return PairTexts([], none, {name: [texts[row] for row in rows] for name, texts in self.fields.items()}, none)

    def all(self) -> list[str]:
        """Return every text: the queries, then field after field."""
        return [*self.queries, *(text for texts in self.fields.values() for text in texts)]

    def digest(self) -> str:
        """Return a BLAKE2b digest of the names of the fields and of all texts, 32 hex digits."""
        return digest_texts([*self.fields, *self.all()])


class PairTokenizer:
    """A Hugging Face tokenizer that turns the texts of pairs into tokens; making one takes up to a second.

    Args:
        wrapped: the tokenizer, kept as attribute `wrapped`; its own padding and truncation are not used.
        recipe: fields, their budgets, and the maximum length.
        rows: of the model's embedding matrix. A token beyond it, as an added word may be, is read as the unknown one.

    Raises:
        SpecError: if it has no separator token.
    """

    def __init__(self, wrapped: PreTrainedTokenizerFast, recipe: LanguageModelRecipe, rows: int) -> None:
        self.wrapped, self._recipe = wrapped, recipe
        self._plain = Tokenizer.from_str(wrapped.backend_tokenizer.to_str())
        self._plain.no_padding()
        self._plain.no_truncation()
        separator = wrapped.sep_token_id if wrapped.sep_token_id is not None else wrapped.eos_token_id
        if separator is None:
            raise SpecError("the checkpoint's tokenizer has no separator token; name an encoder")
        self._spare, self._words = in_table(wrapped, rows), words_of(wrapped)
        self._template = read_template(self._plain, wrapped.pad_token_id, separator)
        if self._spare is not None:
            self._template = self._template.within(*self._spare)

    def tokens(self, texts: PairTexts, work: Path | None = None) -> PairTokens:
        """Return the pairs as tokens.

        Args:
            texts: the texts of the pairs.
            work: a folder where tokens are kept, and read back for the same texts and settings; None keeps nothing.

        Returns:
            The tokens, one row for each distinct query and product.
        """
        if work is None:
            made = self._queries(texts), self._products(texts)
        else:
            recipe, separator = self._recipe, self._template.separator
            told = json.dumps([recipe.max_length, recipe.fields, self._budgets(), separator, *(self._spare or ())])
            if self._words is not None:
                told += json.dumps(self.wrapped.init_kwargs, default=str, sort_keys=True)
            key = digest_texts([self._plain.to_str(), told, texts.digest()])
            made = (
                kept(work, f"queries-{key}", lambda: self._queries(texts)),
                kept(work, f"products-{key}", lambda: self._products(texts)),
            )
        return PairTokens(*made, texts.query, texts.product, self._template, self._recipe.max_length)

    def _queries(self, texts: PairTexts) -> Ragged:
        return Ragged.of(self._encoded(texts.queries))

    def _products(self, texts: PairTexts) -> Ragged:
        ids = [self._encoded(field) for field in texts.fields.values()]
        return join_fields(ids, self._budgets(), self._template.separator, self._recipe.max_length)

    def _encoded(self, texts: Sequence[str]) -> list[np.ndarray]:
        if self._words is not None:
            texts = [self._words(text) for text in texts]
        found = encode(self._plain, texts, self._recipe.max_length)
        if self._spare is None:
            return found
        rows, spare = self._spare
        return [np.where(ids < rows, ids, np.int32(spare)) for ids in found]

    def _budgets(self) -> list[int]:
        recipe = self._recipe
        return [recipe.field_tokens.get(name, recipe.max_length) for name in recipe.fields]
