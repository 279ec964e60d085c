"""The scorer over HTTP, pages of 40: cached and not, as a closed and an open loop, and during swaps.

The scorer and its peer run as separate processes, one after the other. The load comes from this process, on the same
machine. The peer is `mlflow models serve` with a pyfunc that returns a constant for a page of 40: the overhead of
MLflow's server without any model. The champion is that of TOURNAMENT_HOME if it is set, or else that of a small
generated world (`tournament demo --full --queries 300`, two minutes). Uncached pages are compared with the time of
their members when they are called one after the other in one process.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.harness import Figure, arguments, figure, median_seconds, report, say
from benchmarks.load.generator import Load, closed_loop, open_loop, request
from benchmarks.scorers import Swaps, copied_home, free_port, memory_mib, metric, running_scorer, until_ready

PAGE, PAGES = 40, 50
_PEER = "mlflow models serve, constant pyfunc"
_CONSTANT = """
import mlflow
import numpy as np
import pandas as pd


class Constant(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: pd.DataFrame, params=None):
        return pd.DataFrame(np.full((len(model_input), 4), 0.25), columns=["E", "S", "C", "I"])


mlflow.models.set_model(Constant())
"""


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1; a quick run only shows that it runs."""
    options = arguments("serving", __doc__, argv)
    seconds = 3.0 if options.quick else 20.0
    with tempfile.TemporaryDirectory() as temporary:
        home = copied_home(Path(temporary))
        figures = list(measure(home, seconds, 20.0 if options.quick else 600.0, 2 if options.quick else 20))
    report("serving", figures, options.json)
    return 0 if options.quick or all(each.met is not False for each in figures) else 1


def measure(home: Path, seconds: float, swapping_seconds: float, swaps: int) -> Iterator[Figure]:
    """Yield all figures.

    Args:
        home: A home with a champion; labels and copies are written there.
        seconds: Length of each load.
        swapping_seconds: Length of the run with swaps.
        swaps: Changes of the champion in that run.
    """
    shutil.rmtree(home / "cache", ignore_errors=True)
    with _peer() as address:
        body = {"dataframe_split": {"columns": ["query"], "data": [["red lamp"]] * PAGE}}
        asked = [request(address, "/invocations", json.dumps(body).encode())]
        peer_alone, peer_many = _loads(address, asked, seconds)
    with running_scorer(home) as (address, process):
        pages = _pages(home, PAGES)
        known = [request(address, "/v1/score", json.dumps(page).encode()) for page in pages]
        _fill(address, known)
        alone, many = _loads(address, known, seconds)
        rate = 0.8 * many.per_second
        peer_p50, peer_p99 = peer_alone.milliseconds(50), peer_alone.milliseconds(99)
        yield figure("cached page, one client, p50", alone.milliseconds(50), "ms", "<= 3", _PEER, peer_p50)
        yield figure("cached page, one client, p99", alone.milliseconds(99), "ms", "<= 10", _PEER, peer_p99)
        yield figure("cached pages, 8 clients", many.per_second, "requests/s", "", _PEER, peer_many.per_second)
        times = many.per_second / peer_many.per_second
        yield figure("cached pages against the peer", times, "times", ">= 3", _PEER, 1.0)
        yield figure("failed requests, closed loop", alone.failed + many.failed, "requests", "<= 0")
        for share in (0.5, 0.8):
            load = open_loop(address, known, share * many.per_second, seconds)
            name = f"cached pages, open loop at {share:.0%} of capacity"
            yield figure(f"{name}, p50", load.milliseconds(50), "ms")
            yield figure(f"{name}, p99", load.milliseconds(99), "ms")
        yield from _uncached(address, home, pages, seconds)
        yield from _swapping(address, process, home, known, rate, swapping_seconds, swaps)


