"""Time to build all neighbourhoods and to embed all products, at the size of the full release.

1.8 M products, 130 k queries, 20 M edges (with a skewed distribution), 2 threads. Each part runs in its own process, so
that its peak memory is measured separately.
"""

from __future__ import annotations

import functools
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.harness import arguments, figure, report, say
from esci_tournament.tasks.families.graph_network.embeddings import product_states
from esci_tournament.tasks.families.graph_network.neighbourhoods import Neighbourhoods, build, refresh
from esci_tournament.tasks.families.graph_network.networks import ProductTower
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkRecipe

THREADS, FANOUT, DIMENSIONS, HOPS = 2, 8, 128, 2
CHANGED = 1_000  # edges that go between a build and a refresh
ARCHITECTURES = ("graphsage", "gcn", "gatv2")


@dataclass(frozen=True)
class Size:
    """How large the generated graph is."""

    products: int
    queries: int
    edges: int


FULL, QUICK = Size(1_800_000, 130_000, 20_000_000), Size(90_000, 6_500, 1_000_000)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1."""
    options = arguments("neighbourhoods", __doc__, argv)
    size = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="neighbourhoods-") as name:
        folder = Path(name)
        say(f"making {size.edges:,} edges between {size.queries:,} queries and {size.products:,} products")
        _apart(functools.partial(make_edges, folder, size, options.seed))
        say("building neighbourhoods")
        seconds, memory = _apart(functools.partial(build_once, folder, size.products))
        figures = [
            figure("neighbourhoods, build", seconds, "s", "<= 180"),
            figure("neighbourhoods, peak memory of the process", memory, "GiB", "<= 6"),
        ]
        say(f"refreshing them after {CHANGED:,} edges went")
        seconds, memory = _apart(functools.partial(refresh_once, folder, size.products, options.seed))
        figures += [
            figure(f"neighbourhoods, refresh after {CHANGED:,} changed edges", seconds, "s", "<= 180"),
            figure("neighbourhoods, refresh, peak memory of the process", memory, "GiB"),
        ]
        for architecture in ARCHITECTURES:
            say(f"embedding all products: {architecture}, {HOPS} hops, {DIMENSIONS} dimensions")
            seconds, memory = _apart(functools.partial(embed_once, folder, architecture, size.products))
            figures += [
                figure(f"embeddings of all products, {architecture}", seconds, "s", "<= 600"),
                figure(f"embeddings of all products, {architecture}, peak memory", memory, "GiB"),
            ]
    report("neighbourhoods", figures, options.json)
    return 0 if all(each.met is not False for each in figures) else 1


def make_edges(folder: Path, size: Size, seed: int) -> float:
    """Write edges, and random text features of all nodes; return the seconds it took."""
    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 2**64, size.queries, dtype=np.uint64)
    np.save(folder / "query_key.npy", keys[(size.queries * rng.random(size.edges) ** 2).astype(np.int64)])
    names = rng.permutation(size.products).astype(np.int32)
    np.save(folder / "product.npy", names[(size.products * rng.random(size.edges) ** 2).astype(np.int64)])
    np.save(folder / "weight.npy", np.log1p(rng.geometric(0.5, size.edges)).astype(np.float32))
    shape = (size.products + size.queries, DIMENSIONS)
    text = np.lib.format.open_memmap(folder / "text.npy", "w+", np.float32, shape)
    for first in range(0, len(text), 100_000):
        part = text[first : first + 100_000]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    return time.perf_counter() - start


def build_once(folder: Path, products: int) -> float:
    """Build and save the neighbourhoods; return the seconds it took."""
    frame = pd.DataFrame({name: np.load(folder / f"{name}.npy") for name in ("query_key", "product", "weight")})
    start = time.perf_counter()
    build(frame, products, FANOUT).save(folder / "graph")
    return time.perf_counter() - start


def refresh_once(folder: Path, products: int, seed: int) -> float:
    """Take edges away, refresh the neighbourhoods and save them; return the seconds it took."""
    frame = pd.DataFrame({name: np.load(folder / f"{name}.npy") for name in ("query_key", "product", "weight")})
    gone = np.random.default_rng(seed).choice(len(frame), CHANGED, replace=False)
    changed, frame = frame.iloc[gone], frame.drop(index=gone)
    start = time.perf_counter()
    graph, _ = refresh(Neighbourhoods.load(folder / "graph"), frame, changed, products)
    graph.save(folder / "refreshed")
    return time.perf_counter() - start


def embed_once(folder: Path, architecture: str, products: int) -> float:
    """Compute and save the embeddings of all products, everything memory-mapped; return the seconds it took."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    recipe = GraphNetworkRecipe(hidden_size=DIMENSIONS, layers=HOPS, fanout=FANOUT)
    tower = ProductTower(architecture, recipe, DIMENSIONS)
    start = time.perf_counter()
    graph = Neighbourhoods.load(folder / "graph")
    text = np.load(folder / "text.npy", mmap_mode="r")
    states = np.lib.format.open_memmap(folder / "states.npy", "w+", np.float16, (products, DIMENSIONS))
    for rows, part in product_states(tower, graph, text, FANOUT, torch.device("cpu"), folder):
        states[rows] = part
    states.flush()
    return time.perf_counter() - start


def _apart(work: Callable[[], float]) -> tuple[float, float]:
    """Run `work` in a fresh process; return the seconds it names and the process's peak memory in GiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, memory = pool.apply(_measured, (work,))
    say(f"  {seconds:.1f} s, {memory:.2f} GiB")
    return seconds, memory


def _measured(work: Callable[[], float]) -> tuple[float, float]:
    seconds = work()
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB here
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    sys.exit(main())
