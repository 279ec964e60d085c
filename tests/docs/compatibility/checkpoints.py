"""Checkpoints that people bring: for each row of the table, the thing itself, made small with random weights.

A row is looked at as registration does, in this process; what passes is opened, reads two pairs and learns from them.
"""

from __future__ import annotations

import copy
import io
import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceTrainer
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from esci_tournament.registry.errors import SpecError
from esci_tournament.tasks.families import checkpoint, checkpoint_files
from esci_tournament.tasks.families.checkpoint_files import vetted
from esci_tournament.tasks.families.checkpoint_model import (
    embeddings,
    left_to_right,
    look,
    looks_ahead,
    model_class,
    widen_embeddings,
)
from esci_tournament.tasks.families.language_model.pair_network import TextPairNetwork
from esci_tournament.tasks.families.language_model.pair_texts import PairTexts, PairTokenizer
from esci_tournament.tasks.families.language_model.spec import LanguageModelRecipe
from esci_tournament.tasks.families.language_model.tokenizer import train_tokenizer, wrap

TEXTS = ("red mug", "blue kettle", "red kettle", "blue mug", "steel case", "赤い カップ")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
CAUSAL = {"num_key_value_heads": 2, "head_dim": 8, **SIZES}
_TRIED: set[bytes] = set()  # tokenizers that do not take forever
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 435755784\n"


@lru_cache(1)
def _tokenizer() -> PreTrainedTokenizerFast:
    return wrap(train_tokenizer(TEXTS, 300))


@lru_cache(1)
def _sentencepiece() -> bytes:
    made = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 5), model_writer=made, vocab_size=60, minloglevel=2, hard_vocab_limit=False
    )
    return made.getvalue()


def _outcome(folder: Path) -> str:
    """Register a checkpoint, and when that is possible, open it and let it learn from two pairs."""
    try:
        if (place := checkpoint._folder(str(folder))) is None:
            raise SpecError(checkpoint._nowhere(str(folder)))
        _inspect(place)
        with vetted(place, weights=False) as configs:
            look(str(place), str(configs))
        encoder, tokenizer = checkpoint.open_encoder(place), checkpoint.open_tokenizer(place)
        if not looks_ahead(encoder):
            raise SpecError(left_to_right(str(place), encoder.config))
    except SpecError as error:
        return f"refused: {_first_words(str(error), folder)}"
    widen_embeddings(encoder, tokenizer)
    first = np.zeros(2, np.int64)
    texts = PairTexts(["red lamp"], first, {"title": ["blue mug", "steel case"]}, np.arange(2))
    recipe = LanguageModelRecipe(fields=("title",), max_length=16)
    pairs = PairTokenizer(tokenizer, recipe, len(embeddings(encoder).weight)).tokens(texts).pairs(np.arange(2))
    logits = TextPairNetwork(encoder, "cross_encoder", pretrained=True)(pairs)
    logits.logsumexp(1).sum().backward()
    gradient = embeddings(encoder).weight.grad
    assert logits.shape == (2, 4)
    assert bool(torch.isfinite(logits).all())
    assert gradient is not None
    assert float(gradient.abs().sum()) > 0
    return "works"


def _inspect(folder: Path) -> None:
    """Look at the files; a tokenizer that has been tried before is not tried again, which takes most of the time."""
    once, tried = checkpoint_files._try_tokenizer, _TRIED

    def try_new(name: str, file: Path, patterns: list[str]) -> None:
        if (content := file.read_bytes()) not in tried:
            once(name, file, patterns)
            tried.add(content)

    with patch.object(checkpoint_files, "_try_tokenizer", try_new):
        checkpoint_files.inspect(str(folder))


def _first_words(message: str, folder: Path) -> str:
    said = message.removeprefix("checkpoint ").replace(str(folder), "").removeprefix("''").lstrip(": ")
    return re.split(r"[;:]| \(|, (?!no )|\. ", said)[0]


def _save(folder: Path, config: PretrainedConfig, **options: Any) -> Path:
    """Write a model with random weights, and the tokenizer, as its own code does."""
    tokenizer = _tokenizer()
    config = copy.deepcopy(config)
    if hasattr(config, "vocab_size"):
        config.vocab_size = len(tokenizer)
    torch.manual_seed(0)
    model_class(config)(config).save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def _bert(folder: Path, **options: Any) -> Path:
    return _save(folder, transformers.BertConfig(max_position_embeddings=64, **SIZES), **options)


def _of(config: Callable[[], PretrainedConfig]) -> Callable[[Path], str]:
    return lambda folder: _outcome(_save(folder, config()))


