"""The torch modules of a graph network: message passing, the tower of queries, and the head on the pair."""

from __future__ import annotations

import itertools
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATv2Conv, SAGEConv, SimpleConv

from esci_tournament.registry.errors import CandidateError
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.dataset import LOCALES
from esci_tournament.tasks.families.graph_network.relational import HgtLayer, RgcnLayer
from esci_tournament.tasks.families.graph_network.spec import (
    GNNArchitecture,
    GraphNetworkRecipe,
    GraphNetworkSpec,
)
from esci_tournament.tasks.families.lexicon import OVERLAPS

_NOISE_FLOOR = 0.05  # of the largest deviation; smaller directions are taken for noise and are not scaled up


class GcnLayer(nn.Module):
    """Graph convolution (Kipf and Welling, 2017) between two sets of nodes, normalised by the degrees it is given.

    x'_i = W (x_i / d_i + sum_j s_ij x_j / sqrt(d_i d_j)). Aggregating before the product with W gives what
    torch-geometric's GCNConv gives, at a fraction of the cost when there are far more sources than targets.

    Args:
        inputs: width of the states before the layer.
        outputs: width of the states after it.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.aggregate = SimpleConv(aggr="sum")
        self.linear = nn.Linear(inputs, outputs)

    def forward(
        self, x: tuple[Tensor, Tensor], edges: Tensor, strengths: Tensor, degrees: Tensor, *_others: Tensor
    ) -> Tensor:
        """Return the new states of the targets.

        Args:
            x: float (n_sources, inputs) and (n_targets, inputs); the targets are the first of the sources.
            edges: int64 (2, n_edges), source and target row of each edge.
            strengths: float (n_edges,), the s_ij.
            degrees: float (n_sources,), the d_i.
            *_others: not used.

        Returns:
            float (n_targets, outputs).
        """
        targets = x[1]
        norm = degrees.rsqrt()
        weights = strengths * norm[edges[0]] * norm[edges[1]]
        return self.linear(self.aggregate(x, edges, weights) + targets / degrees[: len(targets)].unsqueeze(1))


class SageLayer(nn.Module):
    """GraphSAGE with the mean of the neighbours (Hamilton, Ying and Leskovec, 2017).

    Args:
        inputs: width of the states before the layer.
        outputs: width of the states after it.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = SAGEConv(inputs, outputs, aggr="mean")

    def forward(
        self, x: tuple[Tensor, Tensor], edges: Tensor, strengths: Tensor, degrees: Tensor, *_others: Tensor
    ) -> Tensor:
        """Return the new states of the targets.

        Args:
            x: float (n_sources, inputs) and (n_targets, inputs); the targets are the first of the sources.
            edges: int64 (2, n_edges), source and target row of each edge.
            strengths: not used.
            degrees: not used.
            *_others: not used.

        Returns:
            float (n_targets, outputs).
        """
        return self.convolution(x, edges, size=(len(x[0]), len(x[1])))


