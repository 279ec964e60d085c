import numpy as np
import pytest

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import StoreError, UsageError
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters
from esci_tournament.tasks.ensemble.fitting import fit_aggregator

FAST = AggregatorParameters(maximum_rounds=40, threads=1)


@pytest.fixture(scope="module")
def world():
    return make_world(3, rows=1500, members=3, kinds=("plain", "plain", "weak"))


@pytest.fixture(scope="module")
def aggregator(world):
    return fit_aggregator(world.columns, world.labels, world.groups, world.members, FAST)


def test_what_is_saved_comes_back_the_same(world, aggregator, tmp_path):
    aggregator.save(tmp_path / "new")
    loaded = Aggregator.load(tmp_path / "new")
    assert loaded.members == aggregator.members
    assert loaded.parameters == aggregator.parameters
    assert (loaded.predict_proba(world.columns) == aggregator.predict_proba(world.columns)).all()


def test_a_damaged_aggregator_is_named(aggregator, tmp_path):
    aggregator.save(tmp_path)
    (tmp_path / "aggregator.json").write_text('{"members": ["a"]}')
    with pytest.raises(StoreError, match="cannot be read"):
        Aggregator.load(tmp_path)


def test_probabilities_are_a_distribution_of_float32(world, aggregator):
    probabilities = aggregator.predict_proba(world.columns[:7])
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_shapes_that_do_not_fit_are_named(world, aggregator):
    with pytest.raises(UsageError, match=r"\(1500, 2, 4\)"):
        aggregator.predict_proba(world.columns[:, :2])
    with pytest.raises(UsageError, match="2 members"):
        fit_aggregator(world.columns, world.labels, world.groups, ("a", "b"), FAST)


def test_what_is_saved_does_not_say_how_many_threads_fitted_it(world, tmp_path, monkeypatch):
    monkeypatch.setattr("esci_tournament.tasks.ensemble.aggregate._ROWS_WORTH_THREADS", 1)
    fits = []
    for threads in (1, 2):
        parameters = AggregatorParameters(maximum_rounds=5, threads=threads)
        fitted = fit_aggregator(world.columns, world.labels, world.groups, world.members, parameters)
        fitted.save(tmp_path / str(threads))
        fits.append(fitted.digest())
    assert fits[0] == fits[1]
    for name in ("aggregator.txt", "aggregator.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