def _with(change: Callable[[Path], Any]) -> Callable[[Path], str]:
    """Let a change spoil, or not, a small BERT."""

    def row(folder: Path) -> str:
        change(_bert(folder))
        return _outcome(folder)

    return row


def _configure(folder: Path, name: str = "config.json", **values: Any) -> None:
    file = folder / name
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | values))


def _rename(change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = {change(name): value for name, value in load_file(folder / "model.safetensors").items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def _only(*names: str) -> Callable[[Path], None]:
    """Leave other files in place of the weights."""

    def apply(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        for name in names:
            (folder / name).write_bytes(b"x")

    return apply


def _sentence_transformers(folder: Path) -> None:
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))


def _below(name: str) -> Callable[[Path], str]:
    """Move everything into a folder below the one that is named."""

    def row(folder: Path) -> str:
        _bert(folder / name)
        if name == "0_Transformer":
            _sentence_transformers(folder)
        return _outcome(folder)

    return row


def _trainer_output(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "copy")
    (folder.parent / "copy").rename(folder / "checkpoint-500")
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt"):
        (folder / "checkpoint-500" / name).write_bytes(b"x")
    (folder / "training_args.bin").write_bytes(b"x")


def _spm(name: str, kind: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
        (folder / name).write_bytes(_sentencepiece())

    return apply


def _vocabulary(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    words = sorted(_tokenizer().get_vocab().items(), key=lambda one: one[1])
    (folder / "vocab.txt").write_text("\n".join(word for word, _ in words), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))


def _japanese(folder: Path) -> str:
    _vocabulary(_bert(folder))
    _configure(
        folder, "tokenizer_config.json", tokenizer_class="BertJapaneseTokenizer", word_tokenizer_type="mecab",
        mecab_kwargs={"mecab_dic": "unidic_lite"},
    )  # fmt: skip
    found = _outcome(folder)
    with suppress(ImportError):
        import fugashi  # noqa: F401
        import unidic_lite  # noqa: F401

        assert found == "works"
    assert found in ("works", "refused: its tokenizer needs MeCab")
    return "works with the extra `japanese`"


def _canine(folder: Path) -> str:
    _save(folder, transformers.CanineConfig(num_hash_buckets=64, downsampling_rate=2, **SIZES))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CanineTokenizer"}))
    return _outcome(folder)


def _without_padding(folder: Path) -> None:
    content = json.loads((folder / "tokenizer_config.json").read_text())
    content.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(content))


def _added_words(folder: Path) -> None:
    tokenizer = copy.deepcopy(_tokenizer())
    tokenizer.add_tokens(["[BRAND]", "lamp"])
    tokenizer.save_pretrained(folder)


def _other_tokenizer(folder: Path) -> None:
    wrap(train_tokenizer([f"w{a}{b} x{b}{a}" for a in range(30) for b in range(30)], 900)).save_pretrained(folder)


def _publishers_code(folder: Path) -> None:
    _rename(lambda name: name.replace("attention.self", "attn"))(folder)
    _configure(folder, auto_map={"AutoModel": "modeling.Theirs"})


def _lost_shard(folder: Path) -> str:
    _bert(folder, max_shard_size="4KB")
    max(folder.glob("model-*.safetensors")).unlink()
    return _outcome(folder)


def _half(folder: Path) -> None:
    tensors = {name: value.bfloat16() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _configure(folder, dtype="bfloat16")


def _no_limit(folder: Path) -> None:
    _configure(folder, "tokenizer_config.json", model_max_length=10**30)


def _rotary() -> PretrainedConfig:
    return transformers.ModernBertConfig(
        pad_token_id=0, eos_token_id=3, bos_token_id=2, cls_token_id=2, sep_token_id=3, **SIZES
    )


def _t5(kind: str) -> PretrainedConfig:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    return getattr(transformers, kind)(pad_token_id=0, **sizes)


def _whole_t5(folder: Path) -> str:
    _save(folder, _t5("T5Config"))
    config = _t5("T5Config")
    config.vocab_size = len(_tokenizer())
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    return _outcome(folder)


ROWS: dict[str, Callable[[Path], str]] = {
    "BERT": _of(lambda: transformers.BertConfig(**SIZES)),
    "DistilBERT": _of(lambda: transformers.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32)),
    "RoBERTa": _of(lambda: transformers.RobertaConfig(**SIZES)),
    "XLM-RoBERTa (multilingual E5, BGE-M3)": _of(lambda: transformers.XLMRobertaConfig(**SIZES)),
    "DeBERTa-v3, mDeBERTa-v3": _of(
        lambda: transformers.DebertaV2Config(
            relative_attention=True, pos_att_type=["p2c"], position_biased_input=False, type_vocab_size=0, **SIZES
        )
    ),
    "ModernBERT": _of(_rotary),
    "ELECTRA": _of(lambda: transformers.ElectraConfig(embedding_size=8, **SIZES)),
    "ALBERT": _of(lambda: transformers.AlbertConfig(embedding_size=8, **SIZES)),
    "MPNet": _of(lambda: transformers.MPNetConfig(**SIZES)),
    "RemBERT": _of(lambda: transformers.RemBertConfig(input_embedding_size=8, output_embedding_size=8, **SIZES)),
    "ConvBERT": _of(lambda: transformers.ConvBertConfig(embedding_size=16, **SIZES)),
    "Longformer": _of(lambda: transformers.LongformerConfig(attention_window=[8, 8], **SIZES)),
    "BigBird": _of(lambda: transformers.BigBirdConfig(**SIZES)),
    "Funnel Transformer": _of(
        lambda: transformers.FunnelConfig(d_model=16, n_head=2, d_head=8, d_inner=32, block_sizes=[1, 1])
    ),
    "XLNet": _of(lambda: transformers.XLNetConfig(d_model=16, n_layer=2, n_head=2, d_inner=32)),
    "the encoder of T5": _of(lambda: _t5("T5Config")),
    "the encoder of mT5": _of(lambda: _t5("MT5Config")),
    "the encoder of UMT5": _of(lambda: _t5("UMT5Config")),
    "a decoder that was made to read both ways (EmbeddingGemma)": _of(
        lambda: transformers.Gemma3TextConfig(use_bidirectional_attention=True, pad_token_id=0, **CAUSAL)
    ),
    "Qwen3-Embedding, Qwen3-Reranker": _of(lambda: transformers.Qwen3Config(**CAUSAL)),
    "Llama, Mistral": _of(lambda: transformers.LlamaConfig(**CAUSAL)),
    "GPT-2": _of(lambda: transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2)),
    "T5 with encoder and decoder": _whole_t5,
    "BART": _of(
        lambda: transformers.BartConfig(
            d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=32, decoder_ffn_dim=32,
        )
    ),
    "CANINE": _canine,
    "a model of images (ViT)": _of(lambda: transformers.ViTConfig(image_size=8, patch_size=4, **SIZES)),
    "a model with its publisher's own code (`auto_map`)": _with(_publishers_code),
    "weights in several files": lambda folder: _outcome(_bert(folder, max_shard_size="4KB")),
    "weights in several files, one of them lost": _lost_shard,
    "weights in bfloat16 or float16": _with(_half),
    "weights saved from `torch.compile` (`_orig_mod.`)": _with(_rename(lambda name: f"_orig_mod.{name}")),
    "weights saved from DistributedDataParallel (`module.`)": _with(_rename(lambda name: f"module.bert.{name}")),
    "weights of a Lightning module or another wrapper (`model.`)": _with(_rename(lambda name: f"model.{name}")),
    "a folder of sentence-transformers": _with(_sentence_transformers),
    "an old folder of sentence-transformers, with `0_Transformer`": _below("0_Transformer"),
    "the output folder of a Trainer, with the model in it": _with(_trainer_output),
    "a folder with no model but in `checkpoint-500`": _below("checkpoint-500"),
    "`vocab.txt` alone": _with(_vocabulary),
    "`spm.model` alone (DeBERTa-v3)": _with(_spm("spm.model", "DebertaV2Tokenizer")),
    "`sentencepiece.bpe.model` alone (XLM-R)": _with(_spm("sentencepiece.bpe.model", "XLMRobertaTokenizer")),
    "a Japanese BERT, with MeCab": _japanese,
    "a tokenizer without a token for padding": _with(_without_padding),
    "words added to the tokenizer, without `resize_token_embeddings`": _with(_added_words),
    "the tokenizer of another model": _with(_other_tokenizer),
    "a tokenizer whose `model_max_length` is 1e30": _with(_no_limit),
    "pointers of Git LFS in place of files": _with(lambda folder: (folder / "model.safetensors").write_text(POINTER)),
    "`pytorch_model.bin` alone": _with(_only("pytorch_model.bin")),
    "weights of TensorFlow or Flax alone": _with(_only("tf_model.h5", "flax_model.msgpack")),
    "GGUF alone": _with(_only("model-q4_k_m.gguf")),
    "ONNX alone": _with(_only("model.onnx")),
    "quantised weights (bitsandbytes, GPTQ, AWQ)": _with(
        lambda folder: _configure(folder, quantization_config={"quant_method": "awq"})
    ),
    "a LoRA adapter": _with(_only("adapter_config.json", "adapter_model.safetensors")),
}  # fmt: skip

