"""What members cost, what they may cost together, and what a set of them does cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from esci_tournament.registry.errors import BudgetError, UsageError
from esci_tournament.registry.settings import Settings

Execution = Literal["series", "parallel"]


@dataclass(frozen=True)
class Cost:
    """Cost of one member or of a set: memory in MiB, time in milliseconds a page of 40 pairs.

    `kind` is "cpu" or "gpu", whatever it was measured on, "" when nobody said; kinds are never added up.
    """

    memory_mib: float
    milliseconds: float
    kind: str = ""

    def __post_init__(self) -> None:
        if not (0 <= self.memory_mib < float("inf") and 0 <= self.milliseconds < float("inf")):
            raise UsageError(f"cost {self} is no cost; give finite numbers, zero or more")


@dataclass(frozen=True)
class Budget:
    """What all members together may use; None is no limit.

    Attributes:
        memory_mib: memory, MiB; always adds up over members.
        latency_ms: time, milliseconds a page of 40 pairs.
        execution: members run one after the other (`series`: times add up) or side by side (`parallel`: the slowest
            counts).
    """

    memory_mib: float | None = None
    latency_ms: float | None = None
    execution: Execution = "series"

    @classmethod
    def of(cls, settings: Settings) -> Budget:
        """Return the budget that the settings grant."""
        return cls(settings.budget_memory_mib, settings.budget_latency_ms, settings.execution)

    def used(self, members: Iterable[str], costs: Mapping[str, Cost]) -> Cost:
        """Return what `members` cost together.

        Raises:
            BudgetError: if some were measured on a CPU and others on a GPU.
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
        """Return whether `members` together stay within both limits."""
        return self.excess(self.used(members, costs)) <= 0

    def excess(self, used: Cost) -> float:
        """Return by how much the worse limit is exceeded, as a share of it; zero or less when the budget holds."""
        over = [-1.0]
        if self.memory_mib is not None:
            over.append(used.memory_mib / self.memory_mib - 1 if self.memory_mib > 0 else used.memory_mib)
        if self.latency_ms is not None:
            over.append(used.milliseconds / self.latency_ms - 1 if self.latency_ms > 0 else used.milliseconds)
        return max(over)

    def share(self, member: str, costs: Mapping[str, Cost], crowd: Iterable[str]) -> float:
        """Return how much of the limits that `crowd` exceeds one member takes up: its price in budget.

        In parallel, only the members above the latency limit have a price in time.
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
        """Return the cost beside its limits in words."""
        parts = []
        for value, limit, unit in (
            (used.memory_mib, self.memory_mib, "MiB"),
            (used.milliseconds, self.latency_ms, "ms a page"),
        ):
            parts.append(f"{value:.4g} {unit}" + (f" of {limit:.4g}" if limit is not None else " (no limit)"))
        return ", ".join(parts)


def check_costs(members: Iterable[str], costs: Mapping[str, Cost]) -> None:
    """Check that each member has a cost.

    Raises:
        UsageError: naming the first that has none.
    """
    if missing := [member for member in members if member not in costs]:
        raise UsageError(f"{missing[0]} has no cost; measure each candidate before selection")


def nobody_fits(budget: Budget, costs: Mapping[str, Cost], members: Iterable[str]) -> BudgetError:
    """Return the error that says that no model fits, and what the smallest would need."""
    smallest = min(sorted(members), key=lambda member: budget.excess(budget.used([member], costs)))
    need = budget.used([smallest], costs)
    return BudgetError(
        f"no ensemble fits the budget: even {smallest} alone takes {budget.describe(need)}; "
        "raise the budget or register a smaller candidate"
    )
