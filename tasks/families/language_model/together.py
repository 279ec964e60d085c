"""Train one language model in several processes, one a GPU.

Each of them runs :mod:`esci_tournament.tasks.families.language_model.team_member`.

The processes are joined by accelerate (:mod:`esci_tournament.tasks.families.language_model.team`). Tested with two
processes on a CPU, not with several GPUs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from esci_tournament.registry.children import start_child
from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.registry.processes import module_path, python_module
from esci_tournament.tasks.candidates.device import resolve_device
from esci_tournament.tasks.data.store import write_frame
from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec
from esci_tournament.tasks.families.protocol import FitData, Progress

_POLL_SECONDS = 0.1
FRAMES = ("pairs", "validation", "products")  # of a job, each in a file of its own


@contextlib.contextmanager
def fitted_together(spec: LanguageModelSpec, data: FitData, checkpoint_seconds: float) -> Iterator[Path]:
    """Fit a model in `spec.recipe.processes` processes, for the block that uses the result.

    On GPUs, each process has its own: `data.device` is the first, those with the next numbers follow.

    Args:
        spec: the model.
        data: already limited to the recipe's locales; what the processes exchange is in `work/together`, removed at the
            end.
        checkpoint_seconds: Time between two checkpoints.

    Yields:
        The folder that the model is saved in.

    Raises:
        SpecError: if the machine has fewer GPUs than the recipe has processes.
        CandidateError: if one of the processes fails, with its reason; the others are ended.
    """
    devices = team_devices(spec, data.device)
    job = data.work / "together"
    shutil.rmtree(job, ignore_errors=True)
    job.mkdir(parents=True)
    try:
        _describe(job, spec, data, checkpoint_seconds)
        _run(job, devices, data.progress)
        yield job / "model"
    finally:
        shutil.rmtree(job, ignore_errors=True)


def team_devices(spec: LanguageModelSpec, device: str) -> list[str]:
    """Return the device of each process.

    Args:
        spec: its recipe names the number of processes.
        device: the first device, such as "cpu", "cuda:0" or "auto".

    Returns:
        Names of torch devices: "cpu" for all, or GPUs with consecutive numbers.

    Raises:
        SpecError: if the machine has fewer GPUs than the recipe has processes.
    """
    count, first = spec.recipe.processes, resolve_device(device)
    if first.type == "cpu":
        return ["cpu"] * count
    start, available = first.index or 0, torch.cuda.device_count()
    if start + count > available:
        raise SpecError(
            f"candidate {spec.name}: processes is {count}, and there are {available - start} GPUs from {first} on; "
            "lower it, or set `device` to cuda:0"
        )
    return [f"cuda:{start + number}" for number in range(count)]


def _describe(job: Path, spec: LanguageModelSpec, data: FitData, checkpoint_seconds: float) -> None:
    """Write what the processes are to do; of the catalogue, the products in use, under new row numbers."""
    used = np.union1d(data.pairs["product"].to_numpy(), data.validation["product"].to_numpy())
    for name, frame in (("pairs", data.pairs), ("validation", data.validation)):
        place = np.searchsorted(used, frame["product"].to_numpy()).astype(np.int32)
        kept = frame[[column for column in ("query", "locale", "label") if column in frame]]
        write_frame(kept.assign(product=place), job / f"{name}.arrow")
    write_frame(data.products.iloc[used], job / "products.arrow")
    told = {
        "spec": spec.model_dump(mode="json"), "seed": data.seed,
        "devices": team_devices(spec, data.device), "threads": max(1, torch.get_num_threads() // spec.recipe.processes),
        "checkpoint_seconds": checkpoint_seconds,
    }  # fmt: skip
    (job / "job.json").write_text(json.dumps(told), encoding="utf-8")


def _run(job: Path, devices: Sequence[str], progress: Progress) -> None:
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((job / "log.txt").open("wb"))
        environment = _environment(len(devices), on_cpu=devices[0] == "cpu")
        team = []
        for rank in range(len(devices)):
            numbers = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            member = start_child(
                python_module("esci_tournament.tasks.families.language_model.team_member", str(job)),
                env=environment | module_path() | numbers, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
            stack.callback(_end, member)
            team.append(member)
            assert member.stdout is not None
            threading.Thread(target=_hear, args=(member.stdout, progress if rank == 0 else None), daemon=True).start()
        while any(member.poll() is None for member in team) and not any(member.poll() for member in team):
            time.sleep(_POLL_SECONDS)
        broken = [rank for rank, member in enumerate(team) if member.poll()]
        if broken:
            raise CandidateError(_reason(job, broken[0], team[broken[0]].returncode))


def _environment(size: int, on_cpu: bool) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    threads = {"OMP_NUM_THREADS": max(1, torch.get_num_threads() // size)} if on_cpu else {}
    told = {"ACCELERATE_USE_CPU": str(on_cpu).lower(), "TOKENIZERS_PARALLELISM": "false"}
    return os.environ | {name: str(value) for name, value in (place | threads | told).items()}


def _reason(job: Path, rank: int, code: int) -> str:
    # A process that fails breaks its connections: the others then end with an error that does not tell the cause.
    told = [file for number in (rank, *range(64)) if (file := job / f"failure-{number}.txt").is_file()]
    if told:
        return told[0].read_text(encoding="utf-8")
    lines = (job / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1][:300] if lines else "it printed nothing"
    return f"process {rank} of those that train together ended with exit code {code} ({last})"


def _hear(stream: IO[bytes], progress: Progress | None) -> None:
    for line in stream:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            message = json.loads(line)
            if progress is not None:
                progress(message["share"], message["doing"])


def _end(member: subprocess.Popen[Any]) -> None:
    if member.poll() is None:
        member.kill()
    member.wait()
