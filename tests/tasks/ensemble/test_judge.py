from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.extensions import GAINS
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.counts import confusion, metrics_of
from esci_tournament.tasks.ensemble.judge import JudgeInput, JudgeSettings, judge
from esci_tournament.tasks.ensemble.spending import History, look_at
from esci_tournament.tasks.ensemble.verdict import Verdict

QUICK = JudgeSettings(resamples=1000, threads=1)


def answers(random, labels, right):
    said = np.where(random.random(len(labels)) < right, labels, random.integers(4, size=len(labels)))
    # As sure as it is right, so that both sides are calibrated
    sure = np.broadcast_to(right + (1 - right) / 4, len(labels)).astype(np.float32)
    probabilities = np.repeat((1 - sure)[:, None] / 3, 4, axis=1)
    probabilities[np.arange(len(labels)), said] = sure
    return probabilities


def make_case(seed=0, queries=600, ours=0.8, theirs=0.6, locales=("us", "es"), weights=None, **rest):
    """`ours` and `theirs`: how often each side knows the label, one number or one a locale."""
    random = np.random.default_rng(seed)
    query = np.repeat(np.arange(queries), 10)
    labels = random.integers(4, size=len(query)).astype(np.int8)
    place = random.choice(len(locales), p=weights, size=queries)[query]
    sides = [answers(random, labels, np.broadcast_to(right, len(locales))[place]) for right in (ours, theirs)]
    groups = random.permutation(2**20)[:queries].astype(np.uint64)[query]
    return JudgeInput.from_probabilities(labels, groups, np.array(locales)[place], *sides, **rest)


def test_a_clear_gain_is_promoted():
    verdict = judge(make_case(), QUICK)
    assert verdict.outcome == "promote"
    assert verdict.route == "gain"
    assert verdict.spends_look
    assert all(check.passed for check in verdict.checks)


def test_equal_sides_are_refused_with_the_number_that_was_missing():
    verdict = judge(make_case(ours=0.6), QUICK)
    assert verdict.outcome == "refuse"
    assert "not above the required gain" in verdict.reason


def test_a_gain_below_the_required_one_is_refused():
    assert judge(make_case(), replace(QUICK, required_gain=0.3)).outcome == "refuse"


def test_metrics_are_those_of_the_counts():
    case = make_case()
    verdict = judge(case, QUICK)
    for name, value in metrics_of(case.challenger.sum(axis=0)).items():
        row = verdict.metric(name)
        assert row.challenger == pytest.approx(value)
        assert row.challenger_low < value < row.challenger_high
        assert row.difference_low < row.difference < row.difference_high
    in_spain = case.locale == "es"
    expected = metrics_of(case.champion[in_spain].sum(axis=0))["accuracy"]
    assert verdict.metric("accuracy", "es").champion == pytest.approx(expected)
    assert verdict.metric("accuracy", "es").queries == in_spain.sum()


def test_a_promoted_verdict_holds_the_gain_given_that_it_won_and_a_refused_one_does_not():
    verdict = judge(make_case(ours=0.64, queries=600), QUICK)
    given, row = verdict.conditional, verdict.metric("macro_f1")
    assert given["measured"] == row.difference
    assert given["low"] < given["estimate"] < given["measured"] < given["high"]
    assert given["low"] < row.difference_low
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert "conditional" not in judge(make_case(ours=0.6), QUICK).to_dict()


def test_where_few_answers_differ_a_class_has_no_interval():
    case = make_case(queries=60)
    case = replace(case, challenger=case.champion.copy())
    changed = np.flatnonzero(case.champion[:, 2, 0] > 0)[:3]
    case.challenger[changed, 2, 0] -= 1
    case.challenger[changed, 2, 2] += 1
    row = judge(case, QUICK).metric("f1", "class C")
    assert row.challenger_low < row.challenger < row.challenger_high
    assert row.difference > 0
    assert (row.difference_low, row.difference_high) == (None, None)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), right=st.floats(0.55, 0.75), looks=st.integers(0, 60))
