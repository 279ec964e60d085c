"""Training of a graph network: mini-batches over neighbourhoods, best epoch by macro F1, resumable after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from esci_tournament.registry.errors import CandidateError
from esci_tournament.registry.files import publish
from esci_tournament.tasks.candidates.device import seeded
from esci_tournament.tasks.ensemble.counts import confusion, macro_f1
from esci_tournament.tasks.families.graph_network.embeddings import echoes
from esci_tournament.tasks.families.graph_network.neighbourhoods import Neighbourhoods
from esci_tournament.tasks.families.graph_network.networks import GraphPairNetwork
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkRecipe
from esci_tournament.tasks.families.graph_network.subgraphs import trees
from esci_tournament.tasks.families.losses import class_weights
from esci_tournament.tasks.families.protocol import Progress

_COLD_SHARE = 0.1  # of the training pairs are shown without neighbours, as products without edges are when scoring
_LAST_RATE = 0.05  # share of the learning rate that is left at the end
_GRADIENT_NORM = 1.0
_EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class PairInputs:
    """What is known of pairs before the graph is looked at.

    Attributes:
        products: int64 (n,), row of the product in the catalogue.
        own_queries: int64 (n,), the pair's own query as a node of the graph, MISSING if it is none.
        queries: int64 (n,), row in the table of query vectors.
        overlap: float32 (n, len(OVERLAPS)).
        locale: float32 (n, len(LOCALES)), one-hot.
        labels: int64 (n,).
    """

    products: np.ndarray
    own_queries: np.ndarray
    queries: np.ndarray
    overlap: np.ndarray
    locale: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.products)


@dataclass(frozen=True)
class World:
    """What mini-batches are made from.

    Attributes:
        graph: neighbourhoods, built with one neighbour more than `fanout`.
        text: float32 (n_nodes, text_dimensions), text vectors of all nodes.
        queries: float32 (n_queries, text_dimensions), text vectors of the pairs' queries.
        fanout: neighbours used of each node and relation.
        device: where to compute.
    """

    graph: Neighbourhoods
    text: np.ndarray
    queries: np.ndarray
    fanout: int
    device: torch.device

    def tensor(self, array: np.ndarray) -> Tensor:
        """Return an array as a tensor on the device, with the same dtype."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def batch_logits(
    network: GraphPairNetwork, world: World, pairs: PairInputs, rows: np.ndarray, isolated: np.ndarray | None = None
) -> Tensor:
    """Return the logits of some pairs, with each pair's own query masked out of the graph.

    Args:
        network: the network, on `world.device`.
        world: graph and text vectors.
        pairs: the pairs.
        rows: int (n,), rows of `pairs`.
        isolated: bool (n,), pairs whose product is shown without any neighbour.

    Returns:
        float (n, 4), order E, S, C, I.
    """
    products, banned = pairs.products[rows], pairs.own_queries[rows]
    part = trees(world.graph, products, banned, len(network.products.layers), world.fanout, isolated)
    text = world.tensor(world.text[part.nodes])
    inputs = network.products.inputs_of(text, world.tensor(part.nodes >= world.graph.n_products))
    arrays = [world.tensor(array) for array in (part.edges, part.strengths, part.degrees, part.types)]
    states = network.products(inputs, *arrays, part.nodes_to_depth, part.edges_to_depth)
    echo = echoes(world.graph, world.text, products, banned, world.fanout)
    if isolated is not None:
        echo[isolated] = 0
    return network.score(
        states,
        text[: len(rows)],
        world.tensor(echo),
        world.tensor(world.queries[pairs.queries[rows]]),
        world.tensor(pairs.overlap[rows]),
        world.tensor(pairs.locale[rows]),
    )


