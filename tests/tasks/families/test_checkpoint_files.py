"""What a checkpoint's files name is looked at before a library follows it, and no pickle is ever reached."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from esci_tournament.registry.errors import SpecError
from esci_tournament.tasks.families import checkpoint
from esci_tournament.tasks.families.checkpoint_files import inspect, tensors_of, vetted
from esci_tournament.tasks.families.language_model.tokenizer import train_tokenizer, wrap


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT with random weights in two files, as Hugging Face's own code saves it."""
    place = tmp_path_factory.mktemp("whole") / "checkpoint"
    tokenizer = wrap(train_tokenizer(["red mug", "blue kettle", "red kettle", "blue mug", "赤いカップ"], 300))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(place, max_shard_size="12KB")
    tokenizer.save_pretrained(place)
    assert (place / "model.safetensors.index.json").is_file()
    return place


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "checkpoint"))


def change(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | values))


def rename_shard(folder: Path, name: str) -> None:
    """Let the index name another file for one of its shards."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    first = next(iter(index["weight_map"].values()))
    index["weight_map"] = {key: name if value == first else value for key, value in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


class Never:
    """Stands for everything that unpickles."""

    def __init__(self, *_: object, **__: object) -> None:
        raise AssertionError("something is unpickled")


@pytest.fixture
def no_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(owner, name, Never)


def one_file(folder: Path) -> None:
    model = BertModel.from_pretrained(folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    model.save_pretrained(folder)


def with_pickles_beside(folder: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "adapter_model.bin"):
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch boom'\ntR.")


def in_a_cache(folder: Path) -> None:
    """The layout of the hub's cache: links to blobs two folders up."""
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for file in list(folder.iterdir()):
        file.rename(blobs / file.name)
    snapshot = folder.parent / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", file.name))
    folder.rmdir()
    folder.symlink_to(snapshot)


@pytest.mark.parametrize("made", [None, one_file, with_pickles_beside, in_a_cache])
def test_every_kind_of_checkpoint_is_opened_without_a_pickle(
    folder: Path, made: Callable[[Path], None] | None, request: pytest.FixtureRequest
) -> None:
    """F5.3."""
    wanted = BertModel.from_pretrained(folder).get_input_embeddings().weight
    if made is not None:
        made(folder)
    request.getfixturevalue("no_pickles")
    found = checkpoint.fetch_checkpoint(str(folder))
    assert torch.equal(checkpoint.open_encoder(found).get_input_embeddings().weight, wanted)
    assert checkpoint.open_tokenizer(found).tokenize("red mug") == ["red", "mug"]


