"""Costs of members, the budget for a set of them, and the cost of a set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from esci_tournament.registry.errors import BudgetError, UsageError
from esci_tournament.registry.settings import Settings

Execution = Literal["series", "parallel"]


@dataclass(frozen=True)
class Cost:
    """Cost of one member or of a set.

    Attributes:
        memory_mib: memory, MiB.
        milliseconds: time of a page of 40 pairs, ms.
        kind: "cpu" or "gpu", the device it was measured on, "" when it is not known; kinds are never added up.

    Raises:
        UsageError: if a number is negative or not finite.
    """

    memory_mib: float
    milliseconds: float
    kind: str = ""

    def __post_init__(self) -> None:
        if not (0 <= self.memory_mib < float("inf") and 0 <= self.milliseconds < float("inf")):
            raise UsageError(f"cost {self} is no cost; give finite numbers, zero or more")


@dataclass(frozen=True)
class Budget:
    """Limits for all members together; None is no limit.

    Attributes:
        memory_mib: memory, MiB; always adds up over members.
        latency_ms: time of a page of 40 pairs, ms.
        execution: members run one after the other (`series`: times add up) or side by side (`parallel`: the slowest
            counts).
    """

    memory_mib: float | None = None
    latency_ms: float | None = None
    execution: Execution = "series"

    @classmethod
    def of(cls, settings: Settings) -> Budget:
        """Return the budget in the settings."""
        return cls(settings.budget_memory_mib, settings.budget_latency_ms, settings.execution)

    def used(self, members: Iterable[str], costs: Mapping[str, Cost]) -> Cost:
        """Return what `members` cost together.

        Args:
            members: names.
            costs: the cost of each of them, and maybe of others.

        Returns:
            The cost of the set.

        Raises:
            BudgetError: if some were measured on a CPU and others on a GPU.

        Example:
            >>> costs = {"a": Cost(10, 5), "b": Cost(20, 7)}
            >>> Budget(execution="parallel").used(["a", "b"], costs)
            Cost(memory_mib=30, milliseconds=7, kind='')
        """
        names = sorted(members)
        each = [costs[member] for member in names]
        kinds = {cost.kind: name for name, cost in zip(names, each, strict=True) if cost.kind}
        if len(kinds) > 1:
            words = " and ".join(f"that of {name} on a {kind.upper()}" for kind, name in sorted(kinds.items()))
            raise BudgetError(
                f"costs were measured on different kinds of device, {words}; they are never added up: measure all of "
                "them on the device that will serve (setting device)"
            )
        times = [cost.milliseconds for cost in each]
        time = sum(times) if self.execution == "series" else max(times, default=0.0)
        return Cost(sum(cost.memory_mib for cost in each), time, next(iter(kinds), ""))

    def fits(self, members: Iterable[str], costs: Mapping[str, Cost]) -> bool:
        """Return whether `members` together stay within both limits.

        Args:
            members: names.
            costs: the cost of each of them, and maybe of others.

        Returns:
            True when neither limit is exceeded.

        Raises:
            BudgetError: if some were measured on a CPU and others on a GPU.
        """
        return self.excess(self.used(members, costs)) <= 0

    def excess(self, used: Cost) -> float:
        """Return by how much the worse limit is exceeded, as a share of it.

        Args:
            used: cost of a set.

        Returns:
            Above 0 when a limit is exceeded; -1 when there is no limit. Beyond a limit of 0, the cost itself.

        Example:
            >>> Budget(memory_mib=100).excess(Cost(150, 20))
            0.5
        """
        over = [-1.0]
        if self.memory_mib is not None:
            over.append(used.memory_mib / self.memory_mib - 1 if self.memory_mib > 0 else used.memory_mib)
        if self.latency_ms is not None:
            over.append(used.milliseconds / self.latency_ms - 1 if self.latency_ms > 0 else used.milliseconds)
        return max(over)

    def share(self, member: str, costs: Mapping[str, Cost], crowd: Iterable[str]) -> float:
        """Return how much of the exceeded limits one member takes up: its price in budget.

        In parallel, only the members above the latency limit have a price in time.

        Args:
            member: name of the member.
            costs: the cost of each member of `crowd`.
            crowd: names of a set; only the limits that the set exceeds count.

        Returns:
            The sum of the member's shares of memory and time; 0 when no limit is exceeded.

        Raises:
            BudgetError: if some were measured on a CPU and others on a GPU.
        """
        used, price = self.used(crowd, costs), 0.0
        if self.memory_mib is not None and used.memory_mib > self.memory_mib:
            price += costs[member].memory_mib / self.memory_mib
        if self.latency_ms is not None and used.milliseconds > self.latency_ms:
            time = costs[member].milliseconds
            if self.execution == "series" or time > self.latency_ms:
                price += time / self.latency_ms
        return price

    def describe(self, used: Cost) -> str:
        """Return a cost beside its limits in words.

        Example:
            >>> Budget(memory_mib=100).describe(Cost(50, 20))
            '50 MiB of 100, 20 ms a page (no limit)'
        """
        parts = []
        for value, limit, unit in (
            (used.memory_mib, self.memory_mib, "MiB"),
            (used.milliseconds, self.latency_ms, "ms a page"),
        ):
            parts.append(f"{value:.4g} {unit}" + (f" of {limit:.4g}" if limit is not None else " (no limit)"))
        return ", ".join(parts)


def check_costs(members: Iterable[str], costs: Mapping[str, Cost]) -> None:
    """Check that each member has a cost.

    Args:
        members: names.
        costs: the known costs.

    Raises:
        UsageError: naming the first that has none.
    """
    if missing := [member for member in members if member not in costs]:
        raise UsageError(f"{missing[0]} has no cost; measure each candidate before selection")


def nobody_fits(budget: Budget, costs: Mapping[str, Cost], members: Iterable[str]) -> BudgetError:
    """Return the error for a budget that no model fits, with the cost of the model that comes closest.

    Args:
        budget: the budget.
        costs: the cost of each model.
        members: names of at least one model.

    Returns:
        The error to raise.
    """
    smallest = min(sorted(members), key=lambda member: budget.excess(budget.used([member], costs)))
    need = budget.used([smallest], costs)
    return BudgetError(
        f"no ensemble fits the budget: even {smallest} alone takes {budget.describe(need)}; "
        "raise the budget or register a smaller candidate"
    )
