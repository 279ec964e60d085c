"""A pretrained or new encoder with a head for the four classes of a query-product pair."""

from __future__ import annotations

import hashlib
import inspect
from typing import cast

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.families.language_model.batching import Batch
from esci_tournament.tasks.families.language_model.spec import LanguageModelRecipe

_SIMILARITIES = 8
_SLOTS = 2


class TextPairNetwork(nn.Module):
    """An encoder with a head for the four classes.

    As a cross-encoder it reads the pair in one sequence. The head sees the first token's state and, of a pretrained
    encoder, [product, query, |difference|, product * query] of the mean states of either side. It also sees eight
    similarities: the cosine of the mean query and product token, and per query token its best match among the
    product's tokens (mean, minimum, mean weighted by a learned gate), each over input embeddings and over final
    states; and the slots of :class:`_Slots`. A small encoder that starts from random weights would need far more
    pairs than there are here to learn that equal tokens on both sides matter. The late-interaction similarity
    (ColBERT, Khattab and Zaharia 2020, arXiv 2004.12832) gives that from the first step, and the slots learn which
    words belong together in a few epochs.

    As a bi-encoder it reads the texts apart and mean-pools them, and the head sees [product, query, |difference|,
    product * query] and their cosine: a product's vector can be computed ahead.

    Args:
        encoder: the encoder, without a pooler.
        style: "cross_encoder" or "bi_encoder".
        pretrained: whether the encoder starts from a checkpoint. Mean states of random weights lead to overfitting: on
            generated data they cost a new BERT 7 points of macro F1.

    Attributes:
        cross: whether it is a cross-encoder.
        width: the encoder's hidden size.
    """

    def __init__(self, encoder: PreTrainedModel, style: str, pretrained: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.cross, self.pretrained = style == "cross_encoder", pretrained
        self._takes_segments = "token_type_ids" in inspect.signature(encoder.forward).parameters and (
            getattr(encoder.config, "type_vocab_size", 0) > 1
        )
        self.width = width = int(encoder.config.hidden_size)
        hidden = max(64, min(width, 256))
        if self.cross:
            words = int(self._words().weight.shape[1])
            vectors, scalars = (5 if pretrained else 1), _SIMILARITIES + 3 * _SLOTS * words
            self.gate, self.slots = nn.Linear(width, 1), _Slots(words)
        else:
            vectors, scalars = 4, 1
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(vectors))
        self.hidden = nn.Linear(vectors * width + scalars, hidden)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(hidden, len(LABELS))

    def forward(self, pairs: Batch) -> torch.Tensor:
        """Return the logits of a batch of pairs, float32 (b, 4); for a cross-encoder only."""
        states = self._states(pairs)
        words = self._words()(pairs.tokens)
        query, product = pairs.side == 1, pairs.side == 2
        query_mean, product_mean = _mean(states, query), _mean(states, product)
        matches = [_matches(layer, query, product, self.gate(states)) for layer in (words, states)]
        similarities = torch.cat(
            [_cosine(query_mean, product_mean), _cosine(_mean(words, query), _mean(words, product)), *matches], dim=1
        )
        scalars = torch.cat([similarities, self.slots(words, query, product)], dim=1)
        pooled = _interact(query_mean, product_mean) if self.pretrained else []
        return self._head([states[:, 0], *pooled], scalars)

    def embed(self, texts: Batch) -> torch.Tensor:
        """Return the mean-pooled vector of each text, (b, width), in the encoder's dtype; for a bi-encoder only."""
        return _mean(self._states(texts), texts.side == 1)

    def compare(self, query: torch.Tensor, product: torch.Tensor) -> torch.Tensor:
        """Return the logits of pairs of vectors; for a bi-encoder only.

        Args:
            query: float (b, width), what :meth:`embed` made of the queries.
            product: float (b, width), what :meth:`embed` made of the products.

        Returns:
            float32 (b, 4), order E, S, C, I.
        """
        return self._head(_interact(query, product), _cosine(query, product))

    def train(self, mode: bool = True) -> TextPairNetwork:
        """Switch dropout on or off; a frozen part stays in evaluation mode, so that its output never changes.

        Args:
            mode: True for training.

        Returns:
            The network itself.
        """
        super().train(mode)
        for module in self.encoder.modules():
            parameters = list(module.parameters())
            if mode and parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    def digest(self) -> str:
        """Return the SHA-256 over all weights and their names, 64 hex digits."""
        digest = hashlib.sha256()
        for name, value in self.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def start_at(self, shares: torch.Tensor) -> None:
        """Set the head so that it answers about with given class shares, and no step is spent on learning them.

        Args:
            shares: float (4,), sum 1; a share below 1e-4 counts as 1e-4.
        """
        with torch.no_grad():
            self.output.weight.mul_(0.1)
            self.output.bias.copy_(shares.clamp_min(1e-4).log())

    def _words(self) -> nn.Embedding:
        return cast(nn.Embedding, self.encoder.get_input_embeddings())

    def _states(self, batch: Batch) -> torch.Tensor:
        segments = {"token_type_ids": batch.segments} if self._takes_segments else {}
        return self.encoder(input_ids=batch.tokens, attention_mask=batch.mask, **segments).last_hidden_state

    def _head(self, vectors: list[torch.Tensor], scalars: torch.Tensor) -> torch.Tensor:
        normed = [norm(vector) for norm, vector in zip(self.norms, vectors, strict=True)]
        hidden = functional.gelu(self.hidden(torch.cat([*normed, scalars.to(normed[0].dtype)], dim=1)))
        return self.output(self.dropout(hidden)).float()


