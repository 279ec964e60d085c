"""What a member costs on a card: time, memory as product, allocator and driver count it, and what bfloat16 changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.accelerator.card import MIB, apart, used_mib
from benchmarks.accelerator.ground import MODELS, Ground, some_pairs
from benchmarks.harness import Figure, figure, say
from esci_tournament.registry.errors import BudgetError
from esci_tournament.tasks.candidates.device import resolve_device
from esci_tournament.tasks.candidates.profile import PAGE, MeasuredCost, profile
from esci_tournament.tasks.ensemble.budget import Budget, Cost

_PAIRS = 2000  # that pages are made of


@dataclass(frozen=True)
class OnCard:
    """What one model costs.

    Attributes:
        cost: as the product measures it.
        allocated_mib: peak of torch's allocator with a page of 1,000, weights included; nan on a CPU.
        reserved_mib: what the allocator has taken from the driver for it.
        context_mib: what a process takes of the card before it has a model.
        driver_mib: what the process takes in all, as the driver counts it.
    """

    cost: MeasuredCost
    allocated_mib: float
    reserved_mib: float
    context_mib: float
    driver_mib: float


def measure(ground: Ground) -> tuple[list[Figure], dict[str, OnCard]]:
    """Return the figures, and the costs by model; each model is measured in a process of its own."""
    found, figures = dict[str, OnCard](), list[Figure]()
    for name in MODELS:
        found[name], compared = apart(partial(of_model, ground, name))
        figures += [*_figures(name, found[name]), *compared]
        say(f"  {name}: {found[name].cost.milliseconds_per_page_p50:.1f} ms")
    return [*figures, kinds_apart(next(iter(found.values())).cost)], found


def of_model(ground: Ground, name: str) -> tuple[OnCard, list[Figure]]:
    """Measure one model; call it in a fresh process."""
    cost = cost_of(ground, name)
    return cost, [] if name == "graph network" else precisions(ground, name)


def _figures(name: str, one: OnCard) -> Iterator[Figure]:
    cost = one.cost
    yield figure(f"{name}: parameters", cost.parameters / 1e6, "M")
    yield figure(f"{name}: page of {PAGE}, p50", cost.milliseconds_per_page_p50, "ms")
    yield figure(f"{name}: page of {PAGE}, p95", cost.milliseconds_per_page_p95, "ms")
    yield figure(f"{name}: page of 1,000, p50", cost.milliseconds_per_thousand_p50 or np.nan, "ms")
    yield figure(f"{name}: page of 1,000, p95", cost.milliseconds_per_thousand_p95 or np.nan, "ms")
    memory = cost.memory_mib_thousand or np.nan
    yield figure(f"{name}: memory that the product reports, page of {PAGE}", cost.memory_mib, "MiB")
    yield figure(f"{name}: memory that the product reports, page of 1,000", memory, "MiB", "", "torch's peak",
                 one.allocated_mib)  # fmt: skip
    if cost.kind == "gpu":
        apart_by = abs(memory / one.allocated_mib - 1)
        yield figure(f"{name}: the product's memory is off torch's peak by", apart_by, "share", "<= 0.05")
        own = one.driver_mib - one.context_mib
        yield figure(f"{name}: memory without the context, page of 1,000", memory, "MiB", "", "the driver", own)
        yield figure(f"{name}: CUDA context and libraries", one.context_mib, "MiB")
        yield figure(f"{name}: reserved by torch's allocator", one.reserved_mib, "MiB")


def cost_of(ground: Ground, name: str) -> OnCard:
    """Measure what one model costs, in a process that has not touched the card."""
    where, before = resolve_device(ground.device), used_mib()
    on_card = where.type == "cuda"
    if on_card:
        torch.zeros(1, device=where)
        torch.cuda.synchronize(where)
    context = used_mib() - before
    cost = profile(ground.model(name, "cpu"), some_pairs(ground, _PAIRS), ground.frame("products"), str(where))
    peaks = (torch.cuda.max_memory_allocated, torch.cuda.max_memory_reserved)
    allocated, reserved = (peak(where) / MIB if on_card else float("nan") for peak in peaks)
    return OnCard(cost, allocated, reserved, context, used_mib() - before)


def kinds_apart(cost: MeasuredCost) -> Figure:
    """Return whether a cost has the kind of the device, and a budget refuses to add it to one of the other kind."""
    other = "cpu" if cost.kind == "gpu" else "gpu"
    costs = {"a": Cost(cost.memory_mib, cost.milliseconds_per_page_p50, cost.kind), "b": Cost(1.0, 1.0, other)}
    try:
        Budget().used(costs, costs)
        refused = False
    except BudgetError:
        refused = True
    right = cost.device.startswith("cuda") == (cost.kind == "gpu")
    return figure("costs have the device's kind, and kinds are not added", refused and right, "", ">= 1")


def precisions(ground: Ground, name: str) -> list[Figure]:
    """Compare answers in bfloat16 with those in float32, and those of pages with those of all pairs at once."""
    pairs, products = some_pairs(ground, ground.size.bulk), ground.frame("products")
    model: Any = ground.model(name, ground.device)
    found = {}
    for precision in ("float32", "bfloat16"):
        recipe = model.spec.recipe.model_copy(update={"precision": precision})
        model.spec = model.spec.model_copy(update={"recipe": recipe})
        found[precision] = model.predict_proba(pairs, products)
    by_page = np.concatenate(
        [model.predict_proba(pairs.iloc[start : start + PAGE], products) for start in range(0, len(pairs), PAGE)]
    )
    compared = {
        "bfloat16 against float32": (found["bfloat16"], found["float32"]),
        f"bfloat16, pages of {PAGE} against all at once": (by_page, found["bfloat16"]),
    }
    figures = []
    for what, (one, other) in compared.items():
        figures.append(figure(f"{name}: {what}, largest gap of a probability", np.abs(one - other).max(), ""))
        differ = float((one.argmax(1) != other.argmax(1)).mean())
        figures.append(figure(f"{name}: {what}, labels that differ", 100 * differ, "%", "<= 1"))
    return figures
