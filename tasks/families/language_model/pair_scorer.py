"""Logits, vectors and probabilities of tokenised pairs, a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from esci_tournament.registry.errors import CandidateError
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.candidates.device import autocast, memory_guard
from esci_tournament.tasks.families.language_model.batching import PairTokens, Ragged, length_batches
from esci_tournament.tasks.families.language_model.pair_network import TextPairNetwork

_PAIRS = 256
# Padded tokens a batch may hold: few on a CPU, where the caches are the limit, many on a GPU.
_TOKENS = {"cpu": 4096, "cuda": 131_072}

Vectors = tuple[torch.Tensor, torch.Tensor]  # of all queries, of all products; float32 (rows, width)


@dataclass(frozen=True)
class PairScorer:
    """A network on its device.

    Attributes:
        network: the network.
        device: where it is.
        dtype: dtype of autocast, None for float32.
        name: name of the candidate, for messages.
    """

    network: TextPairNetwork
    device: torch.device
    dtype: torch.dtype | None
    name: str

    def logits(self, tokens: PairTokens, rows: np.ndarray, vectors: Vectors | None = None) -> torch.Tensor:
        """Return the logits of some pairs, with gradients where they are enabled.

        Args:
            tokens: the pairs.
            rows: int (b,), numbers of the pairs; they are one batch.
            vectors: vectors of all queries and products of `tokens`; without them a bi-encoder embeds the texts.

        Returns:
            float32 (b, 4), order E, S, C, I.
        """
        if self.network.cross:
            return self.network(tokens.pairs(rows).to(self.device))
        if vectors is not None:
            return self.network.compare(vectors[0][tokens.query[rows]], vectors[1][tokens.product[rows]])
        sides = []
        for table, numbers in ((tokens.queries, tokens.query[rows]), (tokens.products, tokens.product[rows])):
            unique, inverse = np.unique(numbers, return_inverse=True)
            sides.append(self.network.embed(tokens.texts(table, unique).to(self.device))[inverse])
        return self.network.compare(*sides)

    def frozen_vectors(self, tokens: PairTokens) -> Vectors | None:
        """Return the vectors of all texts if the encoder of a bi-encoder is frozen, so that each is computed once.

        Args:
            tokens: the pairs.

        Returns:
            float32 (rows, width) of the queries and of the products; None for a cross-encoder or a trained encoder.
        """
        if self.network.cross or any(parameter.requires_grad for parameter in self.network.encoder.parameters()):
            return None
        self.network.eval()
        return self.embed(tokens, tokens.queries), self.embed(tokens, tokens.products)

    def embed(self, tokens: PairTokens, table: Ragged) -> torch.Tensor:
        """Return the vector of each text of a table.

        Args:
            tokens: the pairs.
            table: `tokens.queries` or `tokens.products`.

        Returns:
            float32 (len(table), width), on the device and without gradients.
        """
        vectors = torch.zeros(len(table), self.network.width, device=self.device)
        lengths = np.minimum(table.lengths(), tokens.max_length) + tokens.template.single_overhead
        with torch.no_grad(), autocast(self.device, self.dtype):
            for rows in length_batches(lengths, _PAIRS, _TOKENS[self.device.type]):
                vectors[torch.from_numpy(rows)] = self.network.embed(tokens.texts(table, rows).to(self.device)).float()
        return vectors

    def probabilities(self, tokens: PairTokens, rows: np.ndarray, vectors: Vectors | None = None) -> np.ndarray:
        """Return the class probabilities of some pairs.

        Args:
            tokens: the pairs.
            rows: int (n,), numbers of the pairs.
            vectors: vectors of all queries and products of `tokens`; without them a bi-encoder embeds all texts.

        Returns:
            float32 (n, 4), order E, S, C, I, in the order of `rows`.

        Raises:
            CandidateError: if a number is not finite or memory runs out.
        """
        result = np.zeros((len(rows), len(LABELS)), dtype=np.float32)
        with memory_guard("scoring"), torch.no_grad(), autocast(self.device, self.dtype):
            if not self.network.cross and vectors is None:
                vectors = self.embed(tokens, tokens.queries), self.embed(tokens, tokens.products)
            for part in length_batches(tokens.lengths()[rows], _PAIRS, _TOKENS[self.device.type]):
                logits = self.logits(tokens, rows[part], vectors)
                result[part] = torch.softmax(logits.float(), dim=1).cpu().numpy()
        if not np.isfinite(result).all():
            bad = int((~np.isfinite(result)).any(1).sum())
            raise CandidateError(
                f"candidate {self.name} yields scores that are not finite for {bad} of {len(result)} pairs; "
                "lower learning_rate or use precision float32"
            )
        return result