class Gatv2Layer(nn.Module):
    """Attention over the neighbours (GATv2: Brody, Alon and Yahav, 2022), with the edge's strength as its feature.

    Args:
        inputs: width of the states before the layer.
        outputs: width of the states after it, a multiple of `heads`.
        heads: attention heads.
    """

    def __init__(self, inputs: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.convolution = GATv2Conv(inputs, outputs // heads, heads=heads, add_self_loops=False, edge_dim=1)

    def forward(
        self, x: tuple[Tensor, Tensor], edges: Tensor, strengths: Tensor, degrees: Tensor, *_others: Tensor
    ) -> Tensor:
        """Return the new states of the targets.

        Args:
            x: float (n_sources, inputs) and (n_targets, inputs); the targets are the first of the sources.
            edges: int64 (2, n_edges), source and target row of each edge.
            strengths: float (n_edges,).
            degrees: not used.
            *_others: not used.

        Returns:
            float (n_targets, outputs).
        """
        return self.convolution(x, edges, edge_attr=strengths.unsqueeze(1))


def _layer(architecture: GNNArchitecture, inputs: int, outputs: int, heads: int, types: int) -> nn.Module:
    if architecture == "graphsage":
        return SageLayer(inputs, outputs)
    if architecture == "gcn":
        return GcnLayer(inputs, outputs)
    if architecture == "rgcn":
        return RgcnLayer(inputs, outputs, types)
    if outputs % heads:
        raise CandidateError(
            f"{architecture}: hidden_size {outputs} is not a multiple of {heads} heads; change one of them"
        )
    return HgtLayer(inputs, outputs, heads, types) if architecture == "hgt" else Gatv2Layer(inputs, outputs, heads)


class ProductTower(nn.Module):
    """Message passing over the graph; every layer also sees the node's own text.

    A product without edges gets its state from its own text alone.

    Args:
        architecture: kind of the layers.
        recipe: hidden_size, layers, heads and dropout are read.
        text_dimensions: length of the text vectors.
        relations: number of relations in the graph.

    Attributes:
        inputs: width of a node's input, text_dimensions + 1.
        outputs: width of a node's state, hidden_size.
        text_scale: float (text_dimensions,), factor on each dimension of the text.

    Raises:
        CandidateError: if hidden_size is not a multiple of the heads of gatv2 or hgt.
    """

    text_scale: Tensor  # a buffer

    def __init__(
        self, architecture: GNNArchitecture, recipe: GraphNetworkRecipe, text_dimensions: int, relations: int = 1
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = text_dimensions + 1, recipe.hidden_size
        self.register_buffer("text_scale", torch.ones(text_dimensions))
        widths = [self.inputs] + [recipe.hidden_size] * recipe.layers
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList(_layer(architecture, *pair, recipe.heads, 2 * relations) for pair in pairs)
        self.skips = nn.ModuleList(nn.Linear(self.inputs, recipe.hidden_size) for _ in self.layers)
        self.norms = nn.ModuleList(nn.LayerNorm(recipe.hidden_size) for _ in self.layers)
        self.dropout = nn.Dropout(recipe.dropout)

    def learn_scale(self, text: np.ndarray) -> None:
        """Set the factors that bring every dimension of the text to about unit variance.

        Args:
            text: float (n, text_dimensions), a sample of the texts.
        """
        deviation = torch.from_numpy(text.astype(np.float32).std(axis=0))
        self.text_scale.copy_(1 / (deviation + _NOISE_FLOOR * deviation.max()).clamp_min(1e-6))

    def inputs_of(self, text: Tensor, is_query: Tensor) -> Tensor:
        """Return the input of each node: its text, scaled, and whether it is a query.

        Args:
            text: float (n, text_dimensions).
            is_query: bool or float (n,), 1 for a query and 0 for a product.

        Returns:
            float (n, text_dimensions + 1).
        """
        return torch.cat([text * self.text_scale, is_query.to(text.dtype).unsqueeze(1)], dim=1)

    def step(
        self,
        number: int,
        hidden: Tensor,
        own: Tensor,
        edges: Tensor,
        strengths: Tensor,
        degrees: Tensor,
        types: Tensor,
        is_query: Tensor,
    ) -> Tensor:
        """Return the states of the targets after one layer.

        Args:
            number: of the layer, from 0.
            hidden: float (n_sources, width), states before the layer; the targets are its first rows.
            own: float (n_targets, text_dimensions + 1), the targets' own inputs.
            edges: int64 (2, n_edges), source and target row of each edge.
            strengths: float (n_edges,).
            degrees: float (n_sources,).
            types: int64 (n_edges,), see :func:`esci_tournament.tasks.families.graph_network.subgraphs.neighbours_of`.
            is_query: bool (n_sources,).

        Returns:
            float (n_targets, hidden_size).
        """
        message = self.layers[number]((hidden, hidden[: len(own)]), edges, strengths, degrees, types, is_query)
        return self.dropout(functional.gelu(self.norms[number](message + self.skips[number](own))))

    def forward(
        self,
        inputs: Tensor,
        edges: Tensor,
        strengths: Tensor,
        degrees: Tensor,
        types: Tensor,
        nodes_to_depth: tuple[int, ...],
        edges_to_depth: tuple[int, ...],
    ) -> Tensor:
        """Return the states of the roots of a subgraph.

        The arguments after `inputs` are the attributes of
        :class:`esci_tournament.tasks.families.graph_network.subgraphs.Subgraph`.

        Args:
            inputs: float (n_occurrences, text_dimensions + 1), see :meth:`inputs_of`.
            edges: int64 (2, n_edges).
            strengths: float (n_edges,).
            degrees: float (n_occurrences,).
            types: int64 (n_edges,).
            nodes_to_depth: occurrences of depth 0..i, for i = 0..layers.
            edges_to_depth: edges whose parents have depth 0..i, for i = 0..layers-1.

        Returns:
            float (n_roots, hidden_size).
        """
        hidden, depth, is_query = inputs, len(self.layers), inputs[:, -1] > 0.5
        for number in range(depth):
            targets, used = nodes_to_depth[depth - 1 - number], edges_to_depth[depth - 1 - number]
            edge_facts = edges[:, :used], strengths[:used], degrees, types[:used], is_query
            hidden = self.step(number, hidden, inputs[:targets], *edge_facts)
            degrees, is_query = degrees[:targets], is_query[:targets]
        return hidden


class GraphPairNetwork(nn.Module):
    """Compute the logits of the four classes from a query's text and a product's place in the graph.

    Args:
        architecture: kind of the message-passing layers.
        recipe: hidden_size, layers, heads and dropout are read.
        text_dimensions: length of the text vectors.
        relations: number of relations in the graph.

    Attributes:
        products: the tower of products.
        queries: the tower of queries.

    Raises:
        CandidateError: if hidden_size is not a multiple of the heads of gatv2 or hgt.
    """

    def __init__(
        self, architecture: GNNArchitecture, recipe: GraphNetworkRecipe, text_dimensions: int, relations: int = 1
    ) -> None:
        super().__init__()
        hidden = recipe.hidden_size
        self.products = ProductTower(architecture, recipe, text_dimensions, relations)
        self.queries = nn.Sequential(
            nn.Linear(text_dimensions, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(recipe.dropout),
            nn.Linear(hidden, hidden),
        )
        self.query_projection = nn.Linear(hidden, hidden, bias=False)
        self.product_projection = nn.Linear(hidden, hidden, bias=False)
        shallow = 3 + len(OVERLAPS) + len(LOCALES)
        self.head = nn.Sequential(
            nn.Linear(4 * hidden + shallow, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(recipe.dropout),
            nn.Linear(hidden, len(LABELS)),
        )

    @classmethod
    def of(cls, spec: GraphNetworkSpec, text_dimensions: int) -> Self:
        """Return an untrained network by a spec; seed torch before.

        Args:
            spec: architecture, recipe and relations.
            text_dimensions: length of the text vectors.

        Returns:
            The network on the CPU.

        Raises:
            CandidateError: if hidden_size is not a multiple of the heads of gatv2 or hgt.
        """
        return cls(spec.architecture, spec.recipe, text_dimensions, len(spec.relations))

    def score(
        self,
        product: Tensor,
        product_text: Tensor,
        product_echo: Tensor,
        query_text: Tensor,
        overlap: Tensor,
        locale: Tensor,
    ) -> Tensor:
        """Return the logits of pairs.

        Args:
            product: float (n, hidden_size), the product's state after message passing.
            product_text: float (n, text_dimensions), its own text.
            product_echo: float (n, text_dimensions), the mean text of its neighbours, 0 if it has none.
            query_text: float (n, text_dimensions).
            overlap: float (n, len(OVERLAPS)), columns :data:`OVERLAPS` of the lexicon.
            locale: float (n, len(LOCALES)), one-hot.

        Returns:
            float (n, 4), order E, S, C, I.
        """
        query = self.queries(query_text * self.products.text_scale)
        learnt = functional.cosine_similarity(self.product_projection(product), self.query_projection(query))
        text = (product_text * query_text).sum(1)
        echo = functional.cosine_similarity(product_echo, query_text, eps=1e-6)
        # Cosines are small beside layer-normed states; 3 brings them to the same order.
        shallow = 3 * torch.cat([torch.stack([learnt, text, echo], dim=1), overlap], dim=1)
        return self.head(torch.cat([product, query, product * query, (product - query).abs(), shallow, locale], dim=1))
