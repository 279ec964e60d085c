import numpy as np
import pytest
from scipy.stats import t as student

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.attribution import attribute
from esci_tournament.tasks.ensemble.fitting import Choice, fit_aggregator
from esci_tournament.tasks.ensemble.refits import Refits
from esci_tournament.tasks.ensemble.worth import measure_worth


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


def refits_of(world, noise=0.05, spread=0.02, members=None):
    """Return re-fits in which every member has the same share, and a member of noise a given one, with a spread."""
    random = np.random.default_rng(1)
    shares = np.full((25, 4), 0.25) + random.normal(0, spread, (25, 4))
    shares /= shares.sum(axis=1, keepdims=True)
    credit = noise + random.normal(0, 0.005, 25)
    return Refits(members or world.members, shares, shares * (1 - credit)[:, None], credit)


def test_intervals_are_as_wide_as_the_spread_over_refits(world, aggregator, locales, worth):
    refits = refits_of(world)
    found = measure_worth(aggregator, world.columns, world.groups, locales, refits=refits)
    assert found.utility() == worth.utility()
    assert {entry.low for entry in worth.members} == {None}
    for entry in found.members:
        error = refits.shares[:, world.members.index(entry.member)].std(ddof=1)
        assert entry.high - entry.utility == pytest.approx(student.isf(0.025, 24) * error)
        assert entry.low == pytest.approx(max(2 * entry.utility - entry.high, 0.0))


def test_a_member_is_above_noise_only_where_it_is_so_over_refits(world, aggregator, locales):
    def above(noise):
        refits = refits_of(world, noise)
        return measure_worth(aggregator, world.columns, world.groups, locales, refits=refits)

    low, high = above(0.05), above(0.2)
    assert {entry.above_noise for entry in low.members} == {True}
    assert {entry.above_noise for entry in high.members} == {False}
    assert (low.refits, low.noise) == (25, pytest.approx(0.05, abs=0.01))
    assert low.noise < low.noise_high < 0.07


def test_neighbours_closer_than_their_spread_over_refits_are_tied(world, aggregator, locales):
    wide = measure_worth(aggregator, world.columns, world.groups, locales, refits=refits_of(world, spread=0.2))
    narrow = measure_worth(aggregator, world.columns, world.groups, locales, refits=refits_of(world, spread=1e-4))
    assert len(wide.tied) == 3
    assert not narrow.tied


def test_refits_of_other_members_are_refused(world, aggregator, locales):
    others = refits_of(world, members=("a", "b", "c", "d"))
    with pytest.raises(UsageError, match="re-fits of a, b, c, d"):
        measure_worth(aggregator, world.columns, world.groups, locales, refits=others)


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
        assert entry.utility == pytest.approx(other.utility)


def test_no_pair_is_an_error(world, aggregator):
    with pytest.raises(UsageError, match="no pair"):
        measure_worth(aggregator, world.columns[:0], world.groups[:0], [])
