"""The cost of a candidate, measured."""

import time
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from registry.errors import CandidateError, UsageError
from tasks.candidates.profile import PAGE, Cost, profile

PAIRS = pd.DataFrame({"query": ["mug", "lamp"] * 5, "locale": "us", "product": range(10)})
PRODUCTS = pd.DataFrame({"title": [f"thing {number}" for number in range(10)]})


class Sleeper:
    """A candidate whose cost is known: 20 ms and 64 MiB a page, 1 MiB of weights."""

    pages: ClassVar[list] = []

    def predict_proba(self, pairs, products):
        Sleeper.pages.append(pairs)
        block = np.ones(64 * 2**17)
        time.sleep(0.02)
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


def test_a_page_is_forty_pairs_of_one_query(cost):
    assert {len(page) for page in Sleeper.pages} == {PAGE}
    assert {page["query"].nunique() for page in Sleeper.pages} == {1}


def test_a_cpu_cost_says_that_it_is_one(cost):
    assert cost.kind == "cpu"
    assert cost.device.startswith("cpu (")


def test_json_gives_the_cost_back(cost):
    assert Cost.from_json(cost.to_json()) == cost
    with pytest.raises(UsageError, match="no cost"):
        Cost.from_json('{"gpus": 3}')


def test_nothing_to_score_is_an_error():
    with pytest.raises(CandidateError, match="no pair"):
        profile(Sleeper(), PAIRS.head(0), PRODUCTS)