def test_neither_row_order_nor_threads_nor_a_replay_change_the_verdict(seed, right, looks):
    case = make_case(seed, queries=80, ours=right, before=History(looks))
    quick = replace(QUICK, resamples=300)
    verdict = judge(case, quick)
    order = np.random.default_rng(seed).permutation(len(case.query_key))
    names = ("query_key", "locale", "challenger", "champion", "challenger_gaps", "champion_gaps")
    names += ("challenger_loss", "champion_loss")
    shuffled = replace(case, **{name: getattr(case, name)[order] for name in names})
    assert judge(shuffled, replace(quick, threads=2)) == verdict
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_rows_of_pairs_may_come_in_any_order():
    random = np.random.default_rng(3)
    labels = random.integers(4, size=900).astype(np.int8)
    groups = np.repeat(np.arange(90), 10).astype(np.uint64)
    locales = np.where(groups % 2 == 0, "us", "jp")
    ours, theirs = answers(random, labels, 0.7), answers(random, labels, 0.6)
    order = random.permutation(900)
    first = judge(JudgeInput.from_probabilities(labels, groups, locales, ours, theirs), QUICK)
    second = judge(
        JudgeInput.from_probabilities(labels[order], groups[order], locales[order], ours[order], theirs[order]), QUICK
    )
    assert first == second


def test_each_look_asks_for_more():
    case = make_case(ours=0.63, queries=300, seed=1)
    bounds = [judge(replace(case, before=History(looks)), QUICK).check("gain").value for looks in (0, 5, 40)]
    assert bounds == sorted(bounds, reverse=True)
    assert len(set(bounds)) == 3
    late = judge(replace(case, before=History(40)), QUICK)
    assert late.look == 41
    assert any("fresh labels" in caution for caution in late.cautions)


def test_a_loss_in_one_locale_is_not_hidden_by_a_gain_elsewhere():
    verdict = judge(make_case(queries=3000, ours=(0.8, 0.5), weights=(0.7, 0.3)), QUICK)
    assert verdict.check("gain").passed
    assert not verdict.check("macro_f1 in locale es").passed
    assert verdict.outcome == "refuse"
    assert "refused although it wins" in verdict.reason


def test_a_small_locale_neither_blocks_nor_passes_unnoticed():
    case = make_case(queries=2000, ours=(0.7, 0.6), theirs=0.6, weights=(0.99, 0.01))
    verdict = judge(case, QUICK)
    guard = verdict.check("macro_f1 in locale es")
    assert verdict.outcome == "promote"
    assert guard.passed
    assert not guard.judged
    assert "too little data to judge macro_f1 in locale es" in verdict.reason
    assert guard.sentence in verdict.cautions
    assert "queries are needed" in guard.sentence


def test_a_collapse_in_a_small_locale_is_refused():
    verdict = judge(make_case(queries=2000, ours=(0.7, 0.05), theirs=0.6, weights=(0.98, 0.02)), QUICK)
    assert verdict.outcome == "refuse"
    assert "the loss is significant" in verdict.check("macro_f1 in locale es").sentence


def test_a_class_without_a_test_pair_is_not_called_judged():
    case = make_case(queries=200)
    without = {name: getattr(case, name).copy() for name in ("challenger", "champion")}
    for counts in without.values():
        counts[:, 2] = 0
    guard = judge(replace(case, **without), QUICK).check("F1 of class C (Complement)")
    assert not guard.judged
    assert "no test pair has this label" in guard.sentence


def test_no_champion_is_not_evaluable_and_spends_nothing():
    case = replace(make_case(), champion=None, champion_gaps=None)
    verdict = judge(case, QUICK)
    assert verdict.outcome == "not_evaluable"
    assert verdict.missing == ("champion",)
    assert not verdict.spends_look
    assert verdict.alpha_left == pytest.approx(1)
    assert verdict.metric("macro_f1").champion is None
    assert verdict.metric("macro_f1").challenger > 0.7
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_too_few_queries_and_a_locale_without_data_are_named():
    verdict = judge(make_case(queries=40, expected_locales=("us", "es", "jp")), QUICK)
    assert verdict.outcome == "not_evaluable"
    assert verdict.missing == ("queries", "locale jp")
    assert "too few test queries: 40, and 50 are needed" in verdict.reason
    assert "locale jp is served but has no test data" in verdict.reason


