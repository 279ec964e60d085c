import numpy as np
import pytest

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.attribution import attribute
from esci_tournament.tasks.ensemble.fitting import Choice, fit_aggregator
from esci_tournament.tasks.ensemble.worth import measure_worth, utilities


@pytest.fixture(scope="module")
def world():
    return make_world(2, rows=4000, members=4, kinds=("plain", "weak", "useless", "plain"))


@pytest.fixture(scope="module")
def aggregator(world):
    return fit_aggregator(
        world.columns, world.labels, world.groups, world.members, AggregatorParameters(threads=1), Choice(rounds=30)
    )


@pytest.fixture(scope="module")
def locales(world):
    return np.where(world.groups % 3 == 0, "us", "jp")


@pytest.fixture(scope="module")
def worth(world, aggregator, locales):
    return measure_worth(aggregator, world.columns, world.groups, locales)


def test_utility_is_the_mean_absolute_contribution_as_a_share(world, aggregator, worth):
    strength = np.abs(attribute(aggregator, world.columns)[0]).sum(axis=(0, 1))
    for member, share in zip(world.members, strength / strength.sum(), strict=True):
        assert worth.utility()[member] == pytest.approx(share)


def test_shares_add_up_in_all_classes_and_locales(worth):
    assert sum(entry.utility for entry in worth.members) == pytest.approx(1)
    for label in "ESCI":
        assert sum(entry.by_class[label] for entry in worth.members) == pytest.approx(1)
    for locale in ("us", "jp"):
        assert sum(entry.by_locale[locale] for entry in worth.members) == pytest.approx(1)


def test_the_ranking_falls_and_puts_noise_last(worth):
    assert [entry.utility for entry in worth.members] == sorted((e.utility for e in worth.members), reverse=True)
    assert worth.ranking[-1] in ("useless-2", "weak-1")
    assert worth.ranking[0].startswith("plain")


def test_intervals_hold_the_utility_and_narrow_with_more_queries(world, aggregator, locales, worth):
    few = measure_worth(aggregator, world.columns[:800], world.groups[:800], locales[:800])
    for entry in worth.members:
        assert entry.low <= entry.utility <= entry.high
        other = next(e for e in few.members if e.member == entry.member)
        assert other.high - other.low > entry.high - entry.low


def test_the_settled_ranking_is_that_of_all_rows_from_fewer(world, aggregator, locales, worth):
    settled = measure_worth(aggregator, world.columns, world.groups, locales, until_settled=True)
    assert settled.settled
    assert not settled.tied
    assert settled.ranking == worth.ranking
    assert settled.rows < worth.rows == len(world.labels)


def test_members_that_cannot_be_told_apart_are_named_as_tied(world, aggregator, locales):
    # Twelve pairs of three queries cannot tell anybody apart
    few = np.isin(world.groups, np.unique(world.groups)[:3])
    worth = measure_worth(aggregator, world.columns[few], world.groups[few], locales[few], until_settled=True)
    assert worth.rows == few.sum()
    assert worth.tied
    assert set(worth.tied) <= {tuple(worth.ranking[place : place + 2]) for place in range(3)}


def test_the_order_of_rows_does_not_matter(world, aggregator, locales, worth):
    order = np.random.default_rng(0).permutation(len(world.labels))
    shuffled = measure_worth(aggregator, world.columns[order], world.groups[order], locales[order])
    for entry, other in zip(worth.members, shuffled.members, strict=True):
        assert entry.member == other.member
        assert (entry.low, entry.utility, entry.high) == pytest.approx((other.low, other.utility, other.high))


def test_utilities_of_a_sample_are_near_those_of_all(world, aggregator, worth):
    sample = utilities(aggregator, world.columns, rows=1000)
    assert sample == pytest.approx(worth.utility(), abs=0.03)


def test_no_pair_is_an_error(world, aggregator):
    with pytest.raises(UsageError, match="no pair"):
        measure_worth(aggregator, world.columns[:0], world.groups[:0], [])
