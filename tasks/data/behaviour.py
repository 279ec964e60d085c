"""Turn what customers saw, clicked, added and bought into weighted edges, without those of held-out queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import CandidateError
from esci_tournament.tasks.data.dataset import Dataset, normalise_query, salted_uniform
from esci_tournament.tasks.data.relations import WITHOUT_LOG, RelationType, relation_type

QUERY_EDGE_COLUMNS = ("query", "locale", "query_key", "product", "relation", "weight")
PRODUCT_EDGE_COLUMNS = ("source", "product", "relation", "weight")
SEVERAL_EDGE_COLUMNS = ("query", "locale", "query_key", "source", "product", "relation", "weight")
_ONE = ("query", "locale", "query_key", "product")
SESSION_PRODUCTS = 20  # of a longer session only the first products are tied together: a clique grows quadratically
BRAND_NEIGHBOURS = 4  # products on each side of a product in its brand's ring


def edges(dataset: Dataset, relation: str | Sequence[str], held_out_keys: np.ndarray) -> pd.DataFrame:
    """Return the edges of one relation, without any that comes from a held-out query.

    Query-product relations: `impressions` counts impression events and judged pairs (a judged pair was retrieved for
    its query); `clicks`, `adds` and `purchases` count events; `all` adds up these four. Product-product relations:
    `bought_together` and `same_session` count the sessions in which two products were bought, or clicked, added or
    bought; `same_brand` ties a product to a few others of its brand and locale. Edges of the plain edge table count
    as many times as their weight says. The weight is log(1 + count).

    A relation with a function of its own (`RelationType.build`) gives that function the data set, without held-out
    queries, labels and, if it says that it follows from the catalogue, without behaviour. The function returns a frame
    of `product`, `weight` > 0, and `source` or `query`, `locale` and `query_key`; an edge between products may be given
    in one direction. Its weights are kept as they are.

    The label of a pair is never read. Queries of the test split are held out whether or not the caller says so, and
    events of a product that the catalogue does not have are left out.

    Args:
        dataset: The data set.
        relation: The relation; several give what :func:`edges_of_several` returns.
        held_out_keys: uint64 (n,), keys of the queries whose edges must not be seen (test, blend or fold, validation).

    Returns:
        For query-product relations a frame with `query` str, `locale` category, `query_key` uint64, `product` int32,
        `relation` str, `weight` float32, sorted by query_key and product; for product-product relations one with
        `source` int32, `product` int32, `relation`, `weight`, each edge in both directions, sorted.

    Raises:
        CandidateError: If the data has neither events nor an edge table, or none in them that the relation needs, or if
            the relation's own function returns unusable edges.
        UsageError: If the relation is not known.
    """
    if not isinstance(relation, str):
        return edges_of_several(dataset, relation, held_out_keys)
    kind = relation_type(relation)
    held_out = _held_out(dataset, held_out_keys)
    if kind.build:
        return _built(kind, dataset, held_out)
    if kind.needs_log:
        _check_there_are_any(dataset, kind)
    if kind.ends == "product":
        events = None if dataset.events is None else _events(dataset.events, kind.actions, held_out)
        return _together(dataset, events, kind)
    parts = []
    if kind.judged:
        parts.append(_judged(dataset, held_out).assign(count=1.0))
    if dataset.events is not None:
        parts.append(_events(dataset.events, kind.actions, held_out)[list(_ONE)].assign(count=1.0))
    if dataset.edges is not None:
        parts.append(_tabled(dataset.edges, kind, held_out))
    return _counted(pd.concat(parts, ignore_index=True), relation)


def edges_of_several(dataset: Dataset, relations: Sequence[str], held_out_keys: np.ndarray) -> pd.DataFrame:
    """Return the edges of several relations, one after the other, each as :func:`edges` gives it.

    Args:
        dataset: The data set.
        relations: Names of relations, at least one.
        held_out_keys: uint64 (n,), keys of the queries whose edges must not be seen.

    Returns:
        A frame with the columns of both kinds (:data:`SEVERAL_EDGE_COLUMNS`): `query`, `locale`, `query_key`, `source`,
        `product`, `relation`, `weight`; between products query and locale are "" and the key 0, from queries `source`
        is -1.

    Raises:
        CandidateError: If the data has nothing for one of them.
        UsageError: If one of them is not known.
    """
    parts = []
    for relation in relations:
        part = edges(dataset, relation, held_out_keys)
        if "source" in part:
            part = part.assign(query="", locale="", query_key=np.uint64(0))
        else:
            part = part.assign(source=np.int32(-1), locale=part["locale"].astype(str))
        parts.append(part[list(SEVERAL_EDGE_COLUMNS)])
    return pd.concat(parts, ignore_index=True)


def _held_out(dataset: Dataset, held_out_keys: np.ndarray) -> np.ndarray:
    test = dataset.pairs.loc[dataset.pairs["split"] == "test", "query_key"].to_numpy()
    return np.union1d(np.asarray(held_out_keys, dtype=np.uint64), test)


def _check_there_are_any(dataset: Dataset, kind: RelationType) -> None:
    relation, actions = kind.name, kind.actions
    if dataset.events is None and dataset.edges is None:
        raise CandidateError(
            f"relation {relation}: the data in {dataset.source} has no behaviour events; "
            f"add behaviour_events.parquet, or choose the relation {' or '.join(WITHOUT_LOG)}"
        )
    if dataset.events is not None and dataset.events["action"].isin(actions).any():
        return
    if dataset.edges is not None and _of(dataset.edges, kind).any():
        return
    seen = set() if dataset.events is None else set(dataset.events["action"].astype(str))
    seen |= set() if dataset.edges is None else set(dataset.edges["relation"].astype(str))
    raise CandidateError(
        f"relation {relation}: the data in {dataset.source} has no event {' or '.join(actions)} and no edge of it "
        f"(it has {', '.join(sorted(seen)) or 'nothing'}); choose another relation"
    )


def _of(table: pd.DataFrame, kind: RelationType) -> np.ndarray:
    return (table["relation"].isin(kind.tabled) & (table["product"] >= 0)).to_numpy()


def _tabled(table: pd.DataFrame, kind: RelationType, held_out: np.ndarray) -> pd.DataFrame:
    """Return the edge table's edges of a query-product relation and their counts."""
    kept = _of(table, kind) & (table["source"] < 0).to_numpy()
    kept &= ~np.isin(table["query_key"].to_numpy(), held_out)
    return table.loc[kept, [*_ONE, "weight"]].rename(columns={"weight": "count"})


