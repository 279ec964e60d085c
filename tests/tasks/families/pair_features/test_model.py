"""The family of pair features: it learns, keeps, refreshes and refuses."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from esci_tournament.registry.errors import CandidateError, LeakError, SpecError
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.specs import parse_spec
from esci_tournament.tasks.families.loading import candidate_class, load_candidate
from esci_tournament.tasks.families.pair_features.model import PairFeatures
from esci_tournament.tasks.families.pair_features.spec import PairFeaturesSpec


def spec(**changes: object) -> PairFeaturesSpec:
    content = {"name": "features", "family": "pair_features", "recipe": {"rounds": 60, "learning_rate": 0.2}}
    found = parse_spec(content | changes)
    assert isinstance(found, PairFeaturesSpec)
    return found


@pytest.fixture(scope="module")
def model(shop, tmp_path_factory) -> PairFeatures:
    return PairFeatures(spec(popularity=["clicks"])).fit(shop.data(tmp_path_factory.mktemp("fit"), edges=shop.edges))


def answers(model: PairFeatures, shop) -> np.ndarray:
    return model.predict_proba(shop.test, shop.products)


def test_it_learns_what_the_texts_of_a_pair_share(shop, model) -> None:
    found = answers(model, shop)
    assert found.dtype == np.float32
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (found.argmax(axis=1) == shop.test["label"].to_numpy()).mean() > 0.95
    assert set(model.learning_curves()) == {"validation_log_loss", "validation_macro_f1"}
    assert model.parameters() > 0


def test_what_is_saved_answers_alike_and_a_second_fit_is_the_same(shop, model, tmp_path) -> None:
    model.save(tmp_path / "saved")
    assert (answers(load_candidate(tmp_path / "saved"), shop) == answers(model, shop)).all()
    again = PairFeatures(model.spec).fit(shop.data(tmp_path, edges=shop.edges))
    assert again.text == model.text
    assert (answers(again, shop) == answers(model, shop)).all()


@pytest.mark.parametrize("name", ["trees.txt", "curves.json", "vocabulary_idf.npy", "popularity_keys.npy"])
def test_a_damaged_folder_is_refused(model, tmp_path, name) -> None:
    model.save(tmp_path / "saved")
    file = tmp_path / "saved" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CandidateError, match="no model of pair features"):
        load_candidate(tmp_path / "saved")
    file.unlink()
    with pytest.raises((CandidateError, SpecError)):
        load_candidate(tmp_path / "saved")


def test_a_refresh_counts_anew_and_learns_nothing(shop, model, tmp_path) -> None:
    model.save(tmp_path / "saved")
    copy = load_candidate(tmp_path / "saved")
    assert copy.refresh(shop.edges, shop.products) == 0
    assert copy.refresh(shop.edges.iloc[1:], shop.products) == 1
    assert copy.text == model.text
    plain = PairFeatures(spec()).fit(shop.data(tmp_path))
    assert plain.refresh(shop.edges.iloc[:0], shop.products) == 0


def test_products_that_are_not_kept_count_as_without_events(shop, model, tmp_path) -> None:
    model.save(tmp_path / "saved")
    copy = load_candidate(tmp_path / "saved")
    copy.keep_products(shop.products.iloc[:10])
    rows = np.arange(len(shop.products))
    before, after = (one.popularity.find(shop.products, rows) for one in (model, copy))
    assert (after[:10] == before[:10]).all()
    assert before[10:].any()
    assert not after[10:].any()


def test_edges_have_to_be_there_and_of_no_held_out_query(shop, tmp_path) -> None:
    with pytest.raises(CandidateError, match="'clicks' has no edges"):
        PairFeatures(spec(popularity=["clicks"])).fit(shop.data(tmp_path, edges=shop.edges.iloc[:0]))
    leaked = shop.edges.assign(query_key=shop.validation["query_key"].iloc[0])
    with pytest.raises(LeakError, match="queries of the validation pairs"):
        PairFeatures(spec(popularity=["clicks"])).fit(shop.data(tmp_path, edges=leaked))


def test_its_spec(tmp_path) -> None:
    ordered, other = spec(popularity=["purchases", "clicks"]), spec(popularity=["clicks", "purchases"])
    assert ordered.digest() == other.digest()
    kind = candidate_class("pair_features")
    assert kind.relations_of(ordered) == ("clicks", "purchases")
    assert kind.relations_of(spec()) == ()
    assert "popularity by clicks, purchases" in kind.describe(ordered)
    with pytest.raises(SpecError, match="same_brand is between products"):
        spec(popularity=["same_brand"])
    with pytest.raises(SpecError, match="no relation twice"):
        spec(popularity=["clicks", "clicks"])
    with pytest.raises(SpecError, match="candidate_parameters"):
        kind.permit(spec(recipe={"rounds": 5000, "leaves": 255}), Settings(candidate_parameters=1_000_000))
    kind.permit(spec(), Settings())


def test_class_weights_answer_rare_classes_more_often(shop, tmp_path) -> None:
    def rare(weights: str) -> float:
        recipe = {"rounds": 2, "class_weights": weights}
        model = PairFeatures(spec(recipe=recipe)).fit(shop.data(tmp_path))
        return float(answers(model, shop)[:, :2].mean())

    assert rare("balanced") > rare("sqrt_balanced") > rare("none")


def test_an_unfitted_model_says_so(shop, tmp_path) -> None:
    with pytest.raises(CandidateError, match="not fitted"):
        answers(PairFeatures(spec()), shop)
    with pytest.raises(CandidateError, match="nothing to save"):
        PairFeatures(spec()).save(tmp_path)
    shutil.rmtree(tmp_path)
