"""What a checkpoint holds fits together, is made to fit, or is refused for the reason that it does not."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    ModernBertConfig,
    PretrainedConfig,
    Qwen3Config,
    RobertaConfig,
    ViTConfig,
    XLNetConfig,
)

from esci_tournament.registry.errors import SpecError
from esci_tournament.tasks.families.checkpoint import check_checkpoint, open_checkpoint, open_encoder, open_tokenizer
from esci_tournament.tasks.families.checkpoint_files import inspect, vetted
from esci_tournament.tasks.families.checkpoint_model import (
    check_reading,
    look,
    model_class,
    positions,
    widen_embeddings,
)
from esci_tournament.tasks.families.language_model.pair_texts import PairTexts, PairTokenizer
from esci_tournament.tasks.families.language_model.spec import LanguageModelRecipe
from esci_tournament.tasks.families.language_model.tokenizer import train_tokenizer, wrap

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole") / "checkpoint"
    tokenizer = wrap(train_tokenizer(["red mug", "blue kettle", "red kettle", "blue mug", "赤いカップ"], 300))
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **SIZES)).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "checkpoint"))


def seen(folder: Path) -> dict[str, Any]:
    """Do what registration does, in this process; looking at the files alone takes longest, and is tried elsewhere."""
    with vetted(folder, weights=False) as place:
        return look(str(folder), str(place))


def registered(folder: Path) -> None:
    inspect(str(folder))
    seen(folder)


def rename(folder: Path, change: Callable[[str], str], **more: torch.Tensor) -> None:
    tensors = {change(name): value for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors | more, folder / "model.safetensors", metadata={"format": "pt"})


def inner(name: str) -> str:
    return name.replace("encoder.layer.", "encoder._orig_mod.layer.").replace(
        "0.output", "0._fsdp_wrapped_module.output"
    )


@pytest.mark.parametrize(
    "change",
    [
        *(
            lambda name, start=start: start + name
            for start in ("_orig_mod.", "module.", "module._orig_mod.bert.", "model.", "0.auto_model.", "net.x.bert.")
        ),
        inner,
    ],
)
def test_what_compilers_and_wrappers_put_before_names_is_no_hindrance(folder: Path, change: Any) -> None:
    wanted = open_encoder(folder).state_dict()
    rename(folder, change, **{"criterion.weight": torch.ones(4)})
    assert seen(folder)["notes"] == []
    found = open_encoder(folder).state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_of_two_encoders_in_one_file_none_is_chosen(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    both = {f"{side}.{name}": value.clone() for side in ("query", "product") for name, value in tensors.items()}
    save_file(both, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SpecError, match=r"hold 2 encoders \('product\.', 'query\.'\)"):
        seen(folder)


FETCHED = ("model.safetensors", "config.json", "tokenizer.json", "spm.model")


def configured(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | values))

    return change


def other_names(folder: Path) -> None:
    rename(folder, lambda name: name.replace("attention", "attn"))


def lost_row(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "embeddings.position_embeddings.weight"
    save_file(tensors | {name: tensors[name][:-1].clone()}, folder / "model.safetensors", metadata={"format": "pt"})


def pointer_at(name: str) -> Callable[[Path], None]:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 435755784\n"

    def change(folder: Path) -> None:
        if name.endswith(".model"):
            (folder / "tokenizer.json").unlink()
        (folder / name).write_text(text)

    return change


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (other_names, r"lack 20 tensors of bert, such as 'encoder\.layer\.0\.attention.*'embeddings"),
        (configured(model_type="electra"), "lack .* tensors of electra"),
        (lost_row, r"position_embeddings\.weight' has shape \(63, 16\), and config.json asks for \(64, 16\)"),
        (configured(quantization_config={"quant_method": "gptq"}), r"quantised \('gptq'\)"),
        *((pointer_at(name), f"{name}' is a pointer of Git LFS.*git lfs pull") for name in FETCHED),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_at_registration(folder: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(folder)
    with pytest.raises(SpecError, match=words):
        registered(folder)


def test_names_of_a_publishers_own_code_are_told_as_such(folder: Path) -> None:
    other_names(folder)
    configured(auto_map={"AutoModel": "modeling.Nomic"})(folder)
    with pytest.raises(SpecError, match=r"own code.*never run"):
        seen(folder)


CAUSAL = {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": 99, **SIZES}
TWO_WAYS = Qwen3Config(**CAUSAL)
TWO_WAYS.is_causal = False


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(n_embd=16, n_layer=40, n_head=2, vocab_size=50_000),
        LlamaConfig(**CAUSAL),
        Qwen3Config(**CAUSAL),
        Gemma3TextConfig(**CAUSAL),
        MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=99),
        LlamaConfig(hidden_size=8192, intermediate_size=28_672, num_hidden_layers=80, num_attention_heads=64),
    ],
    ids=lambda config: config.model_type,
)
def test_a_decoder_is_known_by_what_it_does(config: PretrainedConfig) -> None:
    with pytest.raises(SpecError, match=f"is a decoder: {config.model_type} reads from left to right"):
        check_reading("x", config)
    check_reading("x", config, decoders=True)


@pytest.mark.parametrize(
    "config",
    [
        TWO_WAYS,
        Gemma3TextConfig(use_bidirectional_attention=True, **CAUSAL),
        ModernBertConfig(vocab_size=99, pad_token_id=0, eos_token_id=1, bos_token_id=2, **SIZES),
        XLNetConfig(vocab_size=99, d_model=16, n_layer=2, n_head=2, d_inner=32),
    ],
    ids=lambda config: config.model_type,
)
def test_what_reads_both_ways_passes_whatever_it_descends_from(config: PretrainedConfig) -> None:
    check_reading("x", config)


def test_what_reads_no_text_is_refused() -> None:
    with pytest.raises(SpecError, match="vit does not turn the tokens of a text into one state each"):
        check_reading("x", ViTConfig(image_size=8, patch_size=4, **SIZES))


@pytest.mark.parametrize("start", [open_checkpoint, pytest.param(check_checkpoint, marks=pytest.mark.slow)])
def test_a_decoder_is_refused_at_registration_and_when_it_is_opened(folder: Path, start: Callable[[str], Any]) -> None:
    """Slow at registration, because a child imports torch."""
    config = LlamaConfig(**CAUSAL | {"vocab_size": len(open_tokenizer(folder))})
    model_class(config)(config).save_pretrained(folder)
    with pytest.raises(SpecError, match="is a decoder: llama"):
        start(str(folder))
    assert open_checkpoint(str(folder), decoders=True)[0].config.model_type == "llama"


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (BertConfig(max_position_embeddings=64, **SIZES), 64),
        (RobertaConfig(max_position_embeddings=66, pad_token_id=1, **SIZES), 64),
        (DebertaV2Config(relative_attention=True, position_biased_input=False, **SIZES), None),
        (XLNetConfig(d_model=16, n_layer=1, n_head=2, d_inner=32), None),  # says -1
        (ModernBertConfig(max_position_embeddings=10**6, **SIZES), None),
    ],
    ids=lambda one: getattr(one, "model_type", ""),
)  # fmt: skip
def test_positions_are_those_of_a_table(config: PretrainedConfig, wanted: int | None) -> None:
    with torch.device("meta"):
        assert positions(model_class(config)(config)) == wanted


def add_words(folder: Path, *words: str) -> None:
    tokenizer = open_tokenizer(folder)
    tokenizer.add_tokens(list(words))
    tokenizer.save_pretrained(folder)


def test_tokens_without_an_embedding_are_told_and_get_one(folder: Path) -> None:
    rows = len(open_tokenizer(folder))
    add_words(folder, "[BRAND]", "lamp")
    (note,) = seen(folder)["notes"]
    assert "2 tokens of its tokenizer, such as '[BRAND]', 'lamp', have no row" in note
    encoder, tokenizer = open_checkpoint(str(folder))
    old = encoder.get_input_embeddings().weight.clone()
    assert widen_embeddings(encoder, tokenizer) == 2
    new = encoder.get_input_embeddings().weight
    assert torch.equal(new[:rows], old)
    assert encoder.config.vocab_size == len(new) == rows + 2
    assert (new[rows:] - old.mean(0)).abs().max() < 4 * old.std()


def test_the_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    other = wrap(train_tokenizer([f"w{a}{b} x{b}{a}" for a in range(40) for b in range(40)], 900))
    other.save_pretrained(folder)
    with pytest.raises(SpecError, match="The tokenizer is another model's"):
        seen(folder)


def test_a_number_beyond_the_table_never_reaches_a_model_that_was_saved_with_it(folder: Path) -> None:
    """As an earlier release has saved it: the words, the padding and the separator have no row."""
    rows = len(open_tokenizer(folder))
    add_words(folder, "lamp")
    tokenizer = open_tokenizer(folder)
    tokenizer.add_special_tokens({"pad_token": "[LATE]", "sep_token": "[END]"})
    first = np.zeros(1, np.int64)
    texts = PairTexts(["red lamp"], first, {"title": ["blue lamp mug"], "brand": ["lamp"]}, first)
    tokens = PairTokenizer(tokenizer, LanguageModelRecipe(fields=("title", "brand")), rows).tokens(texts)
    batch = tokens.pairs(np.zeros(2, np.int64))
    assert int(batch.tokens.max()) < rows
    red, blue, mug, unknown = tokenizer.convert_tokens_to_ids(["red", "blue", "mug", "[UNK]"])
    assert tokens.queries[0].tolist() == [red, unknown]
    assert tokens.products[0].tolist()[:3] == [blue, unknown, mug]
    open_encoder(folder)(input_ids=batch.tokens, attention_mask=batch.mask)


def test_a_tokenizer_without_padding_pads_with_another_token(folder: Path) -> None:
    content = json.loads((folder / "tokenizer_config.json").read_text())
    content.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    tokenizer = open_tokenizer(folder)
    assert tokenizer.pad_token == "[UNK]"
    assert seen(folder)["notes"] == []


@pytest.fixture(scope="module")
def sentencepiece_model() -> bytes:
    made = io.BytesIO()
    texts = ["red mug blue kettle", "red kettle blue mug", "赤い カップ", "steel wood case"] * 5
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=made, vocab_size=60, minloglevel=2, hard_vocab_limit=False
    )
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("spm.model", "DebertaV2"), ("sentencepiece.bpe.model", "XLMRoberta"), ("spiece.model", "T5")],
)
def test_a_model_of_sentencepiece_is_a_tokenizer(
    folder: Path, sentencepiece_model: bytes, name: str, kind: str
) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": f"{kind}Tokenizer"}))
    (folder / name).write_bytes(sentencepiece_model)
    rows = 200
    BertModel(BertConfig(vocab_size=rows, max_position_embeddings=64, **SIZES)).save_pretrained(folder)
    assert seen(folder)["notes"] == []
    tokenizer = open_tokenizer(folder)
    words = [token for token in tokenizer.tokenize("red kettle") if token != "▁"]
    assert "".join(words).replace("▁", " ").strip() == "red kettle"
    (folder / name).write_bytes(sentencepiece_model[:-200])
    with pytest.raises(SpecError, match=f"{name} is damaged or no model of SentencePiece"):
        inspect(str(folder))
