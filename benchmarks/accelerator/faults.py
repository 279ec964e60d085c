"""A card that is full: what is told, and that everything goes on afterwards."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch

from benchmarks.accelerator.card import MIB
from benchmarks.accelerator.ground import Ground, some_pairs
from benchmarks.accelerator.serving import ask, manned, on_end, pages_of
from benchmarks.harness import Figure, figure, say
from esci_tournament.deployments.scorer.compute.forked import Zygote
from esci_tournament.registry.errors import CandidateError, TournamentError
from esci_tournament.tasks.candidates.device import resolve_device
from esci_tournament.tasks.families.language_model.model import LanguageModel

_TOLD = "out of memory while"
_HOG = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(free - int(sys.argv[1]) * 2**20, dtype=torch.uint8, device="cuda")
print("full", flush=True)
sys.stdin.read()
"""


def in_process(ground: Ground) -> list[Figure]:
    """Run out of memory while scoring and while training, with a limit on this process; call it in a fresh one."""
    where = resolve_device(ground.device)
    if where.type != "cuda":
        return []
    pairs, products = some_pairs(ground, 1000), ground.frame("products")
    model = ground.model("cross-encoder, small", ground.device)
    good = model.predict_proba(pairs, products)
    before = torch.cuda.memory_allocated(where)
    torch.cuda.empty_cache()
    with _limited(where, before + 16 * MIB):
        said = _complaint(lambda: model.predict_proba(pairs, products))
    left = torch.cuda.memory_allocated(where) - before
    again = model.predict_proba(pairs, products)
    figures = [
        figure("out of memory while scoring is told", _TOLD in said, "", ">= 1"),
        figure("memory kept by the call that failed", left / MIB, "MiB", "<= 1"),
        figure("the same page afterwards: largest gap of a probability", np.abs(again - good).max(), "", "<= 0.001"),
    ]
    say(said)
    spec = ground.language_spec(ground.size.small, batch_size=1024, epochs=1)
    with tempfile.TemporaryDirectory(dir=ground.folder) as work, _limited(where, before + 512 * MIB):
        data = ground.fit_data(ground.device, Path(work), ground.seed)
        said = _complaint(lambda: LanguageModel(spec).fit(data))
    say(said)
    figures.append(figure("out of memory while training is told, with what to do", _TOLD in said and
                          "lower batch_size" in said, "", ">= 1"))  # fmt: skip
    return figures


def in_replicas(ground: Ground, ensemble: Path) -> list[Figure]:
    """Fill the card, and start a replica and ask one that runs already; then make room."""
    if not ground.on_card:
        return []
    zygote = Zygote()
    try:
        return asyncio.run(_in_replicas(ground, zygote, ensemble))
    finally:
        zygote.close()


async def _in_replicas(ground: Ground, zygote: Zygote, ensemble: Path) -> list[Figure]:
    pages = pages_of(ground, 16)
    async with manned(ground, zygote, ensemble, 2, None) as fleet:
        first = await fleet.replica(on_end)
        await ask([first], pages)
        with _full_card(200):
            began, said = time.monotonic(), ""
            try:
                (await fleet.replica(on_end)).end()
            except TournamentError as error:
                said = str(error)
            seconds = time.monotonic() - began
            beside = await ask([first], pages)
        say(f"a replica on a full card: {said}")
        second = await fleet.replica(on_end)
        after = await ask([second], pages)
        for replica in (first, second):
            with suppress(OSError):
                replica.end()
    return [
        figure("a replica that has no room is told", bool(said), "", ">= 1"),
        figure("time until then", seconds, "s", "<= 60"),
        figure("pages that the other replica did not answer on the full card", beside.failed, "pages", "<= 0"),
        figure("pages that a replica did not answer once there was room", after.failed, "pages", "<= 0"),
    ]


@contextmanager
def _limited(where: torch.device, bytes_: int) -> Iterator[None]:
    total = torch.cuda.get_device_properties(where).total_memory
    torch.cuda.set_per_process_memory_fraction(bytes_ / total, where)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, where)


@contextmanager
def _full_card(left_mib: int) -> Iterator[None]:
    """Hold all memory of the card but some MiB, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOG, str(left_mib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as hog:
        assert hog.stdout is not None
        try:
            if hog.stdout.readline().strip() != "full":
                raise RuntimeError("the card could not be filled")
            yield
        finally:
            hog.kill()


def _complaint(work: object) -> str:
    try:
        work()  # type: ignore[operator]
    except CandidateError as error:
        return str(error)
    return ""
