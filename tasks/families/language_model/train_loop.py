"""The training loop: AdamW, warm-up and linear decay; the best epoch is kept, and a killed run resumes exactly."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from esci_tournament.registry.errors import CandidateError
from esci_tournament.registry.files import publish
from esci_tournament.tasks.candidates.device import autocast, deterministic, memory_guard
from esci_tournament.tasks.families.language_model.team import ALONE, Team
from esci_tournament.tasks.families.protocol import Progress, silent

_FILE = "training.safetensors"
_GRADIENT_NORM = 1.0


@dataclass
class TrainingState:
    """How far a run has come; all of it is in the checkpoint.

    Attributes:
        epoch: the epoch under way, from 0.
        position: optimiser steps done in this epoch.
        step: optimiser steps done in all.
        loss_sum: sum of the pairs' losses in this epoch.
        pairs: pairs seen in this epoch.
        best_epoch: the epoch kept, from 0; -1 before the first.
        best_score: its validation score; None before the first, or without validation.
        history: for each epoch `loss`, the training loss a pair, and `score` on validation.
        seconds: time spent in training so far, over all resumed runs.
        finished: whether the last epoch is over.
    """

    epoch: int = 0
    position: int = 0
    step: int = 0
    loss_sum: float = 0.0
    pairs: int = 0
    best_epoch: int = -1
    best_score: float | None = None
    history: list[dict[str, float | None]] = field(default_factory=list)
    seconds: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class Plan:
    """The settings of one run.

    Attributes:
        epochs: passes over the data at most.
        accumulation: micro-batches an optimiser step is cut into.
        warmup_share: share of all steps, 0 to 1, in which the learning rate rises from 0; then it falls linearly to 0.
        precision: dtype of autocast, or None for float32.
        patience: epochs without gain after which it stops, or None.
        checkpoint_seconds: seconds between checkpoints within an epoch; there is one after each epoch anyway.
        key: identity of all that the result follows from; a checkpoint of another key is not continued.
    """

    epochs: int
    accumulation: int = 1
    warmup_share: float = 0.1
    precision: torch.dtype | None = None
    patience: int | None = None
    checkpoint_seconds: float = 60.0
    key: str = ""


def train(
    network: nn.Module,
    groups: list[dict[str, Any]],
    plan: Plan,
    *,
    batches: Callable[[int], list[np.ndarray]],
    loss: Callable[[np.ndarray], torch.Tensor],
    validate: Callable[[], float | None],
    folder: Path,
    device: torch.device,
    progress: Progress = silent,
    team: Team = ALONE,
) -> TrainingState:
    """Train `network` in place and leave it with the weights of its best epoch, in evaluation mode.

    Seed torch before. The random state, the optimiser's moments and the position go into the checkpoint, so that a run
    that is killed and started again with the same arguments ends with the very same weights.

    Args:
        network: the model, already on `device`; what has no gradient is neither trained nor checkpointed.
        groups: AdamW's parameter groups, with `lr` in each; none trains nothing.
        plan: see :class:`Plan`.
        batches: called with the number of an epoch; returns the rows of each of its optimiser steps, int arrays, which
            must follow from the epoch alone.
        loss: called with int rows; returns the sum (not the mean) of their losses, a scalar with gradient.
        validate: called without arguments; returns the score of the present weights, higher is better, or None when
            there is nothing to validate on, and then the last epoch is kept.
        folder: where checkpoints are kept.
        device: where the network is.
        progress: called with the share of steps done, 0 to 1, and what is being done.
        team: the processes that train together. All are given the same arguments, and `validate` must return the same
            in all; the main one alone writes and reports.

    Returns:
        The finished state.

    Raises:
        CandidateError: if the loss is not finite (with step and loss) or memory runs out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    progress = progress if team.rank == 0 else silent
    optimizer = torch.optim.AdamW(groups) if groups else None
    scaler = torch.amp.GradScaler(device.type, enabled=plan.precision is torch.float16)
    run = _Run(network, optimizer, scaler, folder, plan.key, device, team.rank == 0)
    state = run.resume() or TrainingState()
    team.wait()  # none writes before all have read
    peaks = [group["lr"] for group in groups]
    total = plan.epochs * max(1, len(batches(0)))
    saved = started = time.monotonic()
    before = state.seconds

    with deterministic(device), memory_guard(f"training (epoch {state.epoch + 1})"):
        while not state.finished:
            network.train()
            todo = batches(state.epoch)
            for rows in todo[state.position :]:
                _set_rates(groups, peaks, _factor(state.step, total, plan.warmup_share), optimizer)
                state.loss_sum += _step(network, optimizer, scaler, loss, rows, plan, device, state, team)
                state.pairs += len(rows)
                state.position += 1
                state.step += 1
                progress(state.step / total, f"epoch {state.epoch + 1} of {plan.epochs}")
                if time.monotonic() - saved >= plan.checkpoint_seconds and state.position < len(todo):
                    state.seconds = before + time.monotonic() - started
                    run.save(state)
                    saved = time.monotonic()
            network.eval()
            _close_epoch(state, plan, validate(), run)
            state.seconds = before + time.monotonic() - started
            run.save(state)
            saved = time.monotonic()
    team.wait()
    run.restore_best(state)
    network.eval()
    return state


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    scaler: torch.amp.GradScaler,
    loss: Callable[[np.ndarray], torch.Tensor],
    rows: np.ndarray,
    plan: Plan,
    device: torch.device,
    state: TrainingState,
    team: Team,
) -> float:
    """Do one optimiser step and return the sum of the rows' losses."""
    seen = 0.0
    team.seed(state.step)
    for part in np.array_split(rows, min(plan.accumulation, len(rows))):
        mine = team.share(part)
        with autocast(device, plan.precision):
            value = loss(mine) if len(mine) else torch.zeros((), device=device)
        seen += team.total(float(value.detach()))
        if not math.isfinite(seen):
            raise CandidateError(
                f"training diverged: the loss is {seen / len(rows)} at step {state.step + 1} "
                f"(epoch {state.epoch + 1}); "
                "lower learning_rate, raise warmup_share, or use precision float32"
            )
        if optimizer is not None and len(mine):
            scaler.scale(value / len(rows)).backward()
    if optimizer is not None:
        team.add_gradients(p for p in network.parameters() if p.requires_grad)
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_((p for p in network.parameters() if p.requires_grad), _GRADIENT_NORM)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
    return seen