class _Slots(nn.Module):
    """Words of the query beside words of the product, in a few slots, each filled by attention over one side's tokens.

    A slot learns to look at one kind of word, such as the one that names the product's type; which types are near or go
    together is then learnt from the slots' products, (b, 3 * slots * width) in all.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query_weight, self.product_weight = nn.Linear(width, _SLOTS), nn.Linear(width, _SLOTS)
        self.query_value, self.product_value = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, words: torch.Tensor, query: torch.Tensor, product: torch.Tensor) -> torch.Tensor:
        words = self.norm(words)
        left = _attend(self.query_weight(words), self.query_value(words), query)
        right = _attend(self.product_weight(words), self.product_value(words), product)
        return torch.cat([left, right, left * right], dim=2).flatten(1)


def freeze(encoder: PreTrainedModel, recipe: LanguageModelRecipe) -> None:
    """Switch gradients off for what the recipe freezes; frozen layers freeze the embeddings under them too.

    The backward pass then stops at the lowest trained weight.

    Args:
        encoder: changed in place.
        recipe: `frozen_layers` and `frozen_embeddings` are read.

    Raises:
        SpecError: if the encoder has fewer layers than are to be frozen.
    """
    layers = encoder_layers(encoder)
    if recipe.frozen_layers > len(layers):
        raise SpecError(f"frozen_layers is {recipe.frozen_layers}; the encoder has {len(layers)} separate layers")
    if recipe.frozen_embeddings or recipe.frozen_layers:
        for module in _embeddings(encoder):
            module.requires_grad_(False)
    for layer in layers[: recipe.frozen_layers]:
        layer.requires_grad_(False)


def checkpoint_activations(encoder: PreTrainedModel) -> None:
    """Compute activations again in the backward pass instead of keeping them: less memory, more time.

    Args:
        encoder: changed in place.

    Raises:
        SpecError: if the architecture does not support it.
    """
    # the method was renamed in the course of transformers 5
    enable = getattr(encoder, "activation_checkpointing_enable", None) or encoder.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise SpecError(
            f"gradient_checkpointing: {encoder.config.model_type} has no such thing; switch it off"
        ) from error


def parameter_groups(network: TextPairNetwork, recipe: LanguageModelRecipe) -> list[dict]:
    """Return AdamW's groups: a learning rate for each depth, no weight decay on biases and norms.

    The head has random weights, so its learning rate is ten times the encoder's, but not above 1e-3 unless the
    encoder's is. Each layer below the top one has `layer_decay` times the learning rate of the one above it, the
    embeddings the lowest.

    Args:
        network: only parameters with gradients are in the groups.
        recipe: `learning_rate`, `layer_decay` and `weight_decay` are read.

    Returns:
        Dicts with `params`, `lr` and `weight_decay`.
    """
    layers = encoder_layers(network.encoder)
    depth = {id(parameter): number + 1 for number, layer in enumerate(layers) for parameter in layer.parameters()}
    depth |= {id(parameter): 0 for module in _embeddings(network.encoder) for parameter in module.parameters()}
    inside = {id(parameter) for parameter in network.encoder.parameters()}
    head_rate = max(recipe.learning_rate, min(10 * recipe.learning_rate, 1e-3))
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            below = len(layers) - depth.get(id(parameter), len(layers))
            rate = recipe.learning_rate * recipe.layer_decay**below if id(parameter) in inside else head_rate
            decay = recipe.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def encoder_layers(encoder: PreTrainedModel) -> list[nn.Module]:
    """Return the encoder's layers from below; ALBERT, which uses one layer many times, has one."""
    count = getattr(encoder.config, "num_hidden_layers", 0)
    groups = getattr(encoder.config, "num_hidden_groups", count)
    lists = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    return list(next((stack for stack in lists if len(stack) in (count, groups)), []))


def _embeddings(encoder: PreTrainedModel) -> list[nn.Module]:
    return [getattr(encoder, "embeddings", None) or encoder.get_input_embeddings()]


def _interact(query: torch.Tensor, product: torch.Tensor) -> list[torch.Tensor]:
    return [product, query, (query - product).abs(), query * product]


def _attend(weights: torch.Tensor, values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    shares = weights.masked_fill(~where.unsqueeze(-1), -1e4).softmax(1)
    return shares.transpose(1, 2).to(values.dtype) @ values


def _mean(states: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    weights = where.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp_min(1)


def _cosine(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return functional.cosine_similarity(left, right, dim=1).unsqueeze(1)


def _matches(states: torch.Tensor, query: torch.Tensor, product: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Return mean, minimum and gated mean, (b, 3), of each query token's best cosine among the product's tokens."""
    # The query stands first, so only the columns up to its last token are compared with the product.
    width = max(1, int(query.any(0).nonzero().max()) + 1) if bool(query.any()) else 1
    unit = functional.normalize(states, dim=-1)
    cosine = unit[:, :width] @ unit.transpose(1, 2)
    best = cosine.masked_fill(~product.unsqueeze(1), -1.0).amax(2)
    best = torch.where(product.any(1, keepdim=True), best, torch.zeros_like(best))
    query = query[:, :width]
    some = query.any(1, keepdim=True)
    mean = (best * query).sum(1, keepdim=True) / query.sum(1, keepdim=True).clamp_min(1)
    least = torch.where(some, best.masked_fill(~query, 1.0).amin(1, keepdim=True), torch.zeros_like(mean))
    weights = torch.sigmoid(gate[:, :width, 0]).to(best.dtype) * query
    gated = (best * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp_min(1e-6)
    return torch.cat([mean, least, gated], dim=1)