BOTH_WAYS = "A query's states must know of the product; scores of such a model compete as family `scores` or `pyfunc`."
NOTES: dict[str, str] = {
    "BERT": "Also models that descend from it: BGE, GTE, E5, MiniLM.",
    "DistilBERT": "",
    "RoBERTa": "`max_length` is 512 at most: two of its 514 positions are not for tokens.",
    "XLM-RoBERTa (multilingual E5, BGE-M3)": "The prefixes `query:` and `passage:` are not added.",
    "DeBERTa-v3, mDeBERTa-v3": "Positions are relative: `max_length` has no limit of the model's.",
    "ModernBERT": "Positions are computed: `max_length` has no limit of the model's.",
    "ELECTRA": "The discriminator.",
    "ALBERT": "`frozen_layers` is 0 or 1, because all layers share their weights.",
    "MPNet": "As all-mpnet-base-v2.",
    "RemBERT": "",
    "ConvBERT": "",
    "Longformer": "Attention is local; no token has global attention.",
    "BigBird": "Short pairs are read with full attention.",
    "Funnel Transformer": "With its decoder, which gives one state for each token.",
    "XLNet": "Its classification token stands last; the head reads the first token and the means of both sides.",
    "the encoder of T5": "As `T5EncoderModel` saves it.",
    "the encoder of mT5": "As `MT5EncoderModel` saves it.",
    "the encoder of UMT5": "As `UMT5EncoderModel` saves it.",
    "a decoder that was made to read both ways (EmbeddingGemma)": "What a model does is tried, not what it is called.",
    "Qwen3-Embedding, Qwen3-Reranker": BOTH_WAYS,
    "Llama, Mistral": BOTH_WAYS,
    "GPT-2": BOTH_WAYS,
    "T5 with encoder and decoder": "The message says how to save the encoder alone.",
    "BART": "It has no encoder that transformers opens alone.",
    "CANINE": "It reads characters by code, without a vocabulary.",
    "a model of images (ViT)": "",
    "a model with its publisher's own code (`auto_map`)": "Such code is never run; the message says so.",
    "weights in several files": "With model.safetensors.index.json.",
    "weights in several files, one of them lost": "The message names the files.",
    "weights in bfloat16 or float16": "They are trained in float32, or as the recipe's `precision` says.",
    "weights saved from `torch.compile` (`_orig_mod.`)": "Also in the middle of names.",
    "weights saved from DistributedDataParallel (`module.`)": "Also FSDP and DeepSpeed.",
    "weights of a Lightning module or another wrapper (`model.`)": "Any prefix, if one encoder alone stands under it.",
    "a folder of sentence-transformers": "The encoder is read; pooling and dense layers are not.",
    "an old folder of sentence-transformers, with `0_Transformer`": "Name that folder.",
    "the output folder of a Trainer, with the model in it": "Optimizer and arguments, which are pickles, are not read.",
    "a folder with no model but in `checkpoint-500`": "Name that folder.",
    "`vocab.txt` alone": "",
    "`spm.model` alone (DeBERTa-v3)": "sentencepiece is installed with the package.",
    "`sentencepiece.bpe.model` alone (XLM-R)": "Also `spiece.model`, `sentencepiece.model` and `tokenizer.model`.",
    "a Japanese BERT, with MeCab": "Of its MeCab settings the name of the dictionary counts; options are refused.",
    "a tokenizer without a token for padding": "Another token pads; padding is masked.",
    "words added to the tokenizer, without `resize_token_embeddings`": "The words get new rows, and a warning says so.",
    "the tokenizer of another model": "When more than a tenth of the rows is lacking and they are no added words.",
    "a tokenizer whose `model_max_length` is 1e30": "The recipe's `max_length` counts.",
    "pointers of Git LFS in place of files": "`git lfs pull` fetches the files.",
    "`pytorch_model.bin` alone": "A pickle is never opened; the message says how to convert it.",
    "weights of TensorFlow or Flax alone": "",
    "GGUF alone": "Name the original model.",
    "ONNX alone": "Name the original model.",
    "quantised weights (bitsandbytes, GPTQ, AWQ)": "Name the original model, or dequantise it.",
    "a LoRA adapter": "Merge it into its model; the message says how.",
}
