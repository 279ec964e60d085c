"""A frozen Hugging Face encoder: the batch does not matter, a copy is whole, and what is none is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from esci_tournament.registry.errors import SpecError
from esci_tournament.tasks.families.graph_network.encoders import load_encoder
from esci_tournament.tasks.families.graph_network.pretrained import Pretrained
from esci_tournament.tasks.families.lexicon import Lexicon

SHELF = [f"{color} {kind}" for color in ("red", "blue", "green") for kind in ("running shoe", "coffee mug", "椅子")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A real, tiny BERT with its own word pieces, made without a download."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        SHELF, trainers.WordPieceTrainer(vocab_size=80, special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=80,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=64,
        )
    ).save_pretrained(folder)
    return folder


def test_pretrained_vectors_do_not_depend_on_the_batch(checkpoint) -> None:
    texts = [*SHELF, "shoe", "a very much longer text about a red running shoe " * 20]
    one, many = (Pretrained(checkpoint, torch.device("cpu"), batch_size=size).encode(texts) for size in (1, 5))
    assert np.allclose(one, many, atol=1e-5)
    assert np.linalg.norm(one, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-4)


def test_pretrained_copy_is_self_contained_and_safe(checkpoint, tmp_path) -> None:
    encoder = Pretrained(checkpoint, torch.device("cpu"))
    encoder.save(tmp_path)
    again = load_encoder(tmp_path, Lexicon.fit(SHELF), torch.device("cpu"))
    assert np.array_equal(again.encode(SHELF), encoder.encode(SHELF))
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".txt"}


def test_a_word_without_an_embedding_is_read_as_unknown_by_a_frozen_encoder(checkpoint, tmp_path) -> None:
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = Path(shutil.copytree(checkpoint, tmp_path / "words"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    BertModel(BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=16)).save_pretrained(folder)  # fmt: skip
    tokenizer.add_tokens(["[BRAND]"])
    tokenizer.save_pretrained(folder)
    word, unknown = Pretrained(folder, torch.device("cpu")).encode(["red [BRAND] shoe", "red [UNK] shoe"])
    assert np.array_equal(word, unknown)


def test_a_checkpoint_that_is_none_is_named(tmp_path) -> None:
    with pytest.raises(SpecError, match="neither a folder here nor a model"):
        Pretrained(tmp_path, torch.device("cpu"))