def test_an_empty_test_split_still_has_a_verdict():
    nothing = make_case(queries=40)
    names = ("query_key", "locale", "challenger", "champion", "challenger_gaps", "champion_gaps")
    names += ("challenger_loss", "champion_loss")
    empty = replace(nothing, **{name: getattr(nothing, name)[:0] for name in names})
    assert judge(empty, QUICK).missing == ("queries",)


def test_a_cheaper_challenger_that_is_not_worse_wins():
    costs = {"challenger_cost": Cost(50, 10), "champion_cost": Cost(100, 10)}
    case = make_case(queries=500, ours=0.6)
    equal = replace(case, challenger=case.champion, challenger_gaps=case.champion_gaps, **costs)
    verdict = judge(equal, QUICK)
    assert verdict.outcome == "promote"
    assert verdict.route == "cheaper"
    assert "50% less memory" in verdict.reason
    dearer = replace(equal, challenger_cost=Cost(50, 11))
    assert judge(dearer, QUICK).outcome == "refuse"


def test_a_cheaper_challenger_that_is_worse_is_refused():
    costs = {"challenger_cost": Cost(50, 10), "champion_cost": Cost(100, 10)}
    assert judge(make_case(ours=0.55, **costs), QUICK).outcome == "refuse"


def test_a_challenger_over_budget_is_refused_although_it_wins():
    verdict = judge(make_case(challenger_cost=Cost(200, 10), budget=Budget(memory_mib=150)), QUICK)
    assert verdict.outcome == "refuse"
    assert "200 MiB of 150" in verdict.check("budget").sentence


def test_lost_calibration_is_a_hurt_guardrail():
    case = make_case(ours=0.65)
    spoiled = replace(case, challenger_gaps=case.challenger_gaps + 1.5)
    verdict = judge(spoiled, QUICK)
    assert not verdict.check("calibration").passed
    assert verdict.outcome == "refuse"


def test_the_digest_follows_from_everything_but_threads():
    case = make_case(queries=60)
    digest = judge(case, QUICK).digest
    assert judge(case, replace(QUICK, threads=2)).digest == digest
    assert judge(replace(case, before=History(1)), QUICK).digest != digest
    assert judge(case, replace(QUICK, seed=1)).digest != digest


def surer(case, by=0.3):
    """The case with a challenger that answers as the champion does, and is surer where that is right."""
    return replace(
        case, challenger=case.champion, challenger_gaps=case.champion_gaps, challenger_loss=case.champion_loss - by
    )


def test_a_gain_in_probabilities_alone_promotes_where_labels_lose_nothing():
    case = make_case(ours=0.6)
    verdict = judge(surer(case), QUICK)
    assert (verdict.outcome, verdict.route) == ("promote", "gain in log_loss")
    assert "log loss falls by 0.0300 nats" in verdict.check("gain in log_loss").sentence
    assert verdict.conditional["metric"] == "log_loss"
    assert not verdict.check("gain").passed
    only_labels = judge(surer(case), replace(QUICK, gain_metrics=("primary",)))
    assert only_labels.outcome == "refuse"
    assert judge(surer(case), replace(QUICK, required_gain=0.001)).outcome == "refuse"  # labels gain nothing


def test_a_challenger_that_answers_as_the_champion_spends_no_look():
    case = surer(make_case(ours=0.6, before=History(3)), by=0)
    verdict = judge(case, QUICK)
    assert (verdict.outcome, verdict.spends_look) == ("refuse", False)
    assert verdict.reason == "refused: it answers as the champion does"
    assert verdict.alpha_left == look_at(History(3), 0.05).before
    cheaper = replace(case, challenger_cost=Cost(50, 5), champion_cost=Cost(100, 5))
    assert judge(cheaper, QUICK).outcome == "promote"


