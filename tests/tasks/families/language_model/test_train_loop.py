"""The training loop without language models: half precision, and several processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from esci_tournament.tasks.families.language_model.team import ALONE, Team
from esci_tournament.tasks.families.language_model.train_loop import Plan, train

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
INPUTS = torch.tensor(RNG.normal(size=(37, 6)), dtype=torch.float32)  # the last step of an epoch has one row
LABELS = torch.tensor(RNG.integers(0, 4, 37))


def run(folder, team=ALONE, plan=None, loss_factor=lambda: 1.0, **more):
    """Train a small network and return it with the state of the run."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))

    def loss(rows):
        return nn.functional.cross_entropy(network(INPUTS[rows]), LABELS[rows], reduction="sum") * loss_factor()

    state = train(
        network, [{"params": list(network.parameters()), "lr": 1e-2}], plan or Plan(epochs=2, key="k"), loss=loss,
        validate=lambda: None, batches=lambda epoch: np.split(np.arange(37), range(4, 37, 4)), folder=folder,
        device=CPU, team=team, **more,
    )  # fmt: skip
    return network, state


def weights(network):
    return torch.cat([value.detach().flatten() for value in network.parameters()])


def half(epochs):
    return Plan(epochs=epochs, precision=torch.float16, key="k")


def test_in_float16_the_loss_falls_as_in_float32(tmp_path):
    _, whole = run(tmp_path / "float32")
    _, halved = run(tmp_path / "float16", plan=half(2))
    assert halved.history[1]["loss"] < halved.history[0]["loss"]
    assert halved.history[1]["loss"] == pytest.approx(whole.history[1]["loss"], rel=0.02)


def test_a_step_whose_float16_gradients_overflow_is_left_out_and_the_scale_falls(tmp_path):
    factors = iter([1e5] * 2 + [1.0] * 100)  # times the scaler's 65,536: gradients beyond float16's 65,504
    network, state = run(tmp_path, plan=half(1), loss_factor=lambda: next(factors))
    assert torch.isfinite(weights(network)).all()
    assert state.step == 10
    scale = _scale(tmp_path)
    assert scale < 65_536


def test_the_scale_goes_into_the_checkpoint(tmp_path):
    factors = iter([1e5] * 2 + [1.0] * 100)
    stop = lambda share, doing: (_ for _ in ()).throw(KeyboardInterrupt) if share > 0.6 else None  # noqa: E731
    plan = Plan(epochs=2, precision=torch.float16, checkpoint_seconds=0.0, key="k")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", plan=plan, loss_factor=lambda: next(factors), progress=stop)
    resumed, _ = run(tmp_path / "cut", plan=plan)
    factors = iter([1e5] * 2 + [1.0] * 100)
    whole, _ = run(tmp_path / "whole", plan=plan, loss_factor=lambda: next(factors))
    assert torch.equal(weights(resumed), weights(whole))
    assert _scale(tmp_path / "cut") == _scale(tmp_path / "whole") < 65_536


def _scale(folder):
    with safe_open(folder / "training.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["run"])["scaler"]["scale"]


def test_the_team_of_one_changes_nothing():
    rows = np.arange(5)
    assert ALONE.share(rows) is rows
    assert ALONE.total(2.5) == 2.5


def test_the_shares_of_a_team_are_all_rows_once():
    rows = np.arange(11)
    assert sorted(np.concatenate([Team(rank, 3).share(rows) for rank in range(3)])) == list(rows)


@pytest.mark.slow
def test_two_processes_take_the_steps_that_one_takes(tmp_path):
    script = f"""
import importlib.util, sys, torch
from pathlib import Path
found = importlib.util.spec_from_file_location("helpers", {str(Path(__file__))!r})
helpers = importlib.util.module_from_spec(found)
found.loader.exec_module(helpers)
torch.set_num_threads(1)
team = helpers.Team.join(True, 0)
assert team.size == 2
network, state = helpers.run(Path(sys.argv[1]), team)
torch.save(helpers.weights(network), sys.argv[1] + f"/weights-{{team.rank}}")
"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
             "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}  # fmt: skip
    team = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [member.wait(timeout=240) for member in team] == [0, 0]
    alone, _ = run(tmp_path / "alone")
    ours = [torch.load(tmp_path / f"weights-{rank}", weights_only=True) for rank in range(2)]
    assert torch.equal(ours[0], ours[1])
    torch.testing.assert_close(ours[0], weights(alone), atol=1e-5, rtol=0)
