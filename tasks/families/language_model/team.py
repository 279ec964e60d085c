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
    Tested with several processes on a CPU (gloo), not with several GPUs (nccl).

    Attributes:
        rank: number of this process; process 0 is the main one, which writes files.
        size: how many there are.
        base: seed of the run.
    """

    rank: int = 0
    size: int = 1
    base: int = 0

    @classmethod
    def join(cls, on_cpu: bool, base: int) -> Team:
        """Join the team that the environment describes (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).

        Args:
            on_cpu: whether the processes compute on the CPU.
            base: seed of the run.

        Returns:
            The team as seen by this process.
        """
        state = PartialState(cpu=on_cpu)
        return cls(state.process_index, state.num_processes, base)

    def share(self, rows: np.ndarray) -> np.ndarray:
        """Return this process's share of the rows: every size-th one, so that all shares have similar lengths.

        Args:
            rows: an array, the same in all processes.

        Returns:
            A view of the array.

        Example:
            >>> Team(rank=1, size=2).share(np.arange(5)).tolist()
            [1, 3]
        """
        return rows if self.size == 1 else rows[self.rank :: self.size]

    def total(self, value: float) -> float:
        """Return the sum of every process's value; all processes must call it."""
        return value if self.size == 1 else float(self.total_array(np.asarray([value]))[0])

    def total_array(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of every process's array; all processes must call it.

        Args:
            values: numbers, of the same shape in all processes.

        Returns:
            float64 of the same shape; for a team of one `values` itself.
        """
        if self.size == 1:
            return values
        on_device = torch.as_tensor(values, dtype=torch.float64).to(PartialState().device)
        return reduce(on_device, "sum").cpu().numpy()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace this process's gradients by the sum over all processes; all must call it.

        Args:
            parameters: the same in all processes; a parameter without a gradient counts as zero.
        """
        if self.size == 1:
            return
        trained = list(parameters)
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in trained]
        flat: torch.Tensor = reduce(torch.cat([each.flatten() for each in gradients]), "sum")
        for parameter, part in zip(trained, flat.split([each.numel() for each in trained]), strict=True):
            parameter.grad = part.view_as(parameter)

    def seed(self, step: int) -> None:
        """Seed torch for one step, differently in every process, so that a resumed run draws the same numbers.

        Args:
            step: number of the optimiser step in the run.
        """
        if self.size > 1:
            drawn = np.random.SeedSequence([self.base, step, self.rank]).generate_state(1)
            torch.manual_seed(int(drawn[0]))

    def wait(self) -> None:
        """Wait until every process has called it."""
        if self.size > 1:
            PartialState().wait_for_everyone()

    @contextlib.contextmanager
    def first_come_main(self) -> Iterator[None]:
        """Run the block in the main process first, then in the others, which find the files that it made.

        Yields:
            Nothing.
        """
        if self.size == 1:
            yield
        else:
            with PartialState().main_process_first():
                yield


ALONE = Team()
