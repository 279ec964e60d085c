"""Processes that train one network together, joined by accelerate: each takes its share of every batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import nn


@dataclass(frozen=True)
class Team:
    """The processes that train together; :data:`ALONE` is a team of one, for which every method does nothing.

    Gradients of sums are added up over the team after the backward pass, in one message. The step is then the one that
    a single process would have made of the whole batch, but for the order of additions and the draws of dropout.
    Several processes on a CPU (gloo) are tested; several GPUs (nccl) were not at hand.

    Attributes:
        rank: number of this process, 0 for the one that writes files. size: how many there are.
        base: seed of the run.
    """

    rank: int = 0
    size: int = 1
    base: int = 0

    @classmethod
    def join(cls, on_cpu: bool, base: int) -> Team:
        """Join the team that the environment tells of (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT)."""
        state = PartialState(cpu=on_cpu)
        return cls(state.process_index, state.num_processes, base)

    def share(self, rows: np.ndarray) -> np.ndarray:
        """Return this process's share of the rows: every size-th one, so that all shares are of like length."""
        return rows if self.size == 1 else rows[self.rank :: self.size]

    def total(self, value: float) -> float:
        """Return the sum of every process's value."""
        return value if self.size == 1 else float(self.total_array(np.asarray([value]))[0])

    def total_array(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of every process's array, float64."""
        if self.size == 1:
            return values
        on_device = torch.as_tensor(values, dtype=torch.float64).to(PartialState().device)
        return reduce(on_device, "sum").cpu().numpy()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the sum of every process's gradients in place of this one's; no gradient counts as zero."""
        if self.size == 1:
            return
        trained = list(parameters)
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in trained]
        flat: torch.Tensor = reduce(torch.cat([each.flatten() for each in gradients]), "sum")
        for parameter, part in zip(trained, flat.split([each.numel() for each in trained]), strict=True):
            parameter.grad = part.view_as(parameter)

    def seed(self, step: int) -> None:
        """Seed torch for one step, differently in every process; a run that goes on draws what it would have drawn."""
        if self.size > 1:
            drawn = np.random.SeedSequence([self.base, step, self.rank]).generate_state(1)
            torch.manual_seed(int(drawn[0]))

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            PartialState().wait_for_everyone()

    @contextlib.contextmanager
    def first_come_main(self) -> Iterator[None]:
        """Let the main process pass alone, then the others: they find the files that it made."""
        if self.size == 1:
            yield
        else:
            with PartialState().main_process_first():
                yield


ALONE = Team()
