import json

import numpy as np
import pytest

from benchmarks import aggregator
from benchmarks.aggregation.ahead import Outcome, summarise
from benchmarks.aggregation.exercises import SAMPLE_ACCURACY, best_accuracy, like_the_sample, one_knows_all
from benchmarks.aggregation.pages import with_page
from benchmarks.aggregation.peers import BEST, FIGURES, PEERS, best_member, each_member, greedy_selection


def test_one_member_comes_near_the_best_possible_accuracy_and_none_beyond_it():
    for seed in range(5):
        world = one_knows_all(seed)
        accuracies = np.array([one.figures(world.fresh_labels)[0] for one in each_member(world)])
        assert accuracies.max() < world.facts["ceiling"] + 0.015  # three standard errors on 9,000 pairs
        assert accuracies.max() > np.sort(accuracies)[-2] + 0.03
        assert best_member(world).figures(world.fresh_labels)[0] == accuracies.max()


def test_the_best_possible_accuracy_lies_between_the_most_frequent_grade_and_one():
    cuts = np.array([0.0, 0.5, 1.0])
    assert best_accuracy(0.01, cuts) == pytest.approx(0.5, abs=0.01)
    assert best_accuracy(0.5, cuts) < best_accuracy(0.9, cuts) < 1


def test_worlds_like_the_sample_are_as_hard_and_share_no_query_between_pairs_learnt_from_and_fresh_ones():
    world = like_the_sample(0, 500, 2000)
    best = max(np.mean(np.concatenate([world.columns, world.fresh_columns]).argmax(axis=2)
                       == np.concatenate([world.labels, world.fresh_labels])[:, None], axis=0))  # fmt: skip
    assert best == pytest.approx(SAMPLE_ACCURACY, abs=0.01)
    assert (len(world.labels), len(world.fresh_labels)) == (500, 2000)
    assert 30 < len(np.unique(world.groups)) <= 50


def test_greedy_selection_answers_at_least_as_well_as_the_best_member_on_the_pairs_it_chose_by():
    world = like_the_sample(1, 500, 10)
    seen = type(world)(world.columns, world.labels, world.groups, world.columns, world.labels, world.groups, {})
    place = FIGURES.index("macro_f1")
    assert greedy_selection(seen).figures(seen.labels)[place] >= best_member(seen).figures(seen.labels)[place]


def test_the_figures_have_the_least_margin_and_count_worlds_behind_the_best_member():
    level = np.full((1 + len(PEERS), len(FIGURES)), 0.5)
    ahead, behind = level.copy(), level.copy()
    ahead[0] += 0.02
    behind[0] += 0.02
    behind[1 + list(PEERS).index(BEST), 0] = 0.6  # accuracy alone
    figures = summarise([Outcome(ahead, False), Outcome(behind, True)])
    by_name = {one.name: one for one in figures}
    to_best = {one.peer: one.peer_value for one in figures if one.name == "macro_f1, to the best method: mean"}
    assert to_best[BEST] == pytest.approx(-2.0)
    assert by_name["macro_f1, to the best method: mean"].value == 0
    assert by_name["macro_f1, our margin: worst"].value == pytest.approx(2.0)
    assert by_name["all three ahead of the best member"].value == 0.5
    assert by_name["all three ahead of the best member"].met is False
    assert by_name["one member alone"].value == 0.5


def test_the_column_of_a_page_tells_of_the_other_pairs_alone():
    rng = np.random.default_rng(3)
    columns = rng.dirichlet(np.ones(4), size=(9, 2)).astype(np.float32)
    groups = np.array([1, 1, 1, 5, 5, 8, 8, 8, 8], dtype=np.uint64)
    before = with_page(columns, groups)
    assert (before[:, :2] == columns).all()
    assert before[:, 2].sum(axis=1) == pytest.approx(1)
    changed = columns.copy()
    changed[0, 0] = [0.97, 0.01, 0.01, 0.01]
    moved = np.abs(with_page(changed, groups)[:, 2] - before[:, 2]).max(axis=1)
    # The mean of all pairs moves by a ninth of it; the pair itself by no more than that, its neighbours by much more
    assert moved[0] < moved[1:3].min() / 3
    assert moved[3:].max() < moved[1:3].min() / 2


def test_a_quick_run_of_all_comparisons_prints_one_document(capsys):
    assert aggregator.main(["--quick", "--json", "--only", "harm", "ahead", "capacity", "pages"]) == 0
    names = [one["name"] for one in json.loads(capsys.readouterr().out)["figures"]]
    assert "2,000 pairs, mixed members: processor seconds" in names
    assert "500 pairs, as hard as ESCI's sample: macro_f1 with the page: gain" in names
    assert "1,000 pairs, nothing to gain: one member alone" in names
    assert "500 pairs, as hard as ESCI's sample: all three ahead of the best member" in names
