"""Frozen text encoders: from text to a vector of fixed length, computed once and never trained further."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file, save_file

from esci_tournament.registry.files import publish
from esci_tournament.tasks.families.lexicon import Lexicon, unit_rows
from esci_tournament.tasks.families.ngrams import BUCKETS

if TYPE_CHECKING:
    from esci_tournament.tasks.families.graph_network.pretrained import Pretrained

_TERMS = 1 << 15  # terms that `lsa` reduces: the most frequent ones
_SAMPLE = 60_000  # texts that `lsa` is fitted on
_ROWS = 20_000
_TITLE, _FIELD, _BULLETS = 300, 60, 200  # characters read of title, of brand and color, of the bullets


class Encoder(Protocol):
    """A frozen text encoder.

    Attributes:
        dimensions: length of the vectors.
    """

    dimensions: int

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return a vector for each text.

        Args:
            texts: may be empty, and texts may be "".

        Returns:
            float32 (len(texts), dimensions), each row of length 1, or 0 for a text without a known term.
        """

    def save(self, folder: Path) -> None:
        """Write the files that :func:`load_encoder` reads into an existing folder."""

    def parameters(self) -> int:
        """Return how many numbers encoding needs."""


def product_texts(products: pd.DataFrame, rows: np.ndarray) -> list[str]:
    """Return the text that is read of products: title, brand, color and the beginning of the bullets.

    Args:
        products: columns title, brand, color and bullets, all text without missing values.
        rows: int (n,), rows of `products`.

    Returns:
        One text for each of `rows`: up to 300 characters of the title, 60 of brand and color, 200 of the bullets.

    Example:
        >>> fields = {"title": "Desk lamp", "brand": "Lumo", "color": "white", "bullets": "LED"}
        >>> product_texts(pd.DataFrame([fields]), np.array([0]))
        ['Desk lamp Lumo white LED']
    """
    limits = (("title", _TITLE), ("brand", _FIELD), ("color", _FIELD), ("bullets", _BULLETS))
    # Plain strings: for a page of 40, pandas' own slicing takes longer than the rest of the scoring
    columns = [[text[:limit] for text in np.asarray(products[name].array.take(rows), object)] for name, limit in limits]
    return [" ".join(parts) for parts in zip(*columns, strict=True)]


