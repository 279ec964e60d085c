"""The tokenizer that is trained on a data set's own text."""

import random

import pytest

from esci_tournament.registry.errors import CandidateError
from esci_tournament.tasks.families.language_model.tokenizer import train_tokenizer, wrap

TEXTS = [
    *("wireless mouse black", "black mouse", "wireless keyboard", "ratón inalámbrico negro", "teclado negro"),
    *("ワイヤレスマウス 黒", "黒いマウス", "ワイヤレスキーボード", "折りたたみ自転車", "自転車の鍵"),
] * 3


def test_the_order_of_the_texts_does_not_matter():
    shuffled = random.Random(3).sample(TEXTS, len(TEXTS))
    assert train_tokenizer(TEXTS, 400).to_str() == train_tokenizer(shuffled, 400).to_str()


def test_japanese_is_cut_where_the_script_changes():
    assert train_tokenizer(TEXTS, 600).encode("折りたたみ自転車").tokens[-2] == "自転車"


def test_case_accents_and_width_do_not_separate_equal_words():
    tokenizer = train_tokenizer(TEXTS, 600)
    assert tokenizer.encode("RATON inalambrico").ids == tokenizer.encode("ratón inalámbrico").ids
    assert tokenizer.encode("ﾏｳｽ").ids == tokenizer.encode("マウス").ids


def test_voicing_marks_are_kept():
    tokenizer = train_tokenizer([*TEXTS, "バス", "ハス"], 600)
    assert tokenizer.encode("バス").ids != tokenizer.encode("ハス").ids


def test_a_pair_has_segments_and_a_padding_token():
    tokenizer = wrap(train_tokenizer(TEXTS, 400))
    encoded = tokenizer("mouse", "black")
    assert encoded["token_type_ids"][0] == 0
    assert encoded["token_type_ids"][-1] == 1
    assert tokenizer.pad_token_id == 0


def test_the_vocabulary_stays_within_its_size():
    assert train_tokenizer(TEXTS, 300).get_vocab_size() <= 300


def test_no_text_is_refused():
    with pytest.raises(CandidateError, match="no text"):
        train_tokenizer(["", " "], 400)