def _uncached(address: str, home: Path, pages: list[dict], seconds: float) -> Iterator[Figure]:
    # What slow members can do is asked here, not what is answered within the default deadline
    fresh = [
        {**page, "query": f"{page['query']} {number}", "deadline_ms": 60_000} for number, page in enumerate(pages * 40)
    ]
    asked = [request(address, "/v1/score", json.dumps(page).encode()) for page in fresh]
    load = closed_loop(address, asked[: len(asked) // 2], 1, min(seconds, 10))
    crowd = closed_loop(address, asked[len(asked) // 2 :], 8, min(seconds, 10))
    bare = _bare_milliseconds(home, pages[:5])
    p50 = load.milliseconds(50)
    yield figure("uncached page, one client, p50", p50, "ms", "", "its members alone, one after the other", bare)
    yield figure("uncached page against its members", p50 / bare, "times", "<= 1.1", "the members alone", 1.0)
    yield figure("uncached pages, 8 clients", crowd.per_second, "requests/s", "", "its members alone", 1000 / bare)
    yield figure("failed requests, uncached", load.failed + crowd.failed, "requests", "<= 0")


def _swapping(
    address: str, process: int, home: Path, known: list[bytes], rate: float, seconds: float, swaps: int
) -> Iterator[Figure]:
    """Load at 80 % of capacity while champions change places; a page is uncached after each change of champion."""
    before = memory_mib(process)
    load = Load()
    changing = Swaps(home)
    peak = before
    for number in range(swaps):
        changing.step()
        part = open_loop(address, known, rate, seconds / swaps)
        load.seconds += part.seconds
        load.elapsed += part.elapsed
        for status, count in part.failures.items():
            load.failures[status] = load.failures.get(status, 0) + count
        peak = max(peak, memory_mib(process))
        say(f"swap {number + 1} of {swaps}: {load.failed} failed, {memory_mib(process):.0f} MiB")
    seen = metric(address, "scorer_swaps_total")
    after = memory_mib(process)
    name = f"{seconds:.0f} s at 80 % of capacity with {swaps} swaps"
    yield figure(f"{name}: failed requests", load.failed, "requests", "<= 0")
    yield figure(f"{name}: swaps taken over", seen, "swaps", f">= {swaps}")
    yield figure(f"{name}: p99", load.milliseconds(99), "ms")
    yield figure(f"{name}: memory at the end", after, "MiB", "", "at the beginning", before)
    yield figure(f"{name}: growth of memory", after / before, "times", "<= 1.2")


def _loads(address: str, asked: list[bytes], seconds: float) -> tuple[Load, Load]:
    closed_loop(address, asked, 2, 1.0)
    return closed_loop(address, asked, 1, seconds), closed_loop(address, asked, 8, seconds)


def _fill(address: str, known: list[bytes]) -> None:
    """Ask for the pages until the cache has what it keeps of them, however slow the members are."""
    before, now = -1.0, 0.0
    while before < now:
        closed_loop(address, known, 1, 10.0)
        time.sleep(0.5)  # labels are written behind the answers
        before, now = now, metric(address, "scorer_cache_entries")


def _pages(home: Path, number: int) -> list[dict]:
    """Return pages of products of the champion's catalogue, asked for by words of their titles."""
    from esci_tournament.tasks.data.store import read_frame

    products = read_frame(next((home / "stages").glob("load-*")) / "products.arrow")
    chosen = products[products["locale"] == "us"].sample(PAGE * number, replace=True, random_state=0)
    pages = []
    for start in range(0, PAGE * number, PAGE):
        rows = chosen.iloc[start : start + PAGE]
        query = " ".join(rows["title"].iloc[0].split()[:2]) + f" {start}"
        pages.append({"query": query, "locale": "us", "products": [{"id": one} for one in rows["product_id"]]})
    return pages


def _bare_milliseconds(home: Path, pages: list[dict]) -> float:
    """Return the median time of a page in all members, one after the other; the best of torch's numbers of threads."""
    import torch

    from esci_tournament.deployments.scorer.catalogue import ProductCatalogue
    from esci_tournament.deployments.scorer.compute.pairs import Pairs
    from esci_tournament.tasks.ensemble.ensemble import Ensemble

    folder = next(next((home / "serving" / "champions").glob("*-*/ensemble")).iterdir())
    served = Ensemble.load(folder)
    source = next((home / "stages").glob("load-*")) / "products.arrow"
    catalogue = ProductCatalogue.open(source, home / "serving" / "catalogues")

    def once(frames: tuple) -> None:
        for member in served.members.values():
            member.predict_proba(*frames)

    def median(frames: tuple, threads: int) -> float:
        torch.set_num_threads(threads)
        once(frames)
        return median_seconds(lambda: once(frames), 15)

    numbers = {1, torch.get_num_threads()}
    times = []
    for page in pages:
        rows = catalogue.find(page["locale"], [one["id"] for one in page["products"]])
        frames = Pairs(page["query"], page["locale"], catalogue.texts(rows.tolist())).frames
        times.append(min(median(frames, threads) for threads in numbers))
    return statistics.median(times) * 1000


@contextmanager
def _peer() -> Iterator[str]:
    """Run `mlflow models serve` with one worker, on a model that returns a constant."""
    import mlflow

    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "constant.py"
        code.write_text(_CONSTANT, encoding="utf-8")
        mlflow.pyfunc.save_model(f"{folder}/model", python_model=str(code), pip_requirements=[])
        command = [
            *(sys.executable, "-m", "mlflow", "models", "serve", "-m", f"{folder}/model", "-p", str(port)),
            *("-h", "127.0.0.1", "--env-manager", "local", "-w", "1"),
        ]
        # MLflow calls uvicorn by its name
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, env={**os.environ, "PATH": path}, start_new_session=True, **silent) as process:
            try:
                until_ready(f"http://127.0.0.1:{port}/ping", process)
                yield f"http://127.0.0.1:{port}"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, 15)
                process.wait(60)


if __name__ == "__main__":
    sys.exit(main())
