"""Trees of a mini-batch: what they contain, and what they must not contain."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.tasks.families.graph_network.neighbourhoods import MISSING, Neighbourhoods, build, stack
from esci_tournament.tasks.families.graph_network.subgraphs import trees

N_PRODUCTS = 6


def graph_of(rows: list[tuple[int, int]], fanout: int) -> Neighbourhoods:
    keys, products = (np.array(column) for column in zip(*rows, strict=True))
    frame = pd.DataFrame(
        {"query_key": keys.astype(np.uint64), "product": products.astype(np.int32), "weight": np.float32(1)}
    )
    return build(frame, N_PRODUCTS, fanout)


EDGES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, N_PRODUCTS - 1)), min_size=1, max_size=25, unique=True)


@given(EDGES, st.integers(1, 3), st.integers(1, 4), st.data())
def test_the_own_query_is_nowhere_in_the_tree(rows: list, layers: int, fanout: int, data: st.DataObject) -> None:
    graph = graph_of(rows, fanout + 1)
    query, product = data.draw(st.sampled_from(rows))
    own = graph.query_nodes(np.array([query]))
    part = trees(graph, np.array([product]), own, layers, fanout)
    assert own[0] not in part.nodes.tolist()


@given(EDGES, st.integers(1, 3), st.integers(1, 4), st.data())
def test_masking_an_edge_is_the_same_as_never_having_had_the_query(
    rows: list, layers: int, fanout: int, data: st.DataObject
) -> None:
    """No trace is left: neither a gap where the query was, nor a degree that counts it."""
    query, product = data.draw(st.sampled_from(rows))
    others = [row for row in rows if row[0] != query]
    if not others:
        return
    with_query = graph_of(rows, N_PRODUCTS + 5)
    without = graph_of(others, N_PRODUCTS + 5)
    masked = trees(with_query, np.array([product]), with_query.query_nodes(np.array([query])), layers, fanout)
    clean = trees(without, np.array([product]), np.array([MISSING]), layers, fanout)

    def names(graph: Neighbourhoods, nodes: np.ndarray) -> list:
        return [int(n) if n < N_PRODUCTS else f"q{graph.query_keys[n - N_PRODUCTS]}" for n in nodes]

    assert names(with_query, masked.nodes) == names(without, clean.nodes)
    assert np.array_equal(masked.edges, clean.edges)
    assert np.allclose(masked.degrees, clean.degrees)


@given(EDGES, st.integers(1, 3), st.integers(1, 4))
def test_every_edge_of_a_tree_is_an_edge_of_the_graph(rows: list, layers: int, fanout: int) -> None:
    graph = graph_of(rows, fanout)
    roots = np.arange(N_PRODUCTS)
    part = trees(graph, roots, np.full(N_PRODUCTS, MISSING), layers, fanout)
    assert part.nodes[:N_PRODUCTS].tolist() == roots.tolist()
    assert part.nodes_to_depth[-1] == len(part.nodes)
    assert part.edges_to_depth[-1] == part.edges.shape[1]
    for child, parent in part.edges.T:
        assert part.nodes[child] in graph.neighbours[part.nodes[parent]]
    assert (np.diff(part.edges[1]) >= 0).all()


@given(EDGES, EDGES, st.integers(1, 3), st.data())
def test_the_own_query_is_nowhere_in_any_relation(one: list, other: list, layers: int, data: st.DataObject) -> None:
    graph = stack([graph_of(one, 3), graph_of(other, 3)])
    query, product = data.draw(st.sampled_from(one + other))
    own = graph.query_nodes(np.array([query]))
    part = trees(graph, np.array([product]), own, layers, 2)
    assert own[0] not in part.nodes.tolist()
    assert (np.diff(part.edges[1]) >= 0).all()
    for (child, parent), kind in zip(part.edges.T, part.types, strict=True):
        columns = slice(3 * (kind // 2), 3 * (kind // 2) + 3)
        assert part.nodes[child] in graph.neighbours[part.nodes[parent], columns]
        assert (part.nodes[child] >= N_PRODUCTS) == kind % 2


def test_a_spare_neighbour_takes_the_place_of_the_masked_one() -> None:
    graph = graph_of([(0, 0), (1, 0), (2, 0)], fanout=3)
    own = graph.query_nodes(np.array([1]))
    part = trees(graph, np.array([0]), own, layers=1, fanout=2)
    assert part.nodes.tolist() == [0, N_PRODUCTS, N_PRODUCTS + 2]


def test_each_root_has_its_own_mask() -> None:
    graph = graph_of([(0, 0), (1, 0)], fanout=3)
    part = trees(graph, np.array([0, 0, 0]), np.array([N_PRODUCTS, N_PRODUCTS + 1, MISSING]), layers=1, fanout=2)
    children = [[int(part.nodes[c]) for c, p in part.edges.T if p == root] for root in range(3)]
    assert children == [[N_PRODUCTS + 1], [N_PRODUCTS], [N_PRODUCTS, N_PRODUCTS + 1]]


@pytest.mark.parametrize("layers", [1, 2])
def test_an_isolated_root_looks_like_a_cold_product(layers: int) -> None:
    graph = graph_of([(0, 0), (1, 0), (1, 1)], fanout=3)
    part = trees(graph, np.array([0, 1]), np.full(2, MISSING), layers, 2, isolated=np.array([True, False]))
    assert 0 not in part.edges[1]
    assert part.degrees[0] == 1
    assert part.degrees[1] == 2
