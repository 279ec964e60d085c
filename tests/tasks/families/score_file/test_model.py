"""Score files: what is refused, how a partial file answers, and the effect of provenance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esci_tournament.registry.errors import CandidateError, LeakError, SpecError
from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.scores import ScoreStore
from esci_tournament.registry.stages import StageStore
from esci_tournament.tasks.candidates.enter import check_spec
from esci_tournament.tasks.candidates.steps import CandidateInputs, score
from esci_tournament.tasks.data.split import assign_roles, fit_plans
from esci_tournament.tasks.families.score_file.spec import ScoresSpec

PROVENANCE = "trained by hand in a test"


@pytest.fixture(scope="module")
def plans(tiny_dataset):
    roles = assign_roles(tiny_dataset, "blend", 0.25, 0.1, 5)
    return fit_plans(tiny_dataset, roles, "blend", 0.1)


@pytest.fixture
def table(tiny_dataset, plans):
    ids = tiny_dataset.pairs["example_id"].to_numpy()[plans[0].score]
    values = np.random.default_rng(3).dirichlet(np.ones(4), len(ids)).astype(np.float32)
    return pd.DataFrame({"example_id": ids} | dict(zip(LABELS, values.T, strict=True)))


@pytest.fixture
def hold(tiny_dataset, plans, tmp_path):
    """Return what the score store holds after a score file was entered."""

    def enter(table: pd.DataFrame, **declared):
        file = tmp_path / "scores.parquet"
        table.to_parquet(file)
        declared = {"trained_on": "other_queries", "provenance": PROVENANCE} | declared
        spec = ScoresSpec(name="house", file=str(file), **declared)
        check_spec(spec)
        inputs = CandidateInputs("house/1", spec, "", tiny_dataset.version, "roles", 0, "cpu")
        store = ScoreStore(tmp_path / "scores")
        score(inputs, plans, tiny_dataset, StageStore(tmp_path / "stages"), store)
        return store.get("house/1", tiny_dataset.version, inputs.digest())

    return enter


def test_the_scores_of_the_file_are_the_candidates(hold, table):
    stored = hold(table.sample(frac=1, random_state=0))
    assert stored.example_id.tolist() == table["example_id"].tolist()
    np.testing.assert_array_equal(stored.probabilities, table[list(LABELS)].to_numpy())


def test_what_was_declared_is_kept_with_the_scores(hold, table):
    kept = hold(table).provenance
    assert (kept["trained_on"], kept["provenance"], kept["cover"]) == ("other_queries", PROVENANCE, 1.0)


def test_a_partial_file_says_how_much_it_covers_and_answers_the_class_mix_elsewhere(hold, table, tiny_dataset, plans):
    half = len(table) // 2
    stored = hold(table.head(half))
    assert stored.provenance["cover"] == pytest.approx(half / len(table))
    counts = np.bincount(tiny_dataset.pairs["label"].to_numpy()[plans[0].fit], minlength=4) + 1
    np.testing.assert_allclose(
        stored.probabilities[half:], np.tile(counts / counts.sum(), (len(table) - half, 1)), 1e-6
    )


def test_a_file_of_other_pairs_is_refused(hold, table):
    with pytest.raises(CandidateError, match=rf"covers none of the {len(table)} pairs"):
        hold(table.assign(example_id=table["example_id"] + 10**9))


def test_rows_of_a_listed_query_are_in_sample(hold, table, tiny_dataset, plans, tmp_path):
    scored = tiny_dataset.pairs.iloc[plans[0].score]
    query = scored["query_id"].iloc[0]
    pd.DataFrame({"query_id": [query]}).to_parquet(tmp_path / "seen.parquet")
    in_sample = int((scored["query_id"] == query).sum())
    with pytest.raises(LeakError, match=rf"{in_sample} of {len(table)} pairs .* in-sample scores are refused"):
        hold(table, trained_on="listed_queries", trained_queries=str(tmp_path / "seen.parquet"))


def test_queries_may_be_listed_by_their_text(hold, table, tiny_dataset, plans, tmp_path):
    row = tiny_dataset.pairs.iloc[plans[0].score[0]]
    listed = pd.DataFrame({"query": [f" {row['query'].upper()} "], "product_locale": [row["locale"]]})
    listed.to_parquet(tmp_path / "seen.parquet")
    with pytest.raises(LeakError, match="in-sample"):
        hold(table, trained_on="listed_queries", trained_queries=str(tmp_path / "seen.parquet"))


def test_listed_queries_that_are_not_scored_do_no_harm(hold, table, tiny_dataset, plans, tmp_path):
    fitted = tiny_dataset.pairs.iloc[plans[0].fit]
    fitted[["query_id"]].to_parquet(tmp_path / "seen.parquet")
    stored = hold(table, trained_on="listed_queries", trained_queries=str(tmp_path / "seen.parquet"))
    assert stored.out_of_sample.all()


def test_a_model_of_the_whole_train_split_is_in_sample_for_the_aggregators_pairs(hold, table, tiny_dataset, plans):
    train = int((tiny_dataset.pairs["split"].iloc[plans[0].score] == "train").sum())
    with pytest.raises(LeakError, match=rf"{train} of {len(table)} pairs"):
        hold(table, trained_on="train_split")


@pytest.mark.parametrize(
    ("declared", "complaint"),
    [
        ({"trained_on": "these_pairs"}, "in-sample and are refused"),
        ({"trained_on": "listed_queries"}, "go together"),
        ({"trained_on": "other_queries", "trained_queries": "x"}, "go together"),
        ({"provenance": ""}, "provenance"),
    ],
)
def test_a_declaration_that_will_not_do_is_refused(declared, complaint):
    with pytest.raises(ValueError, match=complaint):
        ScoresSpec(**{"name": "house", "file": "x", "trained_on": "out_of_fold", "provenance": PROVENANCE} | declared)


def test_provenance_is_asked_for():
    with pytest.raises(ValueError, match=r"trained_on\n.*required"):
        ScoresSpec(name="house", file="x", provenance=PROVENANCE)


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        (lambda t: t.drop(columns="I"), SpecError, "columns example_id, E, S, C; it must have"),
        (lambda t: t.assign(X=t["I"]), SpecError, "E, S, C, I, X; it must have"),
        (lambda t: t.assign(E="much"), SpecError, "column E is .*string"),
        (lambda t: t.assign(example_id=t["example_id"] / 2), SpecError, "column example_id is double"),
        (lambda t: pd.concat([t, t.head(3)]), CandidateError, "3 example ids stand there twice"),
        (lambda t: t.assign(E=t["E"].where(t.index != 4)), CandidateError, r"at 1 of \d+ pairs \(1 not finite\)"),
        (lambda t: t.assign(E=t["E"] * 2), CandidateError, "are no probabilities"),
        (lambda t: t.assign(E=0.7, S=0.1, C=0.1, I=0.1), CandidateError, "are constant"),
    ],
    ids=["class missing", "class too many", "text", "half ids", "twice", "NaN", "sum", "constant"],
)
def test_a_file_that_is_no_score_file_is_refused(hold, table, change, error, complaint):
    with pytest.raises(error, match=complaint):
        hold(change(table))


def test_a_file_that_is_not_there_is_named(tmp_path):
    spec = ScoresSpec(name="house", file=str(tmp_path / "no.parquet"), trained_on="out_of_fold", provenance=PROVENANCE)
    with pytest.raises(SpecError, match=r"no\.parquet is not there"):
        check_spec(spec)


def test_a_truncated_file_is_named(table, tmp_path):
    path = Path(tmp_path / "cut.parquet")
    table.to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    spec = ScoresSpec(name="house", file=str(path), trained_on="out_of_fold", provenance=PROVENANCE)
    with pytest.raises(SpecError, match=r"cut\.parquet cannot be read"):
        check_spec(spec)