def test_a_gain_in_probabilities_does_not_pay_for_a_lower_primary_metric():
    case = make_case(ours=0.59, theirs=0.6, queries=3000, seed=3)
    better = replace(case, challenger_loss=case.champion_loss - 0.3)
    verdict = judge(better, QUICK)
    assert verdict.metric("macro_f1").difference < 0
    assert not verdict.check("gain in log_loss").passed
    assert verdict.outcome == "refuse"


@pytest.mark.parametrize("names", [("accuracy",), ("log_loss",), ("log_loss", "primary", "weighted_f1")])
def test_settings_say_which_metric_must_gain_and_all_others_are_guarded(names):
    verdict = judge(make_case(), replace(QUICK, gain_metrics=names))
    assert verdict.outcome == "promote"
    assert {"gain" if name == "primary" else f"gain in {name}" for name in names} <= {
        one.name for one in verdict.checks
    }
    assert {"macro_f1", "accuracy", "weighted_f1"} <= {one.name for one in verdict.checks}


def test_metrics_that_may_win_share_the_level():
    case = make_case(ours=0.63, queries=300, seed=1)
    alone, shared = (judge(case, replace(QUICK, gain_metrics=names)) for names in (("primary",), GAINS))
    assert shared.check("gain").value < alone.check("gain").value
    assert shared.level == alone.level


def test_where_the_log_loss_is_not_known_labels_have_the_whole_level_and_the_digest_of_before():
    case = replace(make_case(), challenger_loss=None, champion_loss=None)
    either, labels = (judge(case, replace(QUICK, gain_metrics=names)) for names in (GAINS, ("primary",)))
    assert either == labels


def test_what_cheaper_ensembles_gave_up_is_not_given_up_again():
    costs = {"challenger_cost": Cost(50, 5), "champion_cost": Cost(100, 5)}
    case = make_case(ours=0.6, theirs=0.6, queries=3000, seed=5, **costs)
    equal = replace(case, challenger=case.champion)
    generous = replace(QUICK, not_worse_margin=0.02)
    first = judge(equal, generous)
    assert (first.outcome, first.route, first.check("cheaper").threshold) == ("promote", "cheaper", -0.02)
    later = judge(replace(equal, given_up=0.015), generous).check("cheaper")
    assert later.threshold == pytest.approx(-0.005)
    assert "0.0150 was given up" in later.sentence
    none_left = judge(replace(equal, given_up=0.021), generous)
    assert (none_left.outcome, none_left.check("cheaper").threshold) == ("refuse", 0)


def test_where_nothing_of_alpha_is_left_nothing_wins():
    verdict = judge(replace(make_case(), before=History(3, 3, spent=0.2)), QUICK)
    assert (verdict.outcome, verdict.level, verdict.alpha_left) == ("refuse", 0, 0)
    assert verdict.check("gain").value is None


def test_different_test_labels_are_refused():
    case = make_case(queries=60)
    other = make_case(seed=1, queries=60)
    with pytest.raises(UsageError, match="same test pairs"):
        judge(replace(case, champion=other.champion), QUICK)


def test_settings_in_force_are_read(monkeypatch):
    settings_in_force = Settings(primary_metric="accuracy", alpha=0.01, guardrail_margin=0.05)
    read = JudgeSettings.of(settings_in_force)
    assert (read.primary_metric, read.alpha, read.guardrail_margin) == ("accuracy", 0.01, 0.05)
    assert judge(make_case(), replace(read, resamples=300)).check("gain").sentence.startswith("accuracy changes")


def test_counts_and_probabilities_agree():
    case = make_case(queries=50)
    assert (case.challenger.sum(axis=0) == confusion(*_pairs(case.challenger))).all()


def _pairs(counts):
    cells = np.repeat(np.arange(16), counts.sum(axis=0).ravel())
    return cells // 4, cells % 4


