"""The graph-network family: a product is described by its neighbours in a graph, a query by its text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.specs import CandidateSpec
from esci_tournament.tasks.candidates.device import resolve_device, seeded
from esci_tournament.tasks.data.dataset import normalise_query
from esci_tournament.tasks.families.graph_network.catalogue import EmbeddingCatalogue
from esci_tournament.tasks.families.graph_network.embeddings import (
    echoes,
    product_states,
    states_without_neighbours,
)
from esci_tournament.tasks.families.graph_network.encoders import (
    Lsa,
    encode_once,
    fit_encoder,
    load_encoder,
    product_texts,
    text_digest,
)
from esci_tournament.tasks.families.graph_network.inputs import (
    distinct_texts,
    edges_by_relation,
    one_hot,
    pair_inputs,
    run_digest,
    texts_in_use,
    texts_of_nodes,
)
from esci_tournament.tasks.families.graph_network.memory import GraphMemory, Relation
from esci_tournament.tasks.families.graph_network.mend import mended
from esci_tournament.tasks.families.graph_network.neighbourhoods import MISSING, Neighbourhoods, build, stack
from esci_tournament.tasks.families.graph_network.networks import GraphPairNetwork, ProductTower
from esci_tournament.tasks.families.graph_network.refresh import refreshed
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkSpec
from esci_tournament.tasks.families.graph_network.training import World, train
from esci_tournament.tasks.families.lexicon import Lexicon
from esci_tournament.tasks.families.product_keys import identities
from esci_tournament.tasks.families.protocol import Candidate, FitData, too_many
from esci_tournament.tasks.families.seal import seal
from esci_tournament.tasks.families.usable_edges import usable_edges

if TYPE_CHECKING:
    from esci_tournament.tasks.families.graph_network.pretrained import Pretrained

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
        history: `best_epoch`, `macro_f1` and `epochs`, as :func:`train` returns them.
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
        self.history: dict[str, Any] = {}

    @classmethod
    def check(cls, spec: CandidateSpec) -> None:
        """Refuse a text encoder that is no checkpoint.

        Raises:
            SpecError: as :func:`esci_tournament.tasks.families.checkpoint.check_checkpoint`.
        """
        assert isinstance(spec, GraphNetworkSpec)
        if spec.recipe.encoder != "lsa":
            from esci_tournament.tasks.families.checkpoint import check_checkpoint  # with it transformers, for seconds

            check_checkpoint(spec.recipe.encoder, decoders=True)  # of their states the mean is taken, and no more

    @classmethod
    def permit(cls, spec: CandidateSpec, settings: Settings) -> None:
        """Refuse a text encoder that the operator does not allow, or a network with too many parameters.

        Raises:
            SpecError: if so; the message names the setting.
        """
        assert isinstance(spec, GraphNetworkSpec)
        if spec.recipe.encoder != "lsa":
            from esci_tournament.tasks.families.checkpoint import permit_checkpoint

            permit_checkpoint(spec.recipe.encoder, settings)
        if spec.parameters > settings.candidate_parameters:
            raise SpecError(too_many(spec.name, spec.parameters, settings))

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
        edges = usable_edges(self.spec.name, self.spec.relations, data)
        parts = edges_by_relation(self.spec, edges)
        fanout = self._fanout + 1  # one more than is used: the pair's own query is masked
        graphs = [build(part, len(data.products), fanout) for part in parts]
        graph = graphs[0] if len(graphs) == 1 else stack(graphs)

        texts = product_texts(data.products, np.arange(len(data.products)))
        node_queries = texts_of_nodes(edges, graph)
        pair_queries, pair_rows = distinct_texts(data.pairs["query"], data.validation["query"])
        fit_queries = sorted({*node_queries, *(normalise_query(query) for query in data.pairs["query"].unique())})
        corpus = texts + fit_queries
        data.progress(0.0, "reading text")
        self.lexicon = Lexicon.fit(corpus)
        self.encoder = fit_encoder(recipe.encoder, corpus, self.lexicon, recipe.text_dimensions, self.device)
        known = text_digest([recipe.encoder, str(recipe.text_dimensions), *corpus])
        vectors = encode_once(self.encoder, texts + node_queries + pair_queries, known, data.work / "texts")
        text, queries = vectors[: graph.n_nodes], vectors[graph.n_nodes :]

        used_texts, product_rows = texts_in_use(texts, data.pairs, data.validation)
        overlap = self.lexicon.overlap(pair_queries, used_texts, pair_rows, product_rows)
        split = len(data.pairs)
        fit = pair_inputs(data.pairs, graph, pair_rows[:split], overlap[:split])
        validation = pair_inputs(data.validation, graph, pair_rows[split:], overlap[split:])
        with seeded(seed, self.device):
            self.network = GraphPairNetwork.of(self.spec, text.shape[1]).to(self.device)
        self.network.products.learn_scale(text[:: -(-len(text) // _SAMPLE)])
        world = World(graph, text, queries, self._fanout, self.device)
        run = run_digest(self.spec.digest(), seed, known, edges, data.pairs, data.validation)
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
            edges_by_relation(self.spec, edges),
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
        queries, query_rows = distinct_texts(pairs["query"])
        query_text = encoder.encode(queries)
        overlap = lexicon.overlap(queries, texts, query_rows, product_rows)
        locale = one_hot(pairs["locale"])
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

    def learning_curves(self) -> dict[str, list[float | None]]:
        """Return the training loss and the macro F1 on validation of each epoch."""
        epochs = self.history.get("epochs", [])
        named = {"train_loss": "loss", "validation_macro_f1": "macro_f1"}
        return {name: [one[key] for one in epochs] for name, key in named.items() if epochs}

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
            network = GraphPairNetwork.of(model.spec, model.encoder.dimensions)
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
            states[cold] = states_without_neighbours(network.products, vectors, self.device)
        return states, text, echo
