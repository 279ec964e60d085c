"""A page from request to answer: products found, labels in order, and what is said of those without one."""

from __future__ import annotations

import time

import numpy as np
import pytest

from esci_tournament.deployments.scorer.file_cache import FileCache
from esci_tournament.deployments.scorer.labels import Labels
from esci_tournament.deployments.scorer.schemas import ScoreRequest
from esci_tournament.deployments.scorer.service import NobodyAnswers, NoChampion
from tests.deployments.scorer.conftest import NAMES, PAGE, ask


def test_a_page_is_answered_in_order_by_the_whole_ensemble(stand, catalogue):
    answer = ask(stand, PAGE)[0]
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content["champion"] == {"name": "esci-ensemble", "version": 1}
    assert (content["complete"], content["missing"], content["members"]) == (True, [], list(NAMES))
    assert [one["id"] for one in content["products"]] == [one["id"] for one in PAGE["products"]]
    # The same as the members and the aggregator say when they are asked by hand
    texts = catalogue.texts(catalogue.find("us", [one["id"] for one in PAGE["products"]]).tolist())
    scores = [np.stack([stand.candidate(name)._one("red lamp", "us", text.title) for text in texts]) for name in NAMES]
    expected = stand.champion.subsets.best(NAMES)[0].predict_proba(np.stack(scores, axis=1))
    found = np.array([[one["probabilities"][label] for label in "ESCI"] for one in content["products"]])
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert [one["label"] for one in content["products"]] == ["ESCI"[row] for row in expected.argmax(axis=1)]


def test_what_is_asked_for_is_what_comes(stand):
    labels, contributions = ask(stand, {**PAGE, "want": "labels"}, {**PAGE, "want": "contributions"})
    assert all("probabilities" not in one for one in labels.json()["products"])
    content = contributions.json()
    for one in content["products"]:
        raw = np.array([content["base"][label] for label in "ESCI"])
        raw += sum(np.array([added[label] for label in "ESCI"]) for added in one["contributions"].values())
        shares = np.exp(raw - raw.max())
        found = [one["probabilities"][label] for label in "ESCI"]
        np.testing.assert_allclose(found, shares / shares.sum(), atol=2e-3)


def test_one_unknown_product_does_not_spoil_the_page(stand):
    products = [{"id": "nobody"}, {"id": "P1"}, {}, {"id": "new", "title": "Velo lamp"}, {"id": "x", "title": "  "}]
    content = ask(stand, {**PAGE, "products": products})[0].json()
    codes = [(one["error"] or {}).get("code") if "error" in one else None for one in content["products"]]
    assert codes == ["unknown_product", None, "empty_product", None, "unknown_product"]
    assert [one["label"] is not None for one in content["products"]] == [False, True, False, True, False]


def test_text_in_the_request_stands_for_the_product(stand):
    own, known = ask(
        stand,
        {**PAGE, "products": [{"id": "P1", "title": "something else"}]},
        {**PAGE, "products": [{"id": "P1"}]},
    )
    assert own.json()["products"][0]["probabilities"] != known.json()["products"][0]["probabilities"]


def test_whoever_fails_on_one_page_does_not_fail_on_another(stand):
    for name in NAMES:
        stand.candidate(name).delay_s = 0.05
    bad = {**PAGE, "products": [{"title": "poison"}]}
    good, failed, again = ask(stand, PAGE, bad, PAGE)
    assert (good.json()["complete"], again.json()["complete"]) == (True, True)
    assert (failed.status_code, failed.json()["error"]) == (502, "members_failed")


def test_a_scorer_without_a_champion_says_so_instead_of_an_answer(stand):
    stand.scorer.active.champion = None
    with pytest.raises(NoChampion, match="hold a tournament"):
        stand.run(stand.scorer.answer(ScoreRequest.model_validate(PAGE), time.perf_counter()))


def test_a_champion_is_let_go_of_whatever_became_of_the_page(stand):
    for name in NAMES:
        stand.candidate(name).fails = True
    champion = stand.champion
    with pytest.raises(NobodyAnswers, match="failed on this page"):
        stand.run(stand.scorer.answer(ScoreRequest.model_validate(PAGE), time.perf_counter()))
    closed = stand.scorer.active.take(stand.make(2))
    assert closed is champion.closed
    assert closed.is_set()


def test_only_products_that_the_catalogue_knows_are_counted_as_asked_for(stand):
    products = [{"id": "P1"}, {"id": "P2", "title": "their own text"}, {"id": "nobody"}, {"title": "no id"}]
    assert ask(stand, {**PAGE, "products": products})[0].status_code == 200
    assert stand.scorer.frequent.most(10) == [(("us", "red lamp", "P1"), 1)]
    text = stand.scorer.metrics.text().decode()
    assert 'scorer_products_total{locale="us",outcome="scored"} 3.0' in text
    assert 'scorer_products_total{locale="us",outcome="unknown_product"} 1.0' in text


@pytest.mark.parametrize(
    "first", ["\uff52\uff45\uff44 \uff4c\uff41\uff4d\uff50", "RED LAMP", " red  lamp ", "red\u3000lamp"]
)
def test_the_label_of_a_query_does_not_depend_on_who_asked_first(stand, tmp_path, first):
    """S3.1, S3.2: another spelling, asked first, gave its label to the honest one."""
    own = [one["probabilities"] for one in ask(stand, PAGE)[0].json()["products"]]
    stand.scorer.labels = Labels(FileCache(tmp_path / "cache", 4), stand.scorer.metrics)
    try:
        assert ask(stand, {**PAGE, "query": first})[0].json()["cache_hits"] == 0
        stand.scorer.labels.flush()
        for hits in (0, 40):
            answer = ask(stand, PAGE)[0].json()
            assert answer["cache_hits"] == hits
            assert [one["probabilities"] for one in answer["products"]] == own
            stand.scorer.labels.flush()
    finally:
        stand.scorer.labels.close()


def test_text_of_a_request_never_gets_or_gives_the_label_of_a_product_of_the_catalogue(stand, tmp_path):
    (text,) = stand.champion.catalogue.texts(stand.champion.catalogue.find("us", ["P1"]).tolist())
    stand.scorer.labels = Labels(FileCache(tmp_path / "cache", 4), stand.scorer.metrics)
    try:
        assert ask(stand, {**PAGE, "products": [{"id": "P1"}]})[0].json()["cache_hits"] == 0
        stand.scorer.labels.flush()
        given = {"id": "P1", **text._asdict()}
        given.pop("product_id")
        for changed, hits in ((given, 0), ({**given, "title": "another"}, 0), ({"id": "P1"}, 1)):
            assert ask(stand, {**PAGE, "products": [changed]})[0].json()["cache_hits"] == hits
            stand.scorer.labels.flush()
    finally:
        stand.scorer.labels.close()
