"""Device names, precisions and seeds."""

import pytest
import torch

from esci_tournament.registry.errors import CandidateError, UsageError
from esci_tournament.tasks.candidates.device import (
    autocast,
    device_name,
    memory_guard,
    resolve_device,
    resolve_precision,
    seeded,
)

CPU = torch.device("cpu")


def test_cpu_is_cpu_and_auto_is_what_the_machine_has():
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused_by_name(name):
    with pytest.raises(UsageError, match=f"'{name}'"):
        resolve_device(name)


def test_a_cpu_trains_a_narrow_model_in_float32_unless_told_otherwise():
    assert resolve_precision("auto", CPU) is None
    assert resolve_precision("float32", CPU) is None
    assert resolve_precision("bfloat16", CPU) is torch.bfloat16
    with pytest.raises(UsageError, match="float16"):
        resolve_precision("float16", CPU)


@pytest.mark.parametrize("capable", [True, False])
def test_a_wide_model_uses_bfloat16_on_a_processor_that_has_it(capable, monkeypatch):
    for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, check, lambda: capable, raising=False)
    assert resolve_precision("auto", CPU, width=384) is (torch.bfloat16 if capable else None)
    assert resolve_precision("auto", CPU, width=64) is None


def test_autocast_changes_what_a_matrix_product_computes_in():
    one = torch.ones(2, 2)
    with autocast(CPU, torch.bfloat16):
        assert (one @ one).dtype is torch.bfloat16
    with autocast(CPU, None):
        assert (one @ one).dtype is torch.float32


def test_seeding_is_repeatable_and_leaves_the_caller_alone():
    before = torch.random.get_rng_state()
    with seeded(5):
        first = torch.rand(3)
    with seeded(5):
        second = torch.rand(3)
    assert torch.equal(first, second)
    assert torch.equal(before, torch.random.get_rng_state())


def test_hardware_has_a_name():
    assert device_name(CPU)


def test_an_allocation_that_no_machine_has_room_for_is_told_in_words():
    with (
        pytest.raises(CandidateError, match=r"out of memory while training \(.*smaller model"),
        memory_guard("training"),
    ):
        torch.empty(2**44)


def test_another_error_passes_as_it_is():
    with pytest.raises(RuntimeError, match="shapes"), memory_guard("training"):
        raise RuntimeError("shapes do not fit")