def train(
    network: GraphPairNetwork,
    world: World,
    fit: PairInputs,
    validation: PairInputs,
    recipe: GraphNetworkRecipe,
    seed: int,
    checkpoint: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Fit `network` in place and leave it with the weights of its best epoch.

    A checkpoint is written after every epoch; a run that finds one goes on from there and ends with the same weights
    as a run that was never interrupted.

    Args:
        network: the network, on `world.device`.
        world: graph and text vectors.
        fit: the pairs to fit on.
        validation: the pairs that choose the best epoch.
        recipe: hyperparameters.
        seed: of batches, dropout and masking.
        checkpoint: a safetensors file; its name must tell runs with other data or another spec apart.
        progress: called after every epoch with the share done, 0 to 1, and its macro F1 in words.

    Returns:
        `best_epoch` (from 1), its `macro_f1` on `validation`, and `epochs`: for each epoch `loss`, the mean over the
        batches, and `macro_f1`.

    Raises:
        CandidateError: if the loss is no longer finite.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    by_class = class_weights(fit.labels, recipe.class_weights)
    weights = None if by_class is None else torch.from_numpy(by_class).to(world.device)
    done, best = _resume(checkpoint, network, optimizer)
    best_state, epochs = best.pop("state", None), best.pop("epochs", [])
    for epoch in range(done, recipe.epochs):
        random = np.random.default_rng([seed, epoch])
        with seeded(seed * 1009 + epoch, world.device):
            mean_loss = _one_epoch(network, world, fit, recipe, optimizer, weights, epoch, random)
        macro_f1 = evaluate(network, world, validation)
        epochs.append({"loss": mean_loss, "macro_f1": macro_f1})
        if best_state is None or macro_f1 > best["macro_f1"]:
            best = {"best_epoch": epoch + 1, "macro_f1": macro_f1}
            best_state = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        _keep(checkpoint, network, optimizer, epoch + 1, best | {"epochs": epochs}, best_state)
        progress((epoch + 1) / recipe.epochs, f"epoch {epoch + 1} of {recipe.epochs}: macro F1 {macro_f1:.3f}")
    network.load_state_dict(best_state)
    network.eval()
    return best | {"epochs": epochs}


def evaluate(network: GraphPairNetwork, world: World, pairs: PairInputs) -> float:
    """Return the macro F1, 0 to 1, of the most probable classes; it puts the network into evaluation mode.

    Macro F1 weighs the four classes alike; accuracy would hide the rare ones.

    Args:
        network: the network, on `world.device`.
        world: graph and text vectors.
        pairs: at least one pair, with labels.

    Returns:
        The mean of the four F1 scores, where a class that is neither labelled nor predicted counts as 0.
    """
    network.eval()
    predicted = []
    with torch.inference_mode():
        for start in range(0, len(pairs), _EVALUATION_BATCH):
            rows = np.arange(start, min(start + _EVALUATION_BATCH, len(pairs)))
            predicted.append(batch_logits(network, world, pairs, rows).argmax(1).cpu().numpy())
    return float(macro_f1(confusion(pairs.labels, np.concatenate(predicted))))


def _one_epoch(
    network: GraphPairNetwork,
    world: World,
    fit: PairInputs,
    recipe: GraphNetworkRecipe,
    optimizer: torch.optim.Optimizer,
    weights: Tensor | None,
    epoch: int,
    rng: np.random.Generator,
) -> float:
    """Train for one epoch, and return the mean of its batches' losses."""
    network.train()
    losses: list[Tensor] = []
    labels = world.tensor(fit.labels)
    steps = -(-len(fit) // recipe.batch_size)
    for step, rows in enumerate(_batches(len(fit), recipe.batch_size, rng)):
        share = (epoch * steps + step) / (recipe.epochs * steps)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * (1 - (1 - _LAST_RATE) * share)
        isolated = rng.random(len(rows)) < _COLD_SHARE
        logits = batch_logits(network, world, fit, rows, isolated)
        loss = functional.cross_entropy(logits, labels[world.tensor(rows)], weight=weights)
        if not torch.isfinite(loss):
            raise CandidateError(
                f"the loss became {loss.item()} in epoch {epoch + 1}, step {step + 1}; lower the learning rate "
                f"(now {recipe.learning_rate:g})"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), _GRADIENT_NORM)
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def _batches(total: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    order = rng.permutation(total)
    for start in range(0, total, size):
        yield order[start : start + size]


def _keep(
    path: Path,
    network: GraphPairNetwork,
    optimizer: torch.optim.Optimizer,
    epochs_done: int,
    best: dict[str, Any],
    best_state: dict[str, Tensor],
) -> None:
    """Write one file with all that a later process needs to continue."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best_state.items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(tensors, temporary, metadata={"progress": json.dumps({"epochs_done": epochs_done, **best})})
    publish(temporary, path)


def _resume(path: Path, network: GraphPairNetwork, optimizer: torch.optim.Optimizer) -> tuple[int, dict]:
    """Return the epochs done and the best one so far; without a checkpoint 0 and nothing."""
    if not path.is_file():
        return 0, {}
    groups: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "optimizer": {}}
    with safe_open(path, framework="pt") as file:
        best = json.loads(file.metadata()["progress"])
        for key in file.keys():  # noqa: SIM118 - not a dict
            group, _, name = key.partition(".")
            groups[group][name] = file.get_tensor(key)
    network.load_state_dict(groups["network"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in groups["optimizer"].items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return best.pop("epochs_done"), {**best, "state": groups["best"]}