def _judged(dataset: Dataset, held_out: np.ndarray) -> pd.DataFrame:
    pairs = dataset.pairs
    kept = ~np.isin(pairs["query_key"].to_numpy(), held_out) & (pairs["product"].to_numpy() >= 0)
    return pairs.loc[kept, ["query", "locale", "query_key", "product"]]


def _events(events: pd.DataFrame, actions: tuple[str, ...], held_out: np.ndarray) -> pd.DataFrame:
    wanted = events["action"].isin(actions).to_numpy()
    known = events["product"].to_numpy() >= 0
    return events.loc[wanted & known & ~np.isin(events["query_key"].to_numpy(), held_out)]


def _counted(rows: pd.DataFrame, relation: str) -> pd.DataFrame:
    rows = rows.sort_values(["query_key", "product"], kind="stable")
    groups = rows.groupby(["query_key", "product"], sort=True)
    counted = groups[["query", "locale"]].first().reset_index()
    counted["relation"] = relation
    counted["weight"] = np.log1p(groups["count"].sum().to_numpy(np.float64)).astype(np.float32)
    return counted[list(QUERY_EDGE_COLUMNS)]


def _together(dataset: Dataset, events: pd.DataFrame | None, kind: RelationType) -> pd.DataFrame:
    """Return the ties of the sessions and of the edge table, in both directions."""
    products = max(len(dataset.products), 1)
    nobody = np.empty(0, dtype=np.int64)
    source, product = (nobody, nobody) if events is None else _session_ties(events)
    code, count = source * products + product, np.ones(len(source))
    if dataset.edges is not None:
        table = dataset.edges[_of(dataset.edges, kind) & (dataset.edges["source"] >= 0).to_numpy()]
        ends = [table[name].to_numpy(np.int64) for name in ("source", "product")]
        different = ends[0] != ends[1]
        ends, weight = [end[different] for end in ends], table["weight"].to_numpy(np.float64)[different]
        code = np.concatenate([code, ends[0] * products + ends[1], ends[1] * products + ends[0]])
        count = np.concatenate([count, weight, weight])
    codes, place = np.unique(code, return_inverse=True)
    counts = np.bincount(place, weights=count, minlength=len(codes))
    return _product_edges(codes // products, codes % products, counts, kind.name)


def _session_ties(events: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Tie the products of each session to each other, at most :data:`SESSION_PRODUCTS` of a session, first come."""
    found = events[["client", "session", "time", "locale", "product"]].sort_values(["time"], kind="stable")
    session = found.groupby(["client", "session", "locale"], observed=True, sort=True).ngroup()
    found = pd.DataFrame({"session": session.to_numpy(), "product": found["product"].to_numpy()}).drop_duplicates()
    found = found[found.groupby("session").cumcount() < SESSION_PRODUCTS]
    ties = found.merge(found, on="session", suffixes=("_source", ""))
    ties = ties[ties["product_source"] != ties["product"]]
    return ties["product_source"].to_numpy(np.int64), ties["product"].to_numpy(np.int64)


def same_brand(dataset: Dataset) -> pd.DataFrame:
    """Tie each product to its neighbours in a ring of its brand's products; a stable hash of the ids orders the ring.

    Brands are compared as queries are (:func:`~esci_tournament.tasks.data.dataset.normalise_query`), within one locale.
    A product has :data:`BRAND_NEIGHBOURS` neighbours on each side, so that edges grow with the products and not with
    their square.

    Args:
        dataset: The data set; only its products are read.

    Returns:
        Frame with `source` int64 and `product` int64 (rows of `dataset.products`), and `weight` float64, which is log 2
        for all; each edge in both directions, sorted by source and product.
    """
    products = dataset.products
    names = {brand: normalise_query(brand) for brand in products["brand"].unique()}
    brand = products["brand"].map(names)
    named = products.index[brand != ""]
    ring = pd.DataFrame(
        {"row": named, "brand": brand[named].to_numpy(), "locale": products["locale"][named].to_numpy()}
    )
    ring["place"] = salted_uniform(pd.util.hash_array(products["product_id"][named].to_numpy(object)), "brand ring")
    ring = ring.sort_values(["brand", "locale", "place", "row"], kind="stable").reset_index(drop=True)
    group = ring.groupby(["brand", "locale"], observed=True, sort=False)
    size, place, row = group["row"].transform("size").to_numpy(), group.cumcount().to_numpy(), ring["row"].to_numpy()
    first = np.arange(len(ring)) - place
    sources, targets = [], []
    for step in range(1, BRAND_NEIGHBOURS + 1):
        other = row[first + (place + step) % np.maximum(size, 1)]
        different = other != row
        sources += [row[different], other[different]]
        targets += [other[different], row[different]]
    ties = np.unique(np.stack([np.concatenate(sources), np.concatenate(targets)], axis=1).astype(np.int64), axis=0)
    return pd.DataFrame({"source": ties[:, 0], "product": ties[:, 1], "weight": np.log1p(1)})


def _built(kind: RelationType, dataset: Dataset, held_out: np.ndarray) -> pd.DataFrame:
    """Return the edges that a relation's own function makes; it is shown nothing of a held-out query."""
    pairs, events, table = dataset.pairs.drop(columns="label", errors="ignore"), dataset.events, dataset.edges
    if kind.catalogue:
        shown = replace(dataset, pairs=pairs.iloc[:0], events=None, edges=None)
    else:
        kept = (None if one is None else one[~np.isin(one["query_key"], held_out)] for one in (pairs, events, table))
        pairs, events, table = kept
        shown = replace(dataset, pairs=pairs, events=events, edges=table)
    found = kind.builder()(shown)
    columns = PRODUCT_EDGE_COLUMNS if kind.ends == "product" else QUERY_EDGE_COLUMNS
    if missing := [name for name in columns if name not in (*found.columns, "relation")]:
        raise CandidateError(f"relation {kind.name}: its edges have no column {missing[0]}")
    ends = ["source", "product"] if kind.ends == "product" else ["product"]
    types = dict.fromkeys(ends, np.int32) | {"weight": np.float32}
    found = found.astype(types).assign(relation=kind.name)
    if ((found[ends] < 0) | (found[ends] >= len(dataset.products))).any(axis=None) or not (found["weight"] > 0).all():
        raise CandidateError(f"relation {kind.name}: an edge has no product of the catalogue, or no weight above 0")
    if kind.ends == "product":
        back = found.rename(columns={"source": "product", "product": "source"})
        found = pd.concat([found, back]).drop_duplicates(ends)
    else:
        found = found[~np.isin(found["query_key"].to_numpy(np.uint64), held_out)]
    order = ends if kind.ends == "product" else ["query_key", "product"]
    return found.sort_values(order, kind="stable", ignore_index=True)[list(columns)]


def _product_edges(source: np.ndarray, product: np.ndarray, counts: np.ndarray, relation: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "source": source.astype(np.int32),
            "product": product.astype(np.int32),
            "relation": relation,
            "weight": np.log1p(counts).astype(np.float32),
        },
        columns=list(PRODUCT_EDGE_COLUMNS),
    )
