"""Products that recur over queries: what they add to the variance, and that nothing else changes a verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.bootstrap import effective_queries
from esci_tournament.tasks.ensemble.case import Answers, JudgeInput, JudgeSettings
from esci_tournament.tasks.ensemble.judge import judge
from esci_tournament.tasks.ensemble.recurrence import Recurrence, RecurringPairs
from esci_tournament.tasks.ensemble.spending import History
from esci_tournament.tasks.ensemble.verdict import Verdict

QUICK = JudgeSettings(resamples=1000, threads=1)
STORED = Path(__file__).with_name("verdict_before_products.json")


def sides(labels, *said):
    """Answers that are as sure of each label as they are right."""
    return [Answers(np.where(np.arange(4) == one[:, None], 0.7, 0.1).astype(np.float32), one) for one in said]


def make_world(seed, queries=100, products=40, by_product=0.5, **rest):
    """Two equal models whose errors a product shares, and what it takes to make a case of them."""
    random = np.random.default_rng(seed)
    groups = np.repeat(random.permutation(10**6)[:queries].astype(np.uint64), 8)
    product = random.integers(products, size=len(groups))
    labels = random.integers(4, size=len(groups)).astype(np.int8)
    said = []
    for _ in range(3):
        lot = np.where(
            random.random(len(groups)) < by_product, random.random(products)[product], random.random(len(groups))
        )
        said.append(np.where(lot < 0.7, labels, (labels + 1) % 4))
    locales = np.where(groups % 2 == 0, "us", "es")
    return {"labels": labels, "groups": groups, "locales": locales, "products": product, "said": said, **rest}


def case_of(world, order=slice(None), with_products=True, **rest):
    labels, groups, locales, products = (world[name][order] for name in ("labels", "groups", "locales", "products"))
    ours, theirs, single = (one[order] for one in world["said"])
    return JudgeInput.from_answers(
        labels, groups, locales, *sides(labels, ours, theirs), single, products if with_products else None,
        single_name="one/1", **rest,
    )  # fmt: skip


def numbers(verdict):
    return verdict.checks, verdict.metrics, verdict.outcome, verdict.reason


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), queries=st.integers(2, 12), products=st.integers(1, 30), locales=st.integers(1, 3))
def test_what_is_added_makes_the_variance_of_cameron_gelbach_and_miller(seed, queries, products, locales):
    """By definition: the sum of d_a * d_b over all pairs of pairs that have the query or the product in common."""
    random = np.random.default_rng(seed)
    query = np.repeat(np.arange(queries), random.integers(1, 6, size=queries))
    strata = np.sort(random.integers(locales, size=queries))
    strata = np.unique(strata, return_inverse=True)[1]
    product = random.integers(products, size=len(query)) * locales + strata[query]  # it belongs to one locale
    moved = random.normal(size=len(query))
    in_stratum = np.bincount(strata[query])[strata[query]]
    d = moved - (np.bincount(strata[query], weights=moved)[strata[query]] / in_stratum)

    pairs = RecurringPairs.among(product, query.astype(np.uint64), label=np.zeros(len(query)), challenger=query * 0,
                                 challenger_gap=moved)  # fmt: skip
    recurrence = Recurrence(pairs, np.arange(queries, dtype=np.uint64), strata, np.bincount(query))
    added, effective = recurrence.added(np.bincount(query, weights=moved), pairs.challenger_gap)

    same_product, same_query = product[:, None] == product, query[:, None] == query
    left = 1 - np.minimum(np.bincount(product)[product] / in_stratum, 0.999)
    recurs = (same_product & ~same_query).any(axis=1)
    spread = np.where(recurs, d / left, d)
    expected = (np.outer(spread, spread) * same_product - np.outer(d, d) * (same_product & same_query)).sum()
    assert added == pytest.approx(max(expected, 0.0), abs=1e-9)
    assert 0 < effective <= effective_queries(np.bincount(query, weights=moved)) + 1e-9
    if expected > 0:  # without the correction for its own weight it is V_query + V_product - V_pair
        recurrence._weight[:] = 1.0
        plain = (np.outer(d, d) * (same_product & ~same_query)).sum()
        found = recurrence.added(np.bincount(query, weights=moved), pairs.challenger_gap)[0]
        assert found == pytest.approx(max(plain, 0.0), abs=1e-9)


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_neither_the_order_of_pairs_nor_the_numbers_of_products_change_a_verdict(seed):
    world = make_world(seed)
    verdict = judge(case_of(world), QUICK)
    random = np.random.default_rng(seed)
    assert judge(case_of(world, random.permutation(len(world["labels"]))), QUICK) == verdict
    renamed = random.permutation(10**6)[world["products"]]
    assert numbers(judge(case_of(world | {"products": renamed}), QUICK)) == numbers(verdict)


def test_other_names_of_queries_add_the_same():
    world = make_world(1)
    rows = np.unique(world["groups"], return_inverse=True)[1]
    renamed = rows.max() - rows
    found = []
    for groups in (world["groups"], renamed.astype(np.uint64)):
        pairs = RecurringPairs.among(world["products"], groups, label=world["labels"], challenger=world["said"][0],
                                     challenger_gap=(world["said"][0] == world["labels"]) - 0.7)  # fmt: skip
        keys, row = np.unique(groups, return_inverse=True)
        by_query = np.bincount(row, weights=(world["said"][0] == world["labels"]) - 0.7)
        recurrence = Recurrence(pairs, keys, np.zeros(len(keys), np.int64), np.bincount(row))
        found.append(recurrence.added(by_query, pairs.challenger_gap))
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("products", [lambda pairs: np.arange(pairs), lambda pairs: np.full(pairs, -1)])
def test_products_that_never_recur_or_are_not_known_change_no_bound(products):
    world = make_world(2)
    blind = judge(case_of(world, with_products=False), QUICK)
    known = judge(case_of(world | {"products": products(len(world["labels"]))}), QUICK)
    assert numbers(known) == numbers(blind)
    assert known.digest != blind.digest  # it says that it was made with products in view


def test_equal_weights_of_queries_add_the_same():
    case = case_of(make_world(3))
    weighted = replace(case, weights=np.ones(len(case.query_key)))
    assert numbers(judge(weighted, QUICK)) == numbers(judge(case, QUICK))


def test_a_case_without_products_has_the_digest_and_the_verdict_of_the_releases_before():
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    verdict = judge(stored_case(), QUICK)
    assert verdict.digest == stored["digest"]
    assert _rounded(_without_intervals(verdict.to_dict())) == _rounded(_without_intervals(stored))
    assert Verdict.from_json(json.dumps(stored)).conditional is None  # it is read still


def test_a_gain_that_is_the_luck_of_a_few_products_is_refused():
    """A challenger that equals the champion, on 60 products that recur: over the queries alone its luck looks sure."""
    world = next(one for seed in range(100) if _promotes(one := make_world(seed, queries=300, products=60), False))
    verdict = judge(case_of(world), QUICK)
    assert verdict.outcome == "refuse"
    assert not verdict.check("gain").passed
    blind = judge(case_of(world, with_products=False), QUICK)
    for one, other in zip(verdict.metrics, blind.metrics, strict=True):
        assert one.difference == other.difference
        assert one.difference_low <= other.difference_low
        assert one.challenger_high >= other.challenger_high
    for check, other in zip(verdict.checks, blind.checks, strict=True):
        assert check.value <= other.value or check.name == "the best model alone"
    assert verdict.check("calibration").value < blind.check("calibration").value


def test_a_gain_that_all_products_share_is_promoted_still():
    world = make_world(3, queries=300, products=60)
    ours = np.where(np.random.default_rng(0).random(len(world["labels"])) < 0.3, world["labels"], world["said"][1])
    world["said"] = [ours, *world["said"][1:]]
    assert judge(case_of(world), QUICK).check("gain").passed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda pairs: replace(pairs, query_key=pairs.query_key + np.uint64(2**40)), "query that is not judged"),
        (lambda pairs: replace(pairs, challenger=(pairs.challenger + 1) % 4), "challenger's answers by product"),
        (lambda pairs: replace(pairs, champion=None), "champion are known by query or by product only"),
        (lambda pairs: replace(pairs, product=pairs.product[:-1]), "one entry everywhere"),
    ],
)
def test_pairs_that_are_not_those_of_the_counts_are_refused(change, words):
    case = case_of(make_world(0))
    with pytest.raises(UsageError, match=words):
        judge(replace(case, recurring=change(case.recurring)), QUICK)


def _promotes(world, with_products):
    return judge(case_of(world, with_products=with_products), QUICK).outcome == "promote"


def _without_intervals(content):
    """All but the intervals that are shown, which decide nothing and are made another way since, and the new field."""
    rows = [
        {key: entry for key, entry in row.items() if not key.endswith(("_low", "_high"))} for row in content["metrics"]
    ]
    return {key: entry for key, entry in content.items() if key != "conditional"} | {"metrics": rows}


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return round(value, 9) if isinstance(value, float) else value


def stored_case():
    """The case of the stored verdict, from arithmetic that no library's generator stands behind."""
    labels = (_lots(1) * 4).astype(np.int8)
    groups = np.repeat(np.arange(80, dtype=np.uint64), 12)
    said = [np.where(_lots(salt) < right, labels, (_lots(salt + 10) * 4).astype(np.int8))
            for salt, right in ((2, 0.75), (3, 0.6))]  # fmt: skip
    locales = np.where(groups % 3 == 0, "es", "us")
    case = JudgeInput.from_answers(labels, groups, locales, *sides(labels, *said), before=History(2))
    return replace(case, challenger_loss=None, champion_loss=None)  # nor was the log loss compared then


def _lots(salt):
    state = np.arange(960, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt)
    for shift in (30, 27):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(0xBF58476D1CE4E5B9)
    return (state >> np.uint64(40)).astype(np.float64) / 2.0**24
