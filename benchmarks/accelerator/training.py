"""Training on a card against training on the CPU: speed, loss curves, repeated and killed runs."""

from __future__ import annotations

import hashlib
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accelerator.card import MIB
from benchmarks.accelerator.ground import Ground
from benchmarks.harness import Figure, figure, say
from esci_tournament.tasks.candidates.device import resolve_device
from esci_tournament.tasks.families.graph_network.model import GraphNetwork
from esci_tournament.tasks.families.language_model.model import LanguageModel

SEEDS = 4  # whose spread is the noise of a loss curve
_CHECKPOINT_S = 0.2
_MOST_SPREADS = 3.0


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        losses: mean loss of each epoch.
        pairs_a_second: in the training loop.
        digest: SHA-256 of what it wrote.
        peak_mib: peak memory on the card, nan on a CPU.
    """

    losses: tuple[float, ...]
    pairs_a_second: float
    digest: str
    peak_mib: float


def measure(ground: Ground) -> list[Figure]:
    """Return the figures of an encoder and of a graph network."""
    return [*_of_encoder(ground), *_of_graph(ground)]


def _of_encoder(ground: Ground) -> Iterator[Figure]:
    card = str(resolve_device(ground.device))
    run = partial(encoder_run, ground)
    mixed, plain = run(card, "bfloat16"), run(card, "float32")
    cpu = run("cpu", "float32")
    others = [run(card, "float32", ground.seed + number) for number in range(1, SEEDS)]
    fast, slow = (
        run(card, precision, ground.seed, ground.size.epochs * ground.size.speed_factor)
        for precision in ("bfloat16", "float32")
    )
    name, peer = "encoder, small", "cpu, float32"
    for what, one in (("bfloat16", fast), ("float32", slow)):
        yield figure(f"{name}: pairs a second, {card}, {what}", one.pairs_a_second, "1/s", "", peer, cpu.pairs_a_second)
        yield figure(f"{name}: times the CPU's speed, {what}", one.pairs_a_second / cpu.pairs_a_second, "times")
        yield figure(f"{name}: peak memory of training, {what}", one.peak_mib, "MiB")
    yield from _curves(name, {"bfloat16": mixed, "float32": plain}, cpu, [plain, *others], card)
    again = run(card, "bfloat16")
    yield figure(f"{name}: the same training twice writes the same bytes", again.digest == mixed.digest, "", ">= 1")
    yield figure(f"{name}: killed and continued writes the same bytes", killed_run(ground, card) == mixed.digest, "",
                 ">= 1")  # fmt: skip


def _of_graph(ground: Ground) -> Iterator[Figure]:
    card = str(resolve_device(ground.device))
    cpu, on_card = graph_run(ground, "cpu", ground.seed), graph_run(ground, card, ground.seed)
    others = [graph_run(ground, card, ground.seed + number) for number in range(1, SEEDS)]
    name = "graph network"
    yield figure(f"{name}: pairs a second, {card}", on_card.pairs_a_second, "1/s", "", "cpu", cpu.pairs_a_second)
    yield figure(f"{name}: times the CPU's speed", on_card.pairs_a_second / cpu.pairs_a_second, "times")
    yield figure(f"{name}: peak memory of training", on_card.peak_mib, "MiB")
    yield from _curves(name, {"float32": on_card}, cpu, [on_card, *others], card)
    again = graph_run(ground, card, ground.seed)
    yield figure(f"{name}: the same training twice writes the same bytes", again.digest == on_card.digest, "", ">= 1")


def _curves(name: str, runs: dict[str, Run], cpu: Run, seeds: Sequence[Run], card: str) -> Iterator[Figure]:
    """Yield how far loss curves of one seed are apart, beside how far those of several seeds are."""
    spread = float(np.std([run.losses for run in seeds], axis=0, ddof=1).max())
    say(f"{name}: losses cpu {cpu.losses}; " + "; ".join(f"{what} {run.losses}" for what, run in runs.items()))
    for what, run in runs.items():
        gap = float(np.abs(np.subtract(run.losses, cpu.losses)).max())
        bound = f"<= {_MOST_SPREADS * spread:.4g}"
        words = f"{name}: largest gap of the epochs' losses, {card} {what} against cpu float32"
        yield figure(words, gap, "nats", bound, f"deviation over {len(seeds)} seeds", spread)


def encoder_run(ground: Ground, device: str, precision: str, seed: int | None = None, epochs: int = 0) -> Run:
    """Fit the smaller encoder once."""
    spec = ground.language_spec(ground.size.small, precision=precision, epochs=epochs or ground.size.epochs)
    with tempfile.TemporaryDirectory(dir=ground.folder) as work:
        return _encoder_run(ground, spec, device, ground.seed if seed is None else seed, Path(work))


def _encoder_run(ground: Ground, spec: Any, device: str, seed: int, work: Path, checkpoint_s: float = 60.0) -> Run:
    LanguageModel.checkpoint_seconds = checkpoint_s  # type: ignore[misc]
    data = ground.fit_data(device, work / "work", seed)
    _reset_peak(device)
    model = LanguageModel(spec).fit(data)
    assert model.training is not None
    record, seen = model.training, len(data.pairs) * len(model.training.history)
    model.save(work / "model")
    losses = tuple(float(epoch["loss"] or 0) for epoch in record.history)
    say(f"  {device} {spec.recipe.precision} seed {seed}: {seen / record.seconds:.0f} pairs a second")
    return Run(losses, seen / record.seconds, digest(work / "model"), _peak_mib(device))


def graph_run(ground: Ground, device: str, seed: int) -> Run:
    """Fit the graph network once; its speed is that of all epochs but the first."""
    moments: list[float] = []

    def progress(share: float, doing: str) -> None:
        if doing.startswith("epoch "):
            moments.append(time.perf_counter())

    with tempfile.TemporaryDirectory(dir=ground.folder) as work:
        data = ground.fit_data(device, Path(work), seed, progress)
        _reset_peak(device)
        model = GraphNetwork(ground.graph_spec()).fit(data)
        model.save(Path(work, "model"))
        written = digest(Path(work, "model"), "network.safetensors")
    speed = len(data.pairs) * (len(moments) - 1) / (moments[-1] - moments[0])
    say(f"  graph network, {device} seed {seed}: {speed:.0f} pairs a second")
    return Run(tuple(epoch["loss"] for epoch in model.history["epochs"]), speed, written, _peak_mib(device))


def killed_run(ground: Ground, device: str) -> str:
    """Kill a training after its first checkpoint, continue it here, and return the digest of what it wrote.

    Returns:
        The digest, "" when the training was over before it could be killed.
    """
    spec = ground.language_spec(ground.size.small, precision="bfloat16")
    with tempfile.TemporaryDirectory(dir=ground.folder) as name:
        work = Path(name)
        child = multiprocessing.get_context("spawn").Process(
            target=_encoder_run, args=(ground, spec, device, ground.seed, work, _CHECKPOINT_S)
        )
        child.start()
        while child.is_alive() and not list(work.rglob("training.safetensors")):
            time.sleep(0.01)
        if not child.is_alive() or (work / "model").exists():
            return ""
        child.kill()
        child.join()
        return _encoder_run(ground, spec, device, ground.seed, work).digest


def digest(folder: Path, pattern: str = "*.safetensors") -> str:
    """Return the SHA-256 of a model's weights."""
    content = hashlib.sha256()
    for file in sorted(folder.glob(pattern)):
        content.update(file.read_bytes())
    return content.hexdigest()


def _reset_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.init()  # else torch knows no such device
        torch.cuda.reset_peak_memory_stats(device)


def _peak_mib(device: str) -> float:
    return float("nan") if device == "cpu" else torch.cuda.max_memory_allocated(device) / MIB
