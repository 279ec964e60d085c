"""A page from request to answer: products found, labels in order, and what is said of those without one."""

from __future__ import annotations

import numpy as np

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
