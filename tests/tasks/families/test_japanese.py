"""Japanese BERTs: MeCab's words, and nothing that a checkpoint says of MeCab but the name of a dictionary."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast
from transformers.models.bert_japanese.tokenization_bert_japanese import BertJapaneseTokenizer

from esci_tournament.registry.errors import SpecError
from esci_tournament.tasks.families.checkpoint_tokenizer import tokenizer_in
from esci_tournament.tasks.families.japanese import words_of

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] 赤い カップ 防水 の スマート ##フォン ケース 赤 い カ ッ プ red ##s"
TEXTS = ("赤いカップ 防水のスマートフォンケース reds ＲＥＤ", "  カップ\u3000と 猫。", " ", "")


def written(folder: Path, **settings: Any) -> Path:
    told = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}
    (folder / "vocab.txt").write_text(WORDS.replace(" ", "\n") + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(told | settings))
    return folder


@pytest.mark.parametrize("pieces", ["wordpiece", "character"])
@pytest.mark.parametrize("lower", [False, True])
def test_tokens_are_those_of_transformers_also_after_saving(tmp_path: Path, pieces: str, lower: bool) -> None:
    pytest.importorskip("fugashi")
    pytest.importorskip("unidic_lite")
    written(tmp_path, subword_tokenizer_type=pieces, do_lower_case=lower, mecab_kwargs={"mecab_dic": "unidic_lite"})
    theirs, ours = BertJapaneseTokenizer.from_pretrained(tmp_path), tokenizer_in(tmp_path, "x")
    ours.save_pretrained(tmp_path / "saved")
    again = tokenizer_in(tmp_path / "saved", "x", PreTrainedTokenizerFast)
    for tokenizer in (ours, again):
        spaced = words_of(tokenizer)
        assert spaced is not None
        found = [tokenizer(spaced(text))["input_ids"] for text in TEXTS]
        assert found == [theirs(text)["input_ids"] for text in TEXTS]
    assert len(found[0]) > 8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mecab_kwargs": {"mecab_option": "-r /etc/passwd -d /tmp"}}, "gives MeCab options.*may name files"),
        ({"mecab_kwargs": {"mecab_dic": "os"}}, "asks for the dictionary 'os'; name one of unidic_lite"),
        ({"mecab_kwargs": {"mecab_dic": None}}, "asks for the dictionary None"),
        ({"word_tokenizer_type": "sudachi", "sudachi_kwargs": {}}, "finds words by 'sudachi'"),
        ({"subword_tokenizer_type": "sentencepiece"}, "pieces by 'sentencepiece'"),
    ],
)
def test_no_option_or_dictionary_of_a_checkpoints_choice_is_followed(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        tokenizer_in(written(tmp_path, **settings), "x")


def test_without_mecab_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fugashi", None)
    with pytest.raises(SpecError, match=r"install the extra: pip install 'esci-tournament\[japanese\]'$"):
        tokenizer_in(written(tmp_path), "x")
