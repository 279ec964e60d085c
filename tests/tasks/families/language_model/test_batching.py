"""Batching: tokens stored once, pairs assembled, batches of equal lengths."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.tasks.families.language_model.batching import (
    PairTokens,
    Ragged,
    encode,
    epoch_batches,
    join_fields,
    kept,
    length_batches,
    read_template,
)
from esci_tournament.tasks.families.language_model.tokenizer import train_tokenizer, wrap

TEXTS = ["red mug", "blue steel kettle with a lid", "mug", "赤いマグカップ"]


def make(max_length=64):
    tokenizer = train_tokenizer(TEXTS * 3, 400)
    template = read_template(tokenizer, 0, tokenizer.token_to_id("[SEP]"))
    queries, products = ["mug", "赤いマグカップ"], TEXTS[:2]
    tokens = PairTokens(
        Ragged.of(encode(tokenizer, queries, max_length)),
        Ragged.of(encode(tokenizer, products, max_length)),
        np.array([0, 0, 1]),
        np.array([0, 1, 1]),
        template,
        max_length,
    )
    return tokenizer, tokens, queries, products


def test_pairs_put_together_are_what_the_tokenizer_makes_of_two_texts():
    tokenizer, tokens, queries, products = make()
    batch = tokens.pairs(np.arange(3))
    reference = wrap(tokenizer)(
        [queries[row] for row in tokens.query], [products[row] for row in tokens.product], padding=True
    )
    assert batch.tokens.tolist() == reference["input_ids"]
    assert batch.mask.tolist() == reference["attention_mask"]
    assert (batch.segments * batch.mask).tolist() == reference["token_type_ids"]


def test_each_side_is_marked_and_special_tokens_are_on_neither():
    tokenizer, tokens, *_ = make()
    batch = tokens.pairs(np.array([1]))
    special = [token in (tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")) for token in batch.tokens[0]]
    assert [side == 0 for side in batch.side[0]] == special


def test_a_long_pair_is_cut_at_the_product_and_its_length_is_foretold():
    _, tokens, *_ = make(max_length=8)
    batch = tokens.pairs(np.arange(3))
    assert batch.tokens.shape[1] <= 8
    assert batch.mask.sum(1).tolist() == tokens.lengths().tolist()


def test_fields_are_cut_to_their_budgets_and_empty_ones_leave_no_separator():
    title, brand, color = [np.arange(10, 20)], [np.arange(0)], [np.array([30, 31])]
    assert join_fields([title, brand, color], [3, 9, 1], 5, 64)[0].tolist() == [10, 11, 12, 5, 30]
    assert len(join_fields([brand, brand], [9, 9], 5, 64)[0]) == 0


@given(st.lists(st.integers(1, 60), max_size=300), st.integers(1, 40), st.integers(0, 9), st.integers(0, 3))
def test_an_epoch_reads_each_pair_once_in_an_order_that_the_seed_alone_decides(lengths, size, seed, epoch):
    lengths = np.array(lengths, dtype=np.int64)
    batches = epoch_batches(lengths, size, seed, epoch)
    rows = np.concatenate([*batches, np.zeros(0, np.int64)])
    assert sorted(rows) == list(range(len(lengths)))
    assert all(len(batch) <= size for batch in batches)
    again = epoch_batches(lengths, size, seed, epoch)
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))


def test_batches_of_like_length_waste_little_padding_and_epochs_differ():
    lengths = np.random.default_rng(0).integers(5, 200, 4000)
    batches = epoch_batches(lengths, 32, 0, 0)
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded / lengths.sum() < 1.05
    assert not np.array_equal(batches[0], epoch_batches(lengths, 32, 0, 1)[0])


@given(st.lists(st.integers(1, 500), min_size=1, max_size=100), st.integers(1, 20), st.integers(1, 2000))
def test_scoring_batches_hold_what_memory_allows(lengths, size, budget):
    lengths = np.array(lengths)
    batches = length_batches(lengths, size, budget)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(
        len(batch) == 1 or (len(batch) <= size and len(batch) * lengths[batch].max() <= budget) for batch in batches
    )


def test_tokens_are_made_once_under_a_key(tmp_path):
    made = []

    def make_rows():
        made.append(1)
        return Ragged.of([[1, 2], [], [3]])

    first, second = kept(tmp_path, "k", make_rows), kept(tmp_path, "k", make_rows)
    assert len(made) == 1
    assert first.values.tolist() == second.values.tolist() == [1, 2, 3]
    assert second[0].tolist() == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["tokens-k"]
