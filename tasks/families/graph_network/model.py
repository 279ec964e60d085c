"""The graph-network family: a product is described by its neighbours in a graph, a query by its text."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from esci_tournament.registry.errors import CandidateError, LeakError
from esci_tournament.registry.specs import CandidateSpec
from esci_tournament.tasks.candidates.device import resolve_device, seeded
from esci_tournament.tasks.data.dataset import LOCALES, normalise_query
from esci_tournament.tasks.families.checkpoint import check_checkpoint
from esci_tournament.tasks.families.graph_network.catalogue import EmbeddingCatalogue, identities
from esci_tournament.tasks.families.graph_network.embeddings import echoes, product_states
from esci_tournament.tasks.families.graph_network.encoders import (
    Lsa,
    Pretrained,
    encode_once,
    fit_encoder,
    load_encoder,
    product_texts,
    text_digest,
)
from esci_tournament.tasks.families.graph_network.lexicon import Lexicon
from esci_tournament.tasks.families.graph_network.memory import GraphMemory, Relation
from esci_tournament.tasks.families.graph_network.mend import mended
from esci_tournament.tasks.families.graph_network.neighbourhoods import MISSING, Neighbourhoods, build, stack
from esci_tournament.tasks.families.graph_network.networks import GraphPairNetwork, ProductTower
from esci_tournament.tasks.families.graph_network.refresh import refreshed
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkSpec
from esci_tournament.tasks.families.graph_network.training import PairInputs, World, train
from esci_tournament.tasks.families.protocol import Candidate, FitData
from esci_tournament.tasks.families.seal import seal

_CHUNK = 8192
_SAMPLE = 100_000  # nodes whose texts set the scale


class _Fitted(NamedTuple):
    network: GraphPairNetwork
    lexicon: Lexicon
    encoder: Lsa | Pretrained
    catalogue: EmbeddingCatalogue


class GraphNetwork(Candidate):
    """A graph neural network on one relation or several, with a head on the pair.

    Products are nodes, and so are the queries of the relation's edges. Of a pair's own query only the text is read, so
    queries that were never seen need nothing special; a product without edges is described by its own text.

    Attributes:
        spec: architecture, relations and recipe.
        device: where the model computes.
        network: the trained modules.
        lexicon: term weights of the fit's texts.
        encoder: the frozen text encoder.
        catalogue: the products that are computed ahead.
        memory: the graph, for :meth:`refresh`; None for a model that was saved without it.
        history: `best_epoch` and `macro_f1`, as :func:`train` returns them.
    """

    forkable = True

    spec: GraphNetworkSpec

    def __init__(self, spec: GraphNetworkSpec, device: str = "cpu") -> None:
        self.spec = spec
        self.device = resolve_device(device)
        self.network: GraphPairNetwork | None = None
        self.lexicon: Lexicon | None = None
        self.encoder: Lsa | Pretrained | None = None
        self.catalogue: EmbeddingCatalogue | None = None
        self.memory: GraphMemory | None = None
        self.history: dict[str, float] = {}

    @classmethod
    def check(cls, spec: CandidateSpec) -> None:
        """Refuse a text encoder that is no checkpoint.

        Raises:
            SpecError: as :func:`esci_tournament.tasks.families.checkpoint.check_checkpoint`.
        """
        assert isinstance(spec, GraphNetworkSpec)
        if spec.recipe.encoder != "lsa":
            check_checkpoint(spec.recipe.encoder)

    @classmethod
    def describe(cls, spec: CandidateSpec) -> str:
        """Return the architecture and the relations."""
        assert isinstance(spec, GraphNetworkSpec)
        return f"{spec.architecture} on {', '.join(spec.relations)}"

    @classmethod
    def relations_of(cls, spec: CandidateSpec) -> tuple[str, ...]:
        """Return the relations of the spec."""
        assert isinstance(spec, GraphNetworkSpec)
        return spec.relations

    def fit(self, data: FitData) -> Self:
        """Learn from the pairs and the relation's edges, then compute every product of the catalogue ahead.

        Args:
            data: `edges` must hold all relations of the spec.

        Returns:
            The candidate itself.

        Raises:
            CandidateError: if the relation has no edges, or the loss or an embedding is not finite.
            SpecError: if the recipe's text encoder is no checkpoint with safetensors weights.
            LeakError: if an edge belongs to a query of the validation pairs.
        """
        self.device = resolve_device(data.device)
        recipe, seed = self.spec.recipe, data.seed if self.spec.seed is None else self.spec.seed
        edges = self._usable_edges(data)
        parts = self._parts(edges)
        fanout = self._fanout + 1  # one more than is used: the pair's own query is masked
        graphs = [build(part, len(data.products), fanout) for part in parts]
        graph = graphs[0] if len(graphs) == 1 else stack(graphs)

        texts = product_texts(data.products, np.arange(len(data.products)))
        node_queries = _query_texts(edges, graph)
        pair_queries, pair_rows = _distinct(data.pairs["query"], data.validation["query"])
        fit_queries = sorted({*node_queries, *(normalise_query(query) for query in data.pairs["query"].unique())})
        corpus = texts + fit_queries
        data.progress(0.0, "reading text")
        self.lexicon = Lexicon.fit(corpus)
        self.encoder = fit_encoder(recipe.encoder, corpus, self.lexicon, recipe.text_dimensions, self.device)
        known = text_digest([recipe.encoder, str(recipe.text_dimensions), *corpus])
        vectors = encode_once(self.encoder, texts + node_queries + pair_queries, known, data.work / "texts")
        text, queries = vectors[: graph.n_nodes], vectors[graph.n_nodes :]

        overlap = self.lexicon.overlap(pair_queries, *_only_used(texts, pair_rows, data.pairs, data.validation))
        split = len(data.pairs)
        fit = _inputs(data.pairs, graph, pair_rows[:split], overlap[:split])
        validation = _inputs(data.validation, graph, pair_rows[split:], overlap[split:])
        with seeded(seed, self.device):
            relations = len(self.spec.relations)
            self.network = GraphPairNetwork(self.spec.architecture, recipe, text.shape[1], relations).to(self.device)
        self.network.products.learn_scale(text[:: -(-len(text) // _SAMPLE)])
        world = World(graph, text, queries, self._fanout, self.device)
        run = _digest(self.spec.digest(), seed, known, edges, data.pairs, data.validation)
        checkpoint = data.work / f"epochs-{run[:32]}.safetensors"
        self.history = train(self.network, world, fit, validation, recipe, seed, checkpoint, data.progress)
        self.catalogue = self._compute_ahead(self.network.products, graph, text, texts, data)
        kept = tuple(Relation.of(one, part) for one, part in zip(graphs, parts, strict=True))
        self.memory = GraphMemory(kept, text[len(texts) :].astype(np.float16))
        return self

    def refresh(self, edges: pd.DataFrame, products: pd.DataFrame) -> int:
        """Take up edges that came, went or changed, and products that are new.

        Only products within reach of a change are computed anew. What the model has learnt stays as it is. This is for
        a model that serves: a model that is still to be judged must not see the edges of judged queries.

        Args:
            edges: all edges as they are now, columns as in :class:`FitData`.
            products: the catalogue as it is now, in any order; `edges` name its rows.

        Returns:
            The number of products whose state was computed anew.

        Raises:
            CandidateError: if the model is not fitted or keeps no graph, or a relation has no edges.
        """
        network, _, encoder, catalogue = self._fitted()
        if self.memory is None:
            raise CandidateError(
                f"{self.spec.name} was saved without its graph, so it cannot be refreshed; train it again"
            )
        found = refreshed(
            self.spec.name,
            network.products,
            encoder,
            self.memory,
            catalogue,
            self._parts(edges),
            products,
            self._fanout,
            self.device,
        )
        self.memory, self.catalogue = found.memory, found.catalogue
        return found.changed

    def predict_proba(self, pairs: pd.DataFrame, products: pd.DataFrame) -> np.ndarray:
        """Return class probabilities.

        Products that stand in the catalogue of the fit with the same text are looked up; all others, and those whose
        text has changed, are computed from their text.

        Args:
            pairs: columns query, locale and product (row in `products`).
            products: columns product_id, locale, title, brand, color and bullets.

        Returns:
            float32 (len(pairs), 4), order E, S, C, I.

        Raises:
            CandidateError: if the model is not fitted or a probability is not finite.
        """
        network, lexicon, encoder, _ = self._fitted()
        result = np.empty((len(pairs), 4), dtype=np.float32)
        if not len(pairs):
            return result
        rows, product_rows = np.unique(pairs["product"].to_numpy(dtype=np.int64), return_inverse=True)
        texts = product_texts(products, rows)
        states, product_text, echo = self._describe(products, rows, texts)
        queries, query_rows = _distinct(pairs["query"])
        query_text = encoder.encode(queries)
        overlap = lexicon.overlap(queries, texts, query_rows, product_rows)
        locale = _one_hot(pairs["locale"])
        if network.training:  # calling eval() every time would take as long as the head
            network.eval()
        with torch.inference_mode():
            for start in range(0, len(pairs), _CHUNK):
                part = slice(start, start + _CHUNK)
                product, query = product_rows[part], query_rows[part]
                arrays = (
                    states[product],
                    product_text[product],
                    echo[product],
                    query_text[query],
                    overlap[part],
                    locale[part],
                )
                tensors = [torch.from_numpy(array.astype(np.float32)).to(self.device) for array in arrays]
                result[part] = network.score(*tensors).softmax(1).cpu().numpy()
        if not np.isfinite(result).all():
            wrong = int((~np.isfinite(result)).any(axis=1).sum())
            raise CandidateError(f"{self.spec.name}: {wrong} of {len(pairs)} pairs have no finite probabilities")
        return result

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), encoder, catalogue (npy) and spec (JSON, last) into an empty folder.

        Raises:
            CandidateError: if the model is not fitted.
        """
        network, lexicon, encoder, catalogue = self._fitted("there is nothing to save")
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        save_file(weights, folder / "network.safetensors")
        np.save(folder / "lexicon_idf.npy", lexicon.idf)
        encoder.save(folder)
        catalogue.save(folder)
        if self.memory is not None:
            self.memory.save(folder)
        seal(folder, [*folder.glob("catalogue_*.npy"), *folder.glob("graph/**/*.npy")])
        (folder / "history.json").write_text(json.dumps(self.history), encoding="utf-8")
        (folder / "spec.json").write_text(self.spec.model_dump_json(indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Return the model that `save` wrote; the catalogue is memory-mapped, so loading does not read it.

        Args:
            folder: where `save` wrote.
            device: torch device, such as "cpu", "cuda:0" or "auto".

        Returns:
            A fitted model in evaluation mode.

        Raises:
            CandidateError: if a file is missing or is not what `save` writes.
        """
        try:
            content = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
            model = cls(GraphNetworkSpec.model_validate(content), device)
            model.history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
            model.lexicon = Lexicon(np.load(folder / "lexicon_idf.npy", allow_pickle=False))
            model.encoder = load_encoder(folder, model.lexicon, model.device)
            model.catalogue = EmbeddingCatalogue.load(folder)
            model.memory = GraphMemory.load(folder)
            spec, dimensions = model.spec, model.encoder.dimensions
            network = GraphPairNetwork(spec.architecture, spec.recipe, dimensions, len(spec.relations))
            network.load_state_dict(load_file(folder / "network.safetensors"))
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise CandidateError(f"{folder} holds no graph network that can be loaded: {error}") from error
        model.network = network.to(model.device).eval()
        return model

    @property
    def products_ahead(self) -> int:
        """The number of products in the catalogue."""
        return 0 if self.catalogue is None else len(self.catalogue.keys)

    def keep_products(self, products: pd.DataFrame) -> None:
        """Keep the embeddings of these products only, in memory; all others are computed from their text.

        Args:
            products: columns of `Dataset.products`.

        Raises:
            CandidateError: if the model is not fitted.
        """
        rows = self.rows_of(products)
        self.catalogue = self._fitted().catalogue.only(np.unique(rows[rows >= 0]))

    @classmethod
    def mend(cls, folder: Path, device: str = "cpu") -> str | None:
        """Check the embeddings of a saved model, and compute them anew when they are damaged; see :func:`mended`."""
        return mended(folder, device)

    def rows_of(self, products: pd.DataFrame) -> np.ndarray:
        """Return where products stand in the catalogue.

        Args:
            products: columns of `Dataset.products`.

        Returns:
            int64 (len(products),), row in the catalogue, -1 for a product that is not there with this text.

        Raises:
            CandidateError: if the model is not fitted.
        """
        catalogue = self._fitted().catalogue
        texts = product_texts(products, np.arange(len(products)))
        return catalogue.find(identities(products["product_id"], products["locale"].astype(str), texts))

    def parameters(self) -> int:
        """Return the parameters of the network and of the frozen text encoder, without what is computed ahead.

        Raises:
            CandidateError: if the model is not fitted.
        """
        network, _, encoder, _ = self._fitted("it has no parameters yet")
        return sum(parameter.numel() for parameter in network.parameters()) + encoder.parameters()

    def _fitted(self, otherwise: str = "call fit or load first") -> _Fitted:
        """Return what a fitted model is made of.

        Raises:
            CandidateError: if the model is not fitted; the message ends with `otherwise`.
        """
        if self.network is None or self.lexicon is None or self.encoder is None or self.catalogue is None:
            raise CandidateError(f"{self.spec.name} is not fitted; {otherwise}")
        return _Fitted(self.network, self.lexicon, self.encoder, self.catalogue)

    @property
    def _fanout(self) -> int:
        """Neighbours used of each node in each relation."""
        return -(-self.spec.recipe.fanout // len(self.spec.relations))

    def _parts(self, edges: pd.DataFrame) -> list[pd.DataFrame]:
        """Return the edges of each relation, in the order of the spec."""
        if len(self.spec.relations) == 1:
            return [edges]
        return [_of_relation(edges, one) for one in self.spec.relations]

    def _usable_edges(self, data: FitData) -> pd.DataFrame:
        missing = list(self.spec.relations)
        if data.edges is not None and len(data.edges):
            several = len(missing) > 1
            missing = sorted(set(missing) - set(data.edges["relation"].astype(str))) if several else []
        if data.edges is None or missing:
            raise CandidateError(
                f"{self.spec.name}: the relation {missing[0]!r} has no edges in this data version; "
                "choose a relation that the data has events for, such as impressions"
            )
        if "query_key" in data.edges.columns:
            held_out = np.isin(data.edges["query_key"].to_numpy(), data.validation["query_key"].unique())
            if "source" in data.edges.columns:
                held_out &= data.edges["source"].to_numpy() < 0
            if held_out.any():
                raise LeakError(
                    f"{self.spec.name}: {int(held_out.sum())} edges belong to queries of the validation pairs; "
                    "remove held-out queries from the relation first"
                )
        return data.edges

    def _compute_ahead(
        self, tower: ProductTower, graph: Neighbourhoods, text: np.ndarray, texts: list[str], data: FitData
    ) -> EmbeddingCatalogue:
        total = len(texts)
        states = np.empty((total, self.spec.recipe.hidden_size), dtype=np.float16)
        chunks = product_states(tower, graph, text, self._fanout, self.device, data.work)
        for rows, part in chunks:
            states[rows] = part
            data.progress(1.0, f"embeddings of {rows.stop} of {total} products")
        if not np.isfinite(states).all():
            raise CandidateError(f"{self.spec.name}: product embeddings are not finite; lower the learning rate")
        echo = np.empty((total, text.shape[1]), dtype=np.float16)
        for start in range(0, total, _CHUNK):
            nodes = np.arange(start, min(start + _CHUNK, total))
            echo[nodes] = echoes(graph, text, nodes, np.full(len(nodes), MISSING), self._fanout)
        identity = identities(data.products["product_id"], data.products["locale"].astype(str), texts)
        return EmbeddingCatalogue.make(identity, states, text[:total].astype(np.float16), echo)

    def _describe(
        self, products: pd.DataFrame, rows: np.ndarray, texts: list[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return state, text and echo of each product, float16: looked up if known, else from its text alone."""
        network, _, encoder, catalogue = self._fitted()
        ids, locales = (np.asarray(products[name].array.take(rows), object) for name in ("product_id", "locale"))
        found = catalogue.find(identities(ids, locales, texts))
        known, cold = np.flatnonzero(found >= 0), np.flatnonzero(found < 0)
        # Plain arrays over the maps: every access to an np.memmap makes another one
        tables = [np.asarray(table) for table in (catalogue.states, catalogue.texts, catalogue.echoes)]
        states, text, echo = (np.zeros((len(rows), table.shape[1]), dtype=np.float16) for table in tables)
        for output, table in zip((states, text, echo), tables, strict=True):
            output[known] = table[found[known]]
        if len(cold):
            vectors = encoder.encode([texts[row] for row in cold])
            text[cold] = vectors
            states[cold] = self._states_without_neighbours(network.products, vectors)
        return states, text, echo

    def _states_without_neighbours(self, tower: ProductTower, vectors: np.ndarray) -> np.ndarray:
        total, layers = len(vectors), len(tower.layers)
        text = torch.from_numpy(vectors).to(self.device)
        with torch.inference_mode():
            inputs = tower.inputs_of(text, torch.zeros(total, device=self.device))
            edges = torch.empty((2, 0), dtype=torch.int64, device=self.device)
            nothing, ones = torch.empty(0, device=self.device), torch.ones(total, device=self.device)
            facts = edges, nothing, ones, edges[0]
            states = tower(inputs, *facts, (total,) * (layers + 1), (0,) * layers)
        return states.cpu().numpy()


def _distinct(*columns: pd.Series) -> tuple[list[str], np.ndarray]:
    """Return the distinct texts of the columns, and for every row, column after column, its index among them."""
    codes, values = pd.factorize(np.concatenate([column.to_numpy(dtype=object) for column in columns]))
    return [str(value) for value in values], codes.astype(np.int64)


def _only_used(
    texts: list[str], query_rows: np.ndarray, *frames: pd.DataFrame
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the product texts that the pairs name, and the pairs' rows of queries and of these texts."""
    used, rows = np.unique(
        np.concatenate([frame["product"].to_numpy(dtype=np.int64) for frame in frames]), return_inverse=True
    )
    return [texts[row] for row in used], query_rows, rows


def _of_relation(edges: pd.DataFrame, relation: str) -> pd.DataFrame:
    """Return the edges of one relation with the columns that one alone has."""
    rows = edges[(edges["relation"] == relation).to_numpy()]
    between_products = (rows["source"] >= 0).all()
    return rows.drop(columns="query_key" if between_products else "source")


def _query_texts(edges: pd.DataFrame, graph: Neighbourhoods) -> list[str]:
    """Return the normalised text of the graph's queries, in the order of its query keys."""
    if not len(graph.query_keys):
        return []
    if "source" in edges.columns:
        edges = edges[edges["source"] < 0]
    _, first = np.unique(edges["query_key"].to_numpy(dtype=np.uint64), return_index=True)
    return [normalise_query(query) for query in edges["query"].iloc[first]]


def _one_hot(locale: pd.Series) -> np.ndarray:
    return (np.asarray(locale, object)[:, None] == np.array(LOCALES, object)).astype(np.float32)


def _inputs(pairs: pd.DataFrame, graph: Neighbourhoods, query_rows: np.ndarray, overlap: np.ndarray) -> PairInputs:
    return PairInputs(
        products=pairs["product"].to_numpy(dtype=np.int64),
        own_queries=graph.query_nodes(pairs["query_key"].to_numpy()),
        queries=query_rows,
        overlap=overlap,
        locale=_one_hot(pairs["locale"]),
        labels=pairs["label"].to_numpy(dtype=np.int64),
    )


def _digest(spec: str, seed: int, texts: str, edges: pd.DataFrame, *frames: pd.DataFrame) -> str:
    """Return a SHA-256 of everything that a training run follows from."""
    digest = hashlib.sha256(json.dumps([spec, seed, texts]).encode())
    for frame in frames:
        for column in ("query_key", "product", "label"):
            digest.update(np.ascontiguousarray(frame[column].to_numpy()).tobytes())
    for column in (*(name for name in ("query_key", "source") if name in edges.columns), "product", "weight"):
        digest.update(np.ascontiguousarray(edges[column].to_numpy()).tobytes())
    return digest.hexdigest()
