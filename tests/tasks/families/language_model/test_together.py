"""One language model, trained by two processes."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.tasks.families.language_model import together
from esci_tournament.tasks.families.language_model.model import LanguageModel

found = importlib.util.spec_from_file_location("language_model_helpers", Path(__file__).with_name("test_model.py"))
helpers = importlib.util.module_from_spec(found)
found.loader.exec_module(helpers)


@pytest.mark.slow
def test_two_processes_train_a_model_that_scores_nearly_as_one_does(tmp_path):
    frame, products = helpers.world(600)
    said = []
    recipe = {"epochs": 2, "style": "bi_encoder"}
    one = LanguageModel(helpers.make_spec(**recipe)).fit(helpers.data(frame, products, tmp_path / "one"))
    two = LanguageModel(helpers.make_spec(**recipe, processes=2)).fit(
        helpers.data(frame, products, tmp_path / "two", progress=lambda share, doing: said.append(share))
    )
    assert two.training.step == one.training.step
    losses = [[epoch["loss"] for epoch in model.training.history] for model in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)  # the draws of dropout differ
    scores = [model.predict_proba(frame, products) for model in (one, two)]
    assert np.abs(scores[0] - scores[1]).mean() < 0.05
    assert said == sorted(said)
    assert said[-1] == 1.0
    assert not (tmp_path / "two" / "together").exists()


@pytest.mark.slow
def test_the_reason_of_the_process_that_fails_is_the_candidates_reason(tmp_path):
    frame, products = helpers.world(200)
    model = LanguageModel(helpers.make_spec(learning_rate=1000, weight_decay=10, warmup_share=0.0, processes=2))
    with pytest.raises(CandidateError, match=r"loss is .*(nan|inf).* at step \d+"):
        model.fit(helpers.data(frame, products, tmp_path))


def test_each_process_on_a_cpu_is_on_the_cpu():
    assert together.team_devices(helpers.make_spec(processes=3), "cpu") == ["cpu"] * 3


def test_each_process_has_a_gpu_of_its_own_and_too_few_are_a_wrong_spec(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert together.team_devices(helpers.make_spec(processes=2), "cuda:1") == ["cuda:1", "cuda:2"]
    with pytest.raises(SpecError, match=r"processes is 4, and there are 2 GPUs from cuda:2 on"):
        together.team_devices(helpers.make_spec(processes=4), "cuda:2")


def test_one_process_is_no_new_candidate():
    assert helpers.make_spec(processes=1).digest() == helpers.make_spec().digest()
    assert "processes" in json.loads(helpers.make_spec().model_dump_json())["recipe"]