def beside_the_best_model(alone, seed=0, **more):
    """A case with a model that knows the label with probability `alone`."""
    case = make_case(seed, **more)
    random = np.random.default_rng(seed)
    counts = np.zeros_like(case.challenger)
    for query, truth in enumerate(case.challenger.sum(axis=2)):
        for label, pairs in enumerate(truth):
            right = random.binomial(pairs, alone)
            counts[query, label, label] += right
            counts[query, label, (label + 1) % 4] += pairs - right
    return replace(case, single=counts, single_name="best/1")


def test_a_challenger_that_is_worse_than_its_best_model_is_refused_and_told_so():
    verdict = judge(beside_the_best_model(0.9), QUICK)
    check = verdict.check("the best model alone")
    assert verdict.outcome == "refuse"
    assert not check.passed
    assert "against best/1 alone" in verdict.reason
    assert "serve that model alone instead" in verdict.reason
    fine = judge(beside_the_best_model(0.6), QUICK)
    assert fine.outcome == "promote"
    assert "ahead on accuracy, macro_f1, weighted_f1" in fine.check("the best model alone").sentence


def test_first_champions_are_compared_with_the_best_model_too():
    case = replace(beside_the_best_model(0.9), champion=None, champion_gaps=None)
    verdict = judge(case, QUICK)
    assert (verdict.outcome, verdict.missing) == ("not_evaluable", ("champion",))
    assert not verdict.check("the best model alone").passed
    assert any("best/1 alone" in caution for caution in verdict.cautions)


def test_a_challenger_that_answers_as_its_best_model_passes_and_says_so():
    case = make_case()
    verdict = judge(replace(case, single=case.challenger, single_name="best/1"), QUICK)
    assert verdict.outcome == "promote"
    assert verdict.check("the best model alone").sentence == "it answers as best/1 alone, the best model"


def test_an_equal_model_alone_seldom_refuses():
    refused = [
        not judge(beside_the_best_model(0.8, seed), QUICK).check("the best model alone").passed for seed in range(30)
    ]
    assert sum(refused) <= 3


def test_the_best_model_is_part_of_the_digest_and_without_one_nothing_changes():
    case = make_case()
    alone = replace(case, single=case.challenger, single_name="best/1")
    assert judge(alone, QUICK).digest != judge(case, QUICK).digest
    before, after = judge(case, QUICK), judge(alone, QUICK)
    assert before.metrics == after.metrics
    assert before.check("gain") == after.check("gain")


def test_weights_count_as_so_many_copies_of_a_query():
    case = make_case(queries=200, ours=0.65)
    random = np.random.default_rng(0)
    heavy = random.random(200) < 0.5
    again = np.concatenate([np.arange(200), np.flatnonzero(heavy)])
    names = ("locale", "challenger", "champion", "challenger_gaps", "champion_gaps", "challenger_loss", "champion_loss")
    doubled = replace(
        case, query_key=np.arange(len(again)).astype(np.uint64), **{name: getattr(case, name)[again] for name in names}
    )
    weighted = replace(case, weights=np.where(heavy, 2.0, 1.0))
    ours, copies, plain = (judge(one, QUICK) for one in (weighted, doubled, case))
    for row, same in zip(ours.metrics, copies.metrics, strict=True):
        assert (row.challenger, row.difference) == pytest.approx((same.challenger, same.difference))
    assert [row.pairs for row in ours.metrics] == [row.pairs for row in plain.metrics]
    # Copies pretend to more queries than there are
    assert ours.check("gain").value < copies.check("gain").value
    assert ours.digest != plain.digest


def test_equal_weights_change_nothing_but_the_digest():
    case = make_case(queries=200, ours=0.65)
    plain, weighted = judge(case, QUICK), judge(replace(case, weights=np.ones(200)), QUICK)
    assert replace(weighted, digest="") == replace(plain, digest="")
    with pytest.raises(UsageError, match="above 0"):
        judge(replace(case, weights=np.zeros(200)), QUICK)
