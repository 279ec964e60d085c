"""The training benchmark: both sides get the same data and settings."""

from dataclasses import replace

import pandas as pd
import pytest

from benchmarks.training import Exercise, Outcome, compare, prepare
from benchmarks.worlds import some_queries
from esci_tournament.tasks.families.checkpoint import open_tokenizer
from esci_tournament.tasks.families.language_model.pair_texts import PairTexts, PairTokenizer
from esci_tournament.tasks.families.language_model.spec import LanguageModelRecipe


@pytest.fixture(scope="module")
def exercise(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("exercise"), None, None, 200, 1, 0)


def test_queries_are_taken_whole_and_no_query_stands_on_two_sides(exercise):
    sides = [set(side["query_key"]) for side in (exercise.fit, exercise.validation, exercise.test)]
    assert sum(map(len, sides)) == len(set.union(*sides))
    pairs = pd.concat([exercise.fit, exercise.validation])
    some = some_queries(pairs, 50, seed=1)
    assert len(some) >= 50
    assert not set(some["query_key"]) & set(pairs.drop(some.index)["query_key"])


def test_the_generated_world_is_spread_in_length_as_esci_is(exercise):
    recipe = LanguageModelRecipe(max_length=256)
    texts = PairTexts.of(exercise.fit, exercise.products, recipe)
    lengths = PairTokenizer(open_tokenizer(exercise.checkpoint), recipe, 10**6).tokens(texts).lengths()
    assert (lengths == 256).mean() > 0.25
    assert (lengths < 100).mean() > 0.15


def test_runs_of_different_length_are_not_compared(exercise: Exercise):
    peer = Outcome(seconds=20.0, processor_seconds=20.0, loop_seconds=19.0, steps=25, macro_f1=0.5)
    ours = replace(peer, seconds=10.0)
    assert {each.met for each in compare(exercise, ours, ours, peer)} == {True, None}
    with pytest.raises(RuntimeError, match="24, 25 and 25"):
        compare(exercise, replace(ours, steps=24), ours, peer)