@pytest.mark.shared
@pytest.mark.slow
def test_published_models_are_opened_without_a_pickle(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """F5.3: slow, because it fetches a model with the tool of the shared folder."""
    tool = Path(__file__).resolve().parents[4] / "shared" / "tools" / "offline_models.py"
    if not tool.is_file():
        pytest.skip("there is no tool that fetches models")
    made = subprocess.run(
        [sys.executable, str(tool), "--out", str(tmp_path), "--models", "minilm-l3"], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip(f"no model can be fetched: {made.stderr.decode()[-200:]}")
    request.getfixturevalue("no_pickles")
    found = checkpoint.fetch_checkpoint(str(tmp_path / "minilm-l3"))
    assert checkpoint.open_encoder(found).config.num_hidden_layers == 3
    assert checkpoint.open_tokenizer(found).tokenize("wireless mouse") == ["wireless", "mouse"]


def shard_in_a_pickle(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")
    rename_shard(folder, "pytorch_model.bin")


def shard_above(folder: Path) -> None:
    shutil.copy(next(folder.glob("*.safetensors")), folder.parent / "above.safetensors")
    rename_shard(folder, "../above.safetensors")


def shard_elsewhere(folder: Path) -> None:
    shutil.copy(next(folder.glob("*.safetensors")), folder.parent / "above.safetensors")
    rename_shard(folder, str(folder.parent / "above.safetensors"))


def shard_behind_a_link(folder: Path) -> None:
    file = next(folder.glob("*.safetensors"))
    file.rename(folder.parent / "above.safetensors")
    file.symlink_to(folder.parent / "above.safetensors")


def shard_is_a_pipe(folder: Path) -> None:
    file = next(folder.glob("*.safetensors"))
    file.unlink()
    os.mkfifo(file)


def shard_in_a_folder(folder: Path) -> None:
    (folder / "sub").mkdir()
    shutil.copy(next(folder.glob("*.safetensors")), folder / "sub" / "a.safetensors")
    rename_shard(folder, "sub/a.safetensors")


def tokenizer_behind_a_link(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder.parent / "tokenizer.json")
    (folder / "tokenizer.json").symlink_to(folder.parent / "tokenizer.json")


def config_is_a_device(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")


def no_weight_map(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": {}}')


def header_of(length: int, content: bytes = b"") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        next(folder.glob("*.safetensors")).write_bytes(struct.pack("<Q", length) + content)

    return write


def changed(name: str, **values: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / name, **values)


def written(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def with_pattern(pattern: str, where: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        regex = {"Regex": pattern}
        steps = {
            "pre_tokenizer": {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False},
            "normalizer": {"type": "Replace", "pattern": regex, "content": "x"},
            "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": regex, "content": "x"}]},
        }
        change(folder / "tokenizer.json", **{where: steps[where]})

    return write


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (shard_in_a_pickle, "names 'pytorch_model.bin'"),
        (shard_above, r"'\.\./above.safetensors' is no name of a file in its folder"),
        (shard_elsewhere, "is no name of a file in its folder"),
        (shard_in_a_folder, "is no name of a file in its folder"),
        (shard_behind_a_link, "leads out of its folder"),
        (shard_is_a_pipe, "or is no file"),
        (no_weight_map, "has no weight_map"),
        (tokenizer_behind_a_link, "leads out of its folder"),
        (config_is_a_device, "no config.json|leads out of its folder"),
        (header_of(2**40), "header would have 1,099,511,627,776 bytes"),
        (header_of(4, b'{"a"'), "is cut or no safetensors file"),
        (header_of(2, b"[]"), "is cut or no safetensors file"),
        (changed("config.json", transformers_weights="../x.safetensors"), "as 'transformers_weights'"),
        (changed("config.json", transformers_weights="pytorch_model.bin"), "as 'transformers_weights'"),
        (changed("tokenizer_config.json", tokenizer_file="/etc/passwd"), "names '/etc/passwd' as 'tokenizer_file'"),
        (changed("tokenizer_config.json", vocab_file="../v.txt"), "as 'vocab_file'"),
        (changed("tokenizer_config.json", fast_tokenizer_files=["../tokenizer.9.json"]), "as 'fast_tokenizer_files'"),
        (changed("adapter_config.json", base_model_name_or_path="/etc"), "holds an adapter"),
        (written("modules.json", '[{"idx": 0, "name": "0", "path": "../../etc", "type": "x"}]'), "as 'path'"),
        (written("config.json", '{"a":' * 40_000 + "1" + "}" * 40_000), "nested deeper than 32 levels"),
        (written("special_tokens_map.json", "[]"), "no JSON object"),
        (changed("config.json", num_hidden_layers=2000), r"declares 2,000 layers.*weights have 2"),
        (changed("config.json", num_hidden_layers=3), r"declares 3 layers.*weights have 2"),
        (changed("config.json", hidden_size=4096), "no tensor has that size"),
        (changed("config.json", vocab_size=10**7), "no tensor has that size"),
        (changed("config.json", max_position_embeddings=10**12), "too large"),
        (with_pattern("(a+)+$", "pre_tokenizer"), r"regular expression '\(a\+\)\+\$'.*a group is repeated"),
        (with_pattern("(?:x+x+)+y", "normalizer"), "whose matching may take forever"),
        (with_pattern("(a|a)*b", "decoder"), "whose matching may take forever"),
        (with_pattern(r"\p{Thai}*\p{Thai}*!", "pre_tokenizer"), "its tokenizer (takes more than|fails on)"),
    ],
)
def test_what_would_lead_elsewhere_or_never_end_is_refused_before_a_library_sees_it(
    folder: Path, spoil: Callable[[Path], None], words: str
) -> None:
    """F5.3, F5.5, F5.6, S6, F5.2."""
    spoil(folder)
    began = time.monotonic()
    with pytest.raises(SpecError, match=words):
        inspect(str(folder))
    assert time.monotonic() - began < 20


@pytest.mark.usefixtures("no_pickles")
def test_what_is_swapped_after_it_was_looked_at_is_refused_too(folder: Path) -> None:
    """F5.3: the files are looked at again when they are opened."""
    checkpoint.check_checkpoint(str(folder), deep=False)
    rename_shard(folder, "pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch boom'\ntR.")
    with pytest.raises(SpecError, match=r"names 'pytorch_model\.bin'"):
        checkpoint.open_encoder(folder)
    change(folder / "tokenizer_config.json", tokenizer_file="/etc/passwd")
    with pytest.raises(SpecError, match="tokenizer_file"):
        checkpoint.open_tokenizer(folder)


def test_remarks_about_where_it_was_saved_are_no_references(folder: Path) -> None:
    change(folder / "config.json", _name_or_path="/srv/models/bert")
    change(folder / "tokenizer_config.json", special_tokens_map_file="/srv/cache/x.json", tokenizer_file=None)
    assert inspect(str(folder))["model_type"] == "bert"
    with vetted(folder) as place:
        assert "special_tokens_map_file" not in json.loads((place / "tokenizer_config.json").read_text())
        assert {one.name for one in place.iterdir()} <= {one.name for one in folder.iterdir()}
    assert not place.exists()


def test_a_header_says_what_a_file_holds(folder: Path) -> None:
    model = BertModel.from_pretrained(folder)
    found: dict[str, list[int]] = {}
    for file in folder.glob("*.safetensors"):
        found |= tensors_of(file, "x")
    assert found == {name: list(value.shape) for name, value in model.state_dict().items()}


def test_lost_shards_are_named(folder: Path) -> None:
    last = max(folder.glob("model-*.safetensors"))
    count = len(list(folder.glob("model-*.safetensors")))
    last.unlink()
    with pytest.raises(SpecError, match=f"1 of the {count} files of weights .* cannot be found: '{last.name}'"):
        inspect(str(folder))


def lone(*names: str) -> Callable[[Path], None]:
    """Leave other files in place of the weights."""

    def change(folder: Path) -> None:
        for file in folder.glob("model*.safetensors*"):
            file.unlink()
        for name in names:
            (folder / name).write_bytes(b"x")

    return change


def of_sentence_transformers(folder: Path) -> None:
    lone("modules.json")(folder)
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lone("model-q4.gguf"), "only as 'model-q4.gguf'; GGUF is made for inference"),
        (lone("model.onnx"), "only as 'model.onnx'; ONNX"),
        (lone("tf_model.h5"), "only as 'tf_model.h5'; those of TensorFlow"),
        (lone("model-00001-of-00002.safetensors"), "has parts of its weights.*no model.safetensors.index.json"),
        (lone("bert.safetensors"), "has its weights as 'bert.safetensors'.*rename"),
        (lone("adapter_config.json", "adapter_model.safetensors"), "holds an adapter.*merge_and_unload"),
        (of_sentence_transformers, "sentence-transformers.*0_Transformer"),
        (changed("config.json", is_encoder_decoder=True), "T5EncoderModel.from_pretrained"),
        (changed("config.json", is_decoder=True), "is set up as a decoder"),
    ],
)
def test_other_forms_of_a_model_are_refused_with_what_to_do(
    folder: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(folder)
    with pytest.raises(SpecError, match=words):
        checkpoint.check_checkpoint(str(folder))