def text_digest(texts: Iterable[str]) -> str:
    """Return the SHA-256 of a sequence of texts, 64 hex digits; their order counts."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\x1f")
    return digest.hexdigest()


class Lsa:
    """TF-IDF of hashed words and character n-grams, reduced by a truncated singular value decomposition.

    Latent semantic analysis (Deerwester et al., 1990). Works in any script; the same texts give the same vectors.

    Args:
        lexicon: the term weights it was fitted with.
        terms: int32 (n_terms,), ascending hash buckets that are read.
        components: float32 (n_terms, dimensions), right singular vectors.

    Attributes:
        dimensions: length of the vectors.
    """

    def __init__(self, lexicon: Lexicon, terms: np.ndarray, components: np.ndarray) -> None:
        self.lexicon, self.terms, self.components = lexicon, terms, components
        self.dimensions = components.shape[1]
        self._column = np.full(BUCKETS, -1, dtype=np.int32)
        self._column[terms] = np.arange(len(terms), dtype=np.int32)

    @classmethod
    def fit(cls, texts: Sequence[str], lexicon: Lexicon, dimensions: int) -> Self:
        """Fit on texts, or on a fixed random sample of 60,000 when there are more.

        The 32,768 most frequent terms are read, of which those in one text only are left out.

        Args:
            texts: what the directions are fitted on.
            lexicon: term weights, fitted on the same texts.
            dimensions: length of the vectors; when the texts have fewer directions, the rest is 0.

        Returns:
            The fitted encoder.
        """
        if len(texts) > _SAMPLE:
            chosen = np.sort(np.random.default_rng(0).choice(len(texts), _SAMPLE, replace=False))
            texts = [texts[row] for row in chosen]
        matrix = lexicon.tfidf(texts)
        frequency = np.bincount(matrix.indices, minlength=BUCKETS)
        order = np.argsort(-frequency, kind="stable")[:_TERMS]
        terms = np.sort(order[frequency[order] >= min(2, frequency.max())]).astype(np.int32)
        reduced = matrix[:, terms]
        rank = min(dimensions, *reduced.shape)
        components = np.zeros((len(terms), dimensions), dtype=np.float32)
        if rank and reduced.nnz:
            from sklearn.utils.extmath import randomized_svd  # a model that only scores does without scikit-learn

            _, _, directions = randomized_svd(reduced, n_components=rank, n_iter=3, random_state=0)
            components[:, :rank] = directions.T
        return cls(lexicon, terms, components)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return the texts' TF-IDF times the components, float32 (len(texts), dimensions), rows of length 1 or 0."""
        result = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for start in range(0, len(texts), _ROWS):
            matrix = self.lexicon.tfidf(texts[start : start + _ROWS])
            # Choosing columns by hand: scipy's own column indexing costs a pass over all 2^20 buckets.
            rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
            columns = self._column[matrix.indices]
            known = columns >= 0
            pointers = np.concatenate([[0], np.cumsum(np.bincount(rows[known], minlength=matrix.shape[0]))])
            reduced = type(matrix)(
                (matrix.data[known], columns[known], pointers), shape=(matrix.shape[0], len(self.terms))
            )
            result[start : start + matrix.shape[0]] = reduced @ self.components
        return unit_rows(result)

    def save(self, folder: Path) -> None:
        """Write terms and components as npy, and encoder.json, into an existing folder."""
        np.save(folder / "lsa_terms.npy", self.terms)
        np.save(folder / "lsa_components.npy", self.components)
        (folder / "encoder.json").write_text(json.dumps({"kind": "lsa"}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, lexicon: Lexicon) -> Self:
        """Read what :meth:`save` wrote.

        Args:
            folder: where :meth:`save` wrote.
            lexicon: the one it was fitted with.

        Returns:
            The fitted encoder.
        """
        terms, components = (
            np.load(folder / f"lsa_{name}.npy", allow_pickle=False) for name in ("terms", "components")
        )
        return cls(lexicon, terms, components)

    def parameters(self) -> int:
        """Return the number of components, n_terms * dimensions."""
        return self.components.size


def fit_encoder(
    name: str, texts: Sequence[str], lexicon: Lexicon, dimensions: int, device: torch.device
) -> Lsa | Pretrained:
    """Return the encoder that a recipe names: `lsa` is fitted on `texts`, anything else is loaded as it is.

    Args:
        name: "lsa", or a Hugging Face folder or hub id.
        texts: what `lsa` is fitted on.
        lexicon: term weights for `lsa`, fitted on the same texts.
        dimensions: length of the vectors of `lsa`; a pretrained encoder has its own.
        device: where a pretrained encoder computes.

    Returns:
        The encoder.

    Raises:
        SpecError: if `name` is no encoder with safetensors weights.
    """
    if name == "lsa":
        return Lsa.fit(texts, lexicon, dimensions)
    from esci_tournament.tasks.families.graph_network.pretrained import Pretrained  # transformers takes seconds to load

    return Pretrained(name, device)


def load_encoder(folder: Path, lexicon: Lexicon, device: torch.device) -> Lsa | Pretrained:
    """Return the encoder that `save` wrote to `folder`.

    Args:
        folder: holds encoder.json and the encoder's own files.
        lexicon: the term weights that `lsa` was fitted with.
        device: where a pretrained encoder computes.

    Returns:
        The encoder.

    Raises:
        SpecError: if a pretrained encoder's files cannot be opened.
    """
    content = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    if content["kind"] == "lsa":
        return Lsa.load(folder, lexicon)
    from esci_tournament.tasks.families.graph_network.pretrained import Pretrained

    return Pretrained(folder / "encoder", device, max_length=content["max_length"])


def encode_once(encoder: Encoder, texts: Sequence[str], identity: str, cache: Path) -> np.ndarray:
    """Return `encoder.encode(texts)`, read from `cache` when the same encoder has met the same texts before.

    Args:
        encoder: what computes the vectors.
        texts: texts to encode.
        identity: what determines the encoder, such as its name and what it was fitted on.
        cache: folder of earlier results; the name of a file is the digest of encoder and texts.

    Returns:
        float32 (len(texts), dimensions).
    """
    path = cache / f"{text_digest([identity, *texts])[:32]}.safetensors"
    if path.is_file():
        return load_file(path)["vectors"]
    vectors = encoder.encode(texts)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file({"vectors": vectors}, temporary)
    publish(temporary, path)
    return vectors
