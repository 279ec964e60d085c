"""Checkpoints: what is opened, what is refused, and the error messages."""

import json

import pytest
import torch
from transformers import BertConfig, BertModel

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.families.checkpoint import (
    check_checkpoint,
    fetch_checkpoint,
    open_encoder,
    open_tokenizer,
    permit_checkpoint,
)
from esci_tournament.tasks.families.language_model.tokenizer import train_tokenizer, wrap


@pytest.fixture
def folder(tmp_path):
    """A small BERT with random weights, as Hugging Face's own code saves it."""
    place = tmp_path / "checkpoint"
    tokenizer = wrap(train_tokenizer(["red mug", "blue kettle", "red kettle", "blue mug", "赤いカップ"], 300))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def test_a_whole_checkpoint_opens_with_its_own_weights(folder):
    check_checkpoint(str(folder), deep=False)
    assert fetch_checkpoint(str(folder)) == folder
    weights = open_encoder(folder).get_input_embeddings().weight
    assert torch.equal(weights, BertModel.from_pretrained(folder).get_input_embeddings().weight)
    assert open_tokenizer(folder).tokenize("red mug") == ["red", "mug"]


@pytest.mark.slow
def test_positions_are_looked_up_in_a_child_once_until_a_file_changes(folder, monkeypatch):
    """Slow, because each look imports torch in another process."""
    assert check_checkpoint(str(folder)) == 64
    content = json.loads((folder / "config.json").read_text())
    monkeypatch.setattr("esci_tournament.tasks.families.checkpoint._check_folder", lambda _: None)
    monkeypatch.setattr("esci_tournament.tasks.families.checkpoint.in_child", lambda *_, **__: {})
    assert check_checkpoint(str(folder)) == 64
    (folder / "config.json").write_text(json.dumps(content | {"num_hidden_layers": 1}))
    with pytest.raises(KeyError):  # it looks again
        check_checkpoint(str(folder))


def test_weights_that_are_only_a_pickle_are_refused_and_never_opened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch boom'\ntR.")
    with pytest.raises(SpecError, match=r"pytorch_model\.bin.*pickle.*model\.safetensors"):
        check_checkpoint(str(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_a_folder_lacks_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(SpecError, match=f"no {name}"):
        check_checkpoint(str(folder))


def test_of_other_paths_nothing_is_told(folder, tmp_path, caplog):
    """R2.7: a folder without a checkpoint, a file, a path that is absent or that nobody may look at read the same."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    places = ["/etc", "/etc/ssl", "/srv/absent", str(folder / "config.json"), str(tmp_path / "loop"), "~nobody/x"]
    told = set()
    for place in places:
        with pytest.raises(SpecError) as caught:
            check_checkpoint(place)
        told.add(str(caught.value).replace(place, "PATH"))
    assert len(told) == 1
    assert "neither a folder here nor a model" in told.pop()
    assert "holds no checkpoint" in caplog.text
    assert "is not there" in caplog.text


def test_a_folder_outside_those_that_are_allowed_reads_as_if_it_were_not_there(folder, tmp_path):
    permit_checkpoint(str(folder), Settings(allowed_checkpoint_roots=(str(tmp_path),)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "link").symlink_to(folder)
    for place in (folder, tmp_path / "other" / "link", tmp_path / "other" / ".." / "checkpoint"):
        with pytest.raises(SpecError, match="neither a folder here nor a model"):
            permit_checkpoint(str(place), Settings(allowed_checkpoint_roots=(str(tmp_path / "other"),)))


def test_weights_that_are_too_large_for_the_operator_are_refused_unopened(folder):
    with pytest.raises(SpecError, match="candidate_parameters allows 1,000 parameters"):
        permit_checkpoint(str(folder), Settings(candidate_parameters=1000))


def test_cut_weights_are_refused_before_any_training(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SpecError, match=r"model\.safetensors is cut"):
        check_checkpoint(str(folder))


def test_a_publishers_own_code_is_never_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "homemade", "auto_map": {"AutoModel": "modeling.Boom"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(SpecError, match=r"'homemade'.*never run"):
        check_checkpoint(str(folder))


def test_weights_of_another_architecture_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(SpecError, match="lack 16 tensors"):
        open_encoder(folder)


def test_a_name_that_is_nowhere_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SpecError, match="neither a folder here nor a model"):
        check_checkpoint("nobody/no-such-model-0123456789")
