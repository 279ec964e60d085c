"""The cost of a candidate, measured."""

import time
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

from esci_tournament.registry.errors import CandidateError, UsageError
from esci_tournament.tasks.candidates.profile import LARGE_PAGE, PAGE, MeasuredCost, profile
from esci_tournament.tasks.families.protocol import with_defaults

PAIRS = pd.DataFrame({"query": ["mug", "lamp"] * 5, "locale": "us", "product": range(10)})
PRODUCTS = pd.DataFrame({"title": [f"thing {number}" for number in range(10)]})


@with_defaults
class Sleeper:
    """A candidate whose cost is known: 20 ms and 64 MiB a page, 40 ms and 128 MiB a page of 1,000, 1 MiB of weights."""

    pages: ClassVar[list] = []

    def predict_proba(self, pairs, products):
        Sleeper.pages.append(pairs)
        times = 1 if len(pairs) == PAGE else 2
        block = np.ones(times * 64 * 2**17)
        time.sleep(0.02 * times)
        return np.full((len(pairs), 4), block[0] / 4, dtype=np.float32)

    def save(self, folder):
        (folder / "weights").write_bytes(bytes(2**20))

    @classmethod
    def load(cls, folder, device="cpu"):
        assert (folder / "weights").stat().st_size == 2**20
        time.sleep(0.05)
        return cls()

    def parameters(self):
        return 2**18


@pytest.fixture(scope="module")
def cost():
    return profile(Sleeper(), PAIRS, PRODUCTS)


def test_time_is_that_of_a_page(cost):
    assert 20 <= cost.milliseconds_per_page_p50 <= cost.milliseconds_per_page_p95
    assert cost.load_seconds >= 0.05


def test_memory_is_weights_and_the_peak_of_a_page(cost):
    assert cost.memory_mib > 1 + 50
    assert cost.parameters == 2**18
    assert cost.bytes_on_disk == 2**20


def test_a_page_is_forty_or_a_thousand_pairs_of_one_query(cost):
    assert {len(page) for page in Sleeper.pages} == {PAGE, LARGE_PAGE}
    assert {page["query"].nunique() for page in Sleeper.pages} == {1}


def test_a_cpu_cost_says_that_it_is_one(cost):
    assert cost.kind == "cpu"
    assert cost.device.startswith("cpu (")


def test_a_page_of_a_thousand_is_measured_too(cost):
    assert cost.memory_mib_thousand > 1 + 115
    assert 40 <= cost.milliseconds_per_thousand_p50 <= cost.milliseconds_per_thousand_p95


def test_a_model_that_multiplies_nothing_in_torch_has_no_flops(cost):
    assert cost.flops_per_page is None


class Linear(Sleeper):
    """A layer of 30 to 4 in torch: 2 * 30 * 4 operations a pair."""

    def predict_proba(self, pairs, products):
        with torch.inference_mode():
            return torch.nn.functional.linear(torch.ones(len(pairs), 30), torch.ones(4, 30)).softmax(1).numpy()


def test_flops_are_two_a_multiply_add():
    assert profile(Linear(), PAIRS, PRODUCTS).flops_per_page == PAGE * 2 * 30 * 4


class Elsewhere(Sleeper):
    """A model whose 300 MiB are held by another process."""

    def resident_bytes(self):
        return 300 * 2**20

    def predict_proba(self, pairs, products):
        return np.full((len(pairs), 4), 0.25, dtype=np.float32)


def test_memory_held_elsewhere_takes_the_place_of_the_weights():
    assert 300 <= profile(Elsewhere(), PAIRS, PRODUCTS).memory_mib < 340


def test_a_cost_of_an_earlier_version_can_be_read():
    old = (
        '{"bytes_on_disk": 9, "device": "cpu (x)", "kind": "cpu", "load_seconds": 0.1, "memory_mib": 2.5, "page": 40, '
        '"milliseconds_per_page_p50": 1.0, "milliseconds_per_page_p95": 2.0, "parameters": 7}'
    )
    read = MeasuredCost.from_json(old)
    assert (read.memory_mib, read.memory_mib_thousand, read.flops_per_page) == (2.5, None, None)


def test_json_gives_the_cost_back(cost):
    assert MeasuredCost.from_json(cost.to_json()) == cost
    with pytest.raises(UsageError, match="no cost"):
        MeasuredCost.from_json('{"gpus": 3}')


def test_nothing_to_score_is_an_error():
    with pytest.raises(CandidateError, match="no pair"):
        profile(Sleeper(), PAIRS.head(0), PRODUCTS)
