"""Layers with separate weights for every type of edge."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import RGCNConv
from torch_geometric.utils import scatter, softmax


class RgcnLayer(nn.Module):
    """Relational graph convolution (Schlichtkrull et al., 2018): x'_i = W x_i + sum_r mean_{j in N_r(i)} W_r x_j.

    Args:
        inputs: width of the states before the layer.
        outputs: width of the states after it.
        types: number of edge types; the two directions of a relation are two types.
    """

    def __init__(self, inputs: int, outputs: int, types: int) -> None:
        super().__init__()
        self.convolution = RGCNConv(inputs, outputs, num_relations=types, aggr="mean")

    def forward(
        self,
        x: tuple[Tensor, Tensor],
        edges: Tensor,
        strengths: Tensor,
        degrees: Tensor,
        types: Tensor,
        is_query: Tensor,
    ) -> Tensor:
        """Return the new states of the targets.

        Args:
            x: float (n_sources, inputs) and (n_targets, inputs); the targets are the first of the sources.
            edges: int64 (2, n_edges), source and target row of each edge.
            strengths: not used.
            degrees: not used.
            types: int64 (n_edges,), type of each edge.
            is_query: not used.

        Returns:
            float (n_targets, outputs).
        """
        return self.convolution(x, edges, types)


class HgtLayer(nn.Module):
    """Heterogeneous graph transformer (Hu et al., 2020), attention over the neighbours of all relations together.

    attention_e = softmax_i(mu_r k_j W_r q_i / sqrt(d)), x'_i = A gelu(sum_e attention_e v_j M_r), where k, q, v and A
    are linear maps of a node's kind (product or query), and mu, W and M belong to the type of the edge. The paper also
    adds the state of the node itself; here :class:`ProductTower` adds the node's own text instead.

    W and M are applied at the targets, once a node and type, not once an edge: the same result, as both are linear.
    Rows that stand in several edges are gathered by `index_select`: its gradient is summed in one order on any number
    of threads, which does not hold for indexing by a tensor.

    Args:
        inputs: width of the states before the layer.
        outputs: width of the states after it, a multiple of `heads`.
        heads: attention heads.
        types: number of edge types; the two directions of a relation are two types.
    """

    def __init__(self, inputs: int, outputs: int, heads: int, types: int) -> None:
        super().__init__()
        self.heads, self.width, self.types = heads, outputs // heads, types
        self.keys, self.queries, self.values = (ByKind(inputs, outputs) for _ in range(3))
        self.update = ByKind(outputs, outputs)
        self.attention = nn.Parameter(torch.empty(types, heads, self.width, self.width))
        self.messages = nn.Parameter(torch.empty(types, heads, self.width, self.width))
        self.prior = nn.Parameter(torch.ones(types, heads))
        for one in (self.attention, self.messages):
            nn.init.uniform_(one, -math.sqrt(3 / self.width), math.sqrt(3 / self.width))

    def forward(
        self,
        x: tuple[Tensor, Tensor],
        edges: Tensor,
        strengths: Tensor,
        degrees: Tensor,
        types: Tensor,
        is_query: Tensor,
    ) -> Tensor:
        """Return the new states of the targets.

        Args:
            x: float (n_sources, inputs) and (n_targets, inputs); the targets are the first of the sources.
            edges: int64 (2, n_edges), source and target row of each edge.
            strengths: not used.
            degrees: not used.
            types: int64 (n_edges,), type of each edge.
            is_query: bool (n_sources,).

        Returns:
            float (n_targets, outputs).
        """
        sources, targets = x
        total = len(targets)
        keys, values = (self._split(module, sources, is_query) for module in (self.keys, self.values))
        queries = self._split(self.queries, targets, is_query[:total])
        source, target = edges
        of_type = [torch.nonzero(types == one).flatten() for one in range(self.types)]

        scores = keys.new_zeros(len(types), self.heads)
        for one, rows in enumerate(of_type):
            if len(rows):
                turned = torch.einsum("nhf,hdf->nhd", queries, self.attention[one])
                from_sources, at_targets = keys.index_select(0, source[rows]), turned.index_select(0, target[rows])
                score = (from_sources * at_targets).sum(-1) * self.prior[one] / math.sqrt(self.width)
                scores = scores.index_copy(0, rows, score)
        shares = softmax(scores, target, num_nodes=total)

        gathered = values.new_zeros(total, self.heads, self.width)
        for one, rows in enumerate(of_type):
            if len(rows):
                weighted = values.index_select(0, source[rows]) * shares[rows].unsqueeze(-1)
                summed = scatter(weighted, target[rows], dim=0, dim_size=total, reduce="sum")
                gathered = gathered + torch.einsum("nhd,hdf->nhf", summed, self.messages[one])
        return self.update(functional.gelu(gathered.flatten(1)), is_query[:total])

    def _split(self, module: ByKind, x: Tensor, is_query: Tensor) -> Tensor:
        return module(x, is_query).view(-1, self.heads, self.width)


class ByKind(nn.Module):
    """Two linear maps, one for products and one for queries.

    Args:
        inputs: width of the rows that are mapped.
        outputs: width of the result.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.product = nn.Linear(inputs, outputs)
        self.query = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor, is_query: Tensor) -> Tensor:
        """Map each row by the map of its kind.

        Args:
            x: float (n, inputs).
            is_query: bool (n,), which rows are queries.

        Returns:
            float (n, outputs).
        """
        result = x.new_empty(len(x), self.product.out_features)
        products, queries = torch.nonzero(~is_query).flatten(), torch.nonzero(is_query).flatten()
        result = result.index_copy(0, products, self.product(x[products]))
        return result.index_copy(0, queries, self.query(x[queries]))
