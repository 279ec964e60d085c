"""Checkpoints under models:/ addresses: fetched once from the registry of the settings, laid out as one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.settings import Settings, read_settings
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.families.registered_checkpoint import fetch_registered, has_checkpoint, lay_out

MLMODEL = "flavors:\n  transformers: {task: text-classification, model_binary: model}\n"


@pytest.fixture
def settings(tmp_path: Path, empty_mlflow: bytes) -> Settings:
    """Those of an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "mlflow.db").write_bytes(empty_mlflow)
    return read_settings(home=home)


def log(settings: Settings, files: Path, weights: str) -> str:
    """Register files as mlflow.transformers lays them out, as the first version of a model; return its address."""
    for name, text in {
        "MLmodel": MLMODEL, "model/config.json": "{}", "model/model.safetensors": weights,
        "components/tokenizer/tokenizer.json": "{}", "components/tokenizer/config.json": "not the model's",
    }.items():  # fmt: skip
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(text, encoding="utf-8")
    client = Workspace(settings).models.tracking.client
    client.create_registered_model("Cross-Encoder")
    client.create_model_version("Cross-Encoder", str(files))
    return "models:/Cross-Encoder/1"


def test_weights_and_tokenizer_come_into_one_folder_which_is_fetched_once(settings, tmp_path):
    address = log(settings, tmp_path / "files", "first")
    assert has_checkpoint(address, settings)
    place = fetch_registered(address, settings)
    assert place.is_relative_to(settings.home)
    found = {file.name: file.read_text(encoding="utf-8") for file in place.iterdir()}
    assert found == {"config.json": "{}", "model.safetensors": "first", "tokenizer.json": "{}"}
    (tmp_path / "files" / "model" / "config.json").unlink()
    assert fetch_registered(address, settings) == place


def test_a_number_that_mlflow_has_given_again_is_another_checkpoint(settings, tmp_path):
    before = fetch_registered(log(settings, tmp_path / "files", "first"), settings)
    Workspace(settings).models.tracking.client.delete_registered_model("Cross-Encoder")
    after = fetch_registered(log(settings, tmp_path / "others", "second"), settings)
    assert before != after
    assert (after / "model.safetensors").read_text(encoding="utf-8") == "second"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"model.pkl": "x", "MLmodel": "flavors: {sklearn: {}}"}, "it is a model of the flavours sklearn"),
        ({"x": "y"}, "it is no MLflow model"),
        ({"a/config.json": "{}", "a/model.safetensors": "", "b/config.json": "{}", "b/model.safetensors": ""}, "a, b"),
        ({"config.json": "{}"}, "no config.json with model.safetensors beside it"),
    ],
)
def test_a_version_without_one_encoder_is_refused_with_what_it_is(files, why, tmp_path):
    for name, text in files.items():
        (tmp_path / "version" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "version" / name).write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=why):
        lay_out(tmp_path / "version", tmp_path / "made", "models:/x/1")
    assert not (tmp_path / "made").exists()
