"""Invariants of neighbourhoods: the strongest few edges of every node, in any order of the edges."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.errors import CandidateError
from esci_tournament.tasks.families.graph_network import neighbourhoods
from esci_tournament.tasks.families.graph_network.neighbourhoods import MISSING, Neighbourhoods, build, refresh, stack

N_PRODUCTS = 12
WEIGHTS = st.sampled_from([0.1, 0.3, 0.5, 1.0, 2.0, 7.25])
QUERY_EDGES = st.lists(
    st.tuples(st.sampled_from([5, 17, 2**40, 2**63 + 9]), st.integers(0, N_PRODUCTS - 1), WEIGHTS),
    min_size=1,
    max_size=60,
)
PRODUCT_EDGES = st.lists(
    st.tuples(st.integers(0, N_PRODUCTS - 1), st.integers(0, N_PRODUCTS - 1), WEIGHTS), min_size=1, max_size=60
)


def query_frame(rows: list[tuple[int, int, float]]) -> pd.DataFrame:
    keys, products, weights = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "query_key": np.array(keys, dtype=np.uint64),
            "product": np.array(products, dtype=np.int32),
            "weight": np.array(weights, dtype=np.float32),
        }
    )


def product_frame(rows: list[tuple[int, int, float]]) -> pd.DataFrame:
    frame = query_frame(rows).rename(columns={"query_key": "source"})
    return frame.astype({"source": np.int32})


def expected(rows: list[tuple[int, int, float]], fanout: int) -> dict[int, list[int]]:
    """The definition, edge by edge in python."""
    keys = sorted({key for key, _, _ in rows})
    sums: dict[tuple[int, int], np.float64] = defaultdict(lambda: np.float64(0))
    for key, product, weight in sorted(rows, key=lambda row: row[2]):
        sums[product, N_PRODUCTS + keys.index(key)] += np.float64(np.float32(weight))
    around = defaultdict(list)
    for (product, query), weight in sums.items():
        around[product].append((-np.float32(weight), query))
        around[query].append((-np.float32(weight), product))
    return {node: [other for _, other in sorted(found)[:fanout]] for node, found in around.items()}


@given(QUERY_EDGES, st.integers(1, 5))
def test_keeps_the_strongest_and_breaks_ties_by_node(rows: list, fanout: int) -> None:
    graph = build(query_frame(rows), N_PRODUCTS, fanout)
    wanted = expected(rows, fanout)
    assert graph.neighbours.shape == (N_PRODUCTS + len({key for key, _, _ in rows}), fanout)
    for node, row in enumerate(graph.neighbours):
        assert row[row != MISSING].tolist() == wanted.get(node, [])


@given(QUERY_EDGES, st.integers(1, 5), st.randoms(use_true_random=False))
def test_order_of_edges_changes_nothing(rows: list, fanout: int, random) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    first, second = (build(query_frame(order), N_PRODUCTS, fanout) for order in (rows, shuffled))
    assert np.array_equal(first.neighbours, second.neighbours)
    assert np.array_equal(first.weights, second.weights)


@given(QUERY_EDGES, st.integers(1, 5))
def test_weights_descend_and_stand_where_neighbours_do(rows: list, fanout: int) -> None:
    graph = build(query_frame(rows), N_PRODUCTS, fanout)
    assert np.array_equal(graph.weights > 0, graph.neighbours != MISSING)
    assert (np.diff(graph.weights, axis=1) <= 0).all()


@given(PRODUCT_EDGES, st.integers(1, 5))
def test_products_are_tied_both_ways_and_never_to_themselves(rows: list, fanout: int) -> None:
    graph = build(product_frame(rows), N_PRODUCTS, fanout)
    tied = {(a, b) for a, b, _ in rows if a != b} | {(b, a) for a, b, _ in rows if a != b}
    assert graph.n_nodes == N_PRODUCTS
    for node, row in enumerate(graph.neighbours):
        found = row[row != MISSING].tolist()
        assert node not in found
        assert {(node, other) for other in found} <= tied
        assert len(found) == min(fanout, sum(first == node for first, _ in tied))


@given(st.booleans(), st.data(), st.integers(1, 4))
def test_a_refresh_is_a_full_rebuild(between_products: bool, data: st.DataObject, fanout: int) -> None:
    """Whatever comes, goes or weighs otherwise: products and queries without edges left, new ones, none at all."""
    rows, frame = (PRODUCT_EDGES, product_frame) if between_products else (QUERY_EDGES, query_frame)
    before, after = data.draw(rows), data.draw(rows)
    kept = data.draw(st.lists(st.sampled_from(before), max_size=40))
    after = after[: data.draw(st.integers(0 if kept else 1, 6))] + kept
    ends = "source" if between_products else "query_key"
    count = [Counter(some) for some in (before, after)]
    changed = [row for row in {*before, *after} if count[0][row] != count[1][row]]
    grown = N_PRODUCTS + data.draw(st.integers(0, 2))
    old = build(frame(before), N_PRODUCTS, fanout)
    touched = frame(changed or before).iloc[: len(changed)][[ends, "product"]]
    found, nodes = refresh(old, frame(after), touched, grown)
    wanted = build(frame(after), grown, fanout)
    assert np.array_equal(found.neighbours, wanted.neighbours)
    assert np.array_equal(found.weights, wanted.weights)
    assert np.array_equal(found.query_keys, wanted.query_keys)
    assert found.n_products == grown
    others = np.setdiff1d(np.arange(N_PRODUCTS), nodes)
    assert np.array_equal(old.weights[others], wanted.weights[others])


def test_a_refresh_sorts_the_edges_of_changed_nodes_alone(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    rows = list(zip(range(2000), rng.integers(0, 900, 2000).tolist(), [1.0] * 2000, strict=True))
    sizes: list[int] = []
    real = neighbourhoods._merge
    monkeypatch.setattr(neighbourhoods, "_merge", lambda first, *rest: sizes.append(len(first)) or real(first, *rest))
    old = build(query_frame(rows), 900, 3)
    _, nodes = refresh(old, query_frame(rows[1:]), query_frame(rows[:1]))
    assert nodes.tolist() == [rows[0][1]]  # its query is gone
    assert sizes[0] == 2000
    assert sizes[1] < 20


def test_a_catalogue_that_shrank_is_not_refreshed() -> None:
    rows = query_frame([(5, 0, 1.0)])
    with pytest.raises(CandidateError, match="did not shrink"):
        refresh(build(rows, N_PRODUCTS, 2), rows, rows, N_PRODUCTS - 1)


@given(QUERY_EDGES, QUERY_EDGES, PRODUCT_EDGES, st.integers(1, 4))
def test_relations_stand_side_by_side(clicks: list, adds: list, ties: list, fanout: int) -> None:
    alone = [build(query_frame(clicks), N_PRODUCTS, fanout), build(query_frame(adds), N_PRODUCTS, fanout)]
    alone.append(build(product_frame(ties), N_PRODUCTS, fanout))
    graph = stack(alone)
    assert (graph.relations, graph.fanout) == (3, fanout)

    def named(one: Neighbourhoods, row: np.ndarray) -> list:
        return [int(n) if n < N_PRODUCTS else f"query {one.query_keys[n - N_PRODUCTS]}" for n in row if n != MISSING]

    for number, one in enumerate(alone):
        columns = slice(number * fanout, (number + 1) * fanout)
        for node in range(N_PRODUCTS):
            assert named(graph, graph.neighbours[node, columns]) == named(one, one.neighbours[node])
        known = one.query_keys
        rows = graph.query_nodes(known)
        assert np.array_equal(graph.weights[rows, columns], one.weights[one.query_nodes(known)])
        unknown = np.setdiff1d(graph.query_keys, known)
        assert (graph.neighbours[graph.query_nodes(unknown), columns] == MISSING).all()


def test_an_edge_given_in_both_directions_weighs_as_one() -> None:
    graph = build(product_frame([(0, 1, 2.0), (1, 0, 2.0)]), N_PRODUCTS, 2)
    assert graph.weights[0].tolist() == [2.0, 0.0]


def test_repeated_clicks_add_up() -> None:
    graph = build(query_frame([(5, 0, 1.0), (17, 0, 1.5), (5, 0, 1.0)]), N_PRODUCTS, 1)
    assert graph.neighbours[0].tolist() == graph.query_nodes(np.array([5])).tolist()
    assert graph.weights[0, 0] == 2.0


def test_unknown_queries_have_no_node() -> None:
    graph = build(query_frame([(5, 0, 1.0), (17, 3, 1.0)]), N_PRODUCTS, 2)
    found = graph.query_nodes(np.array([17, 6, 5, 2**64 - 1], dtype=np.uint64))
    assert found.tolist() == [N_PRODUCTS + 1, MISSING, N_PRODUCTS, MISSING]


def test_round_trip_is_memory_mapped(tmp_path) -> None:
    graph = build(query_frame([(5, 0, 1.0), (17, 3, 1.0)]), N_PRODUCTS, 2)
    graph.save(tmp_path)
    again = Neighbourhoods.load(tmp_path)
    assert isinstance(again.neighbours, np.memmap)
    assert np.array_equal(again.neighbours, graph.neighbours)
    assert np.array_equal(again.weights, graph.weights)
    assert np.array_equal(again.query_keys, graph.query_keys)
    assert again.n_products == N_PRODUCTS


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([(5, N_PRODUCTS, 1.0)], "outside the catalogue"),
        ([(5, -1, 1.0)], "outside the catalogue"),
        ([(5, 0, float("nan"))], "not a positive number"),
        ([(5, 0, 0.0)], "not a positive number"),
        ([(5, 0, float("inf"))], "not a positive number"),
    ],
)
def test_bad_edges_are_named(rows: list, word: str) -> None:
    with pytest.raises(CandidateError, match=word):
        build(query_frame(rows), N_PRODUCTS, 2)


def test_no_edges_is_an_error_in_words() -> None:
    with pytest.raises(CandidateError, match="no edges"):
        build(query_frame([(5, 0, 1.0)]).iloc[:0], N_PRODUCTS, 2)
