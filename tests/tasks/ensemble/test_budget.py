import pytest

from esci_tournament.registry.errors import BudgetError, UsageError
from esci_tournament.tasks.ensemble.budget import Budget, Cost, check_costs

COSTS = {"a": Cost(100, 10), "b": Cost(300, 5), "c": Cost(50, 40)}


def test_memory_adds_up_and_time_follows_the_execution():
    assert Budget().used("abc", COSTS) == Cost(450, 55)
    assert Budget(execution="parallel").used("abc", COSTS) == Cost(450, 40)


def test_both_limits_hold_together():
    budget = Budget(memory_mib=400, latency_ms=20)
    assert budget.fits("ab", COSTS)
    assert not budget.fits("ac", COSTS)
    assert not budget.fits("abc", COSTS)
    assert Budget(memory_mib=150, latency_ms=45, execution="parallel").fits("ac", COSTS)


def test_a_price_is_asked_only_for_what_is_exceeded():
    budget = Budget(memory_mib=400, latency_ms=1000)
    assert budget.share("b", COSTS, "abc") == pytest.approx(300 / 400)
    assert Budget(latency_ms=20, execution="parallel").share("a", COSTS, "abc") == 0


def test_costs_must_be_numbers_and_known():
    with pytest.raises(UsageError, match="no cost"):
        Cost(float("nan"), 1)
    with pytest.raises(UsageError, match="d has no cost"):
        check_costs(["a", "d"], COSTS)


def test_costs_of_a_cpu_and_a_gpu_are_never_added_up():
    costs = {"small": Cost(10, 1, "cpu"), "large": Cost(20, 2, "gpu"), "old": Cost(30, 3)}
    assert Budget().used(["small", "old"], costs) == Cost(40, 4, "cpu")
    with pytest.raises(BudgetError, match="that of small on a CPU and that of large on a GPU; they are never added up"):
        Budget(memory_mib=100).fits(costs, costs)
