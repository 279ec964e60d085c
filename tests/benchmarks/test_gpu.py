"""The GPU benchmark, on a machine without one: replicas are measured as they are on a card, and figures are told."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pandas as pd

from benchmarks.accelerator import costs, serving
from benchmarks.accelerator.card import settled_mib, used_mib
from benchmarks.accelerator.ground import QUICK, Ground
from benchmarks.accelerator.training import Run, _curves
from benchmarks.gpu import WHEELS, main
from esci_tournament.deployments.scorer.compute.pairs import PageFailed
from esci_tournament.tasks.candidates.profile import MeasuredCost
from esci_tournament.tasks.data.store import write_frame


def test_a_loss_curve_is_compared_with_the_spread_of_seeds():
    cpu = Run((1.0, 0.5), 10.0, "a", math.nan)
    seeds = [Run((1.0, 0.5 + shift), 10.0, "b", math.nan) for shift in (0.0, 0.02, 0.04)]
    runs = {"near": Run((1.0, 0.55), 9.0, "c", 1.0), "far": Run((1.1, 0.5), 9.0, "c", 1.0)}
    assert [one.met for one in _curves("model", runs, cpu, seeds, "cuda:0")] == [True, False]


def test_costs_of_two_kinds_are_not_added():
    cost = MeasuredCost("cuda:0 (a card)", "gpu", 1, 1.0, 1.0, 1.0, 1, 1.0)
    assert costs.kinds_apart(cost).met
    assert not costs.kinds_apart(MeasuredCost("cpu (a processor)", "gpu", 1, 1.0, 1.0, 1.0, 1, 1.0)).met


def test_pages_are_asked_of_every_member_and_failures_are_counted(tmp_path):
    class Replica:
        """Answers at once; every third batch fails."""

        asked = 0

        def send(self, member, slices, done):
            self.asked += 1
            failed = self.asked % 3 == 0
            answer = PageFailed("no") if failed else np.zeros((slices[0][2], 4))
            asyncio.get_running_loop().call_soon(done, [answer], 0.0)

    ground = Ground(QUICK, "cpu", tmp_path, None, 0)
    texts = {name: [f"{name} {row}" for row in range(9)] for name in ("title", "brand", "color", "bullets")}
    products = pd.DataFrame({"product_id": [f"P{row}" for row in range(9)], **texts, "description": [None] * 9})
    write_frame(products, tmp_path / "products.arrow")
    write_frame(pd.DataFrame({"query": ["lamp", "chair"], "locale": ["us", "es"]}), tmp_path / "test.arrow")
    pages = serving.pages_of(ground, 4)
    assert [len(page) for page in pages] == [40] * 4
    replica = Replica()
    load = asyncio.run(serving.ask([replica], pages))
    assert (len(load.milliseconds), load.failed) == (4, 4)
    assert replica.asked == 4 * len(serving.SERVED)


def test_without_a_card_its_memory_is_not_known():
    used, seconds = settled_mib(0.0)
    assert math.isnan(used) or used > 0
    assert math.isnan(used_mib()) == math.isnan(used)
    assert seconds < 11


def test_the_packages_to_bring_are_listed(capsys):
    assert main(["--wheels"]) == 0
    assert capsys.readouterr().out.split() == list(WHEELS)