def _close_epoch(state: TrainingState, plan: Plan, score: float | None, run: _Run) -> None:
    state.history.append({"loss": state.loss_sum / max(1, state.pairs), "score": score})
    if score is None or state.best_score is None or score > state.best_score:
        state.best_epoch, state.best_score = state.epoch, score
        run.keep_best(state.epoch)
    state.epoch += 1
    state.position, state.loss_sum, state.pairs = 0, 0.0, 0
    waited = state.epoch - 1 - state.best_epoch
    state.finished = state.epoch >= plan.epochs or (plan.patience is not None and waited >= plan.patience)


def _factor(step: int, total: int, warmup_share: float) -> float:
    warmup = int(total * warmup_share)
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (total - step) / max(1, total - warmup))


def _set_rates(
    groups: list[dict[str, Any]], peaks: list[float], factor: float, optimizer: torch.optim.Optimizer | None
) -> None:
    for group, peak in zip(optimizer.param_groups if optimizer else groups, peaks, strict=True):
        group["lr"] = peak * factor


class _Run:
    """The files of a run: `training.safetensors` (state in its header) and `best-<epoch>.safetensors`."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        scaler: torch.amp.GradScaler,
        folder: Path,
        key: str,
        device: torch.device,
        writes: bool,
    ) -> None:
        self.network, self.optimizer, self.scaler = network, optimizer, scaler
        self.folder, self.key, self.device, self.writes = folder, key, device, writes

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint as one file, so that its weights and its position always belong together."""
        if not self.writes:
            return
        tensors = {} if state.finished else dict(self._tensors())
        header = {"key": self.key, "state": asdict(state), "scaler": self.scaler.state_dict()}
        self._write(_FILE, tensors, {"run": json.dumps(header)})
        for file in self.folder.glob("best-*.safetensors"):
            if file.name != f"best-{state.best_epoch}.safetensors":
                file.unlink(missing_ok=True)

    def keep_best(self, epoch: int) -> None:
        """Keep the present weights as those of the best epoch."""
        if not self.writes:
            return
        weights = {name: value.detach().contiguous() for name, value in self._learnt()}
        self._write(f"best-{epoch}.safetensors", weights, {"key": self.key})

    def restore_best(self, state: TrainingState) -> None:
        """Put the best epoch's weights into the network."""
        with safe_open(self.folder / f"best-{state.best_epoch}.safetensors", framework="pt") as file:
            self._load({name: file.get_tensor(name) for name in file.keys()}, "")  # noqa: SIM118

    def resume(self) -> TrainingState | None:
        """Continue from the checkpoint, if there is one of the same run; return its state."""
        try:
            with safe_open(self.folder / _FILE, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("run", "{}"))
                if header.get("key") != self.key:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError):
            return None
        state = TrainingState(**header["state"])
        if state.best_epoch >= 0 and not (self.folder / f"best-{state.best_epoch}.safetensors").is_file():
            return None
        if not state.finished:
            self._restore(tensors, header["scaler"])
        return state

    def _restore(self, tensors: dict[str, torch.Tensor], scaler: dict[str, Any]) -> None:
        self._load(tensors, "model.")
        self.scaler.load_state_dict(scaler)
        torch.random.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        if self.optimizer is not None:
            for name, parameter in self._trained():
                if f"step.{name}" in tensors:
                    self.optimizer.state[parameter] = {
                        "step": tensors[f"step.{name}"],
                        "exp_avg": tensors[f"exp_avg.{name}"].to(self.device),
                        "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(self.device),
                    }

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield "random.cpu", torch.random.get_rng_state()
        if self.device.type == "cuda":
            yield "random.cuda", torch.cuda.get_rng_state(self.device)
        for name, value in self._learnt():
            yield f"model.{name}", value.detach().contiguous()
        for name, parameter in self._trained():
            for part, value in (self.optimizer.state.get(parameter, {}) if self.optimizer else {}).items():
                yield f"{part}.{name}", value.contiguous()

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, value) for name, value in self.network.named_parameters() if value.requires_grad)

    def _learnt(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self._trained()
        persistent = self.network.state_dict().keys()
        yield from ((name, value) for name, value in self.network.named_buffers() if name in persistent)

    def _load(self, tensors: dict[str, torch.Tensor], prefix: str) -> None:
        with torch.no_grad():
            for name, value in self._learnt():
                value.copy_(tensors[prefix + name])

    def _write(self, name: str, tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
        scratch = self.folder / f".{name}.{os.getpid()}"
        save_file(tensors, scratch, metadata=header)
        publish(scratch, self.folder / name)
