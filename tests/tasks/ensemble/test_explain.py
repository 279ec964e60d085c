import json

import numpy as np
import pytest

from benchmarks.worlds import make_world
from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters
from esci_tournament.tasks.ensemble.explain import explain_pairs
from esci_tournament.tasks.ensemble.fitting import Choice, fit_aggregator


@pytest.fixture(scope="module")
def world():
    return make_world(3, rows=1000, members=3)


@pytest.fixture(scope="module")
def aggregator(world):
    return fit_aggregator(
        world.columns, world.labels, world.groups, world.members, AggregatorParameters(threads=1), Choice(rounds=15)
    )


@pytest.fixture(scope="module")
def explained(world, aggregator):
    return explain_pairs(aggregator, world.columns[:5], [f"pair {row}" for row in range(5)])


def test_contributions_add_up_to_the_scores(explained):
    for each in explained:
        for label in "ESCI":
            total = each.base[label] + sum(row[label] for row in each.contributions.values())
            assert total == pytest.approx(each.scores[label])


def test_label_and_probabilities_are_the_ensembles(world, aggregator, explained):
    probabilities = aggregator.predict_proba(world.columns[:5])
    for each, row in zip(explained, probabilities, strict=True):
        assert each.label == "ESCI"[row.argmax()]
        np.testing.assert_allclose(list(each.probabilities.values()), row, atol=1e-6)


def test_text_names_the_label_and_every_member(world, explained):
    text = explained[0].to_text()
    assert text.startswith("pair 0: ")
    assert all(text.count(member) == 2 for member in world.members)


def test_json_is_one_document(explained):
    document = json.loads(explained[0].to_json())
    assert document["label"] == explained[0].label
    assert set(document) == {"name", "label", "probabilities", "scores", "base", "contributions", "given", "offsets"}


def test_names_must_match_pairs(world, aggregator):
    with pytest.raises(UsageError, match="2 pairs and 1 names"):
        explain_pairs(aggregator, world.columns[:2], ["one"])
