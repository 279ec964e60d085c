"""Building a challenger from scores: selected under the budget, stored completely, reproducible."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esci_tournament.registry.errors import BudgetError, CandidateError, LeakError
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.ensemble.budget import Cost
from esci_tournament.tasks.ensemble.challenge import SHAPLEY_REFITS, Challenge, build_challenge
from esci_tournament.tasks.ensemble.scores import MemberScores, stack
from esci_tournament.tasks.ensemble.select import select
from esci_tournament.tasks.ensemble.value import Game

COSTS = {"good/1": Cost(40, 4), "other/1": Cost(30, 3), "noise/1": Cost(20, 2)}


def pairs(queries: int = 60, each: int = 8) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = queries * each
    return pd.DataFrame(
        {
            "example_id": rng.permutation(rows).astype(np.int64),
            "label": rng.integers(0, 4, rows).astype(np.int8),
            "query_key": np.repeat(rng.integers(1, 2**63, queries, dtype=np.uint64), each),
            "locale": pd.Categorical(np.repeat(np.array(["us", "es"])[np.arange(queries) % 2], each)),
        }
    )


def scores(name: str, frame: pd.DataFrame, skill: float, seed: int) -> MemberScores:
    """Return scores that favour the true class by `skill`, in nats, and noise."""
    logits = np.random.default_rng(seed).normal(size=(len(frame), 4))
    logits[np.arange(len(frame)), frame["label"]] += skill
    weights = np.exp(logits)
    probabilities = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return MemberScores(name, frame["example_id"].to_numpy(), probabilities, np.ones(len(frame), dtype=bool))


PAIRS = pairs()
SCORES = [
    scores(name, PAIRS, skill, seed) for seed, (name, skill) in enumerate(zip(COSTS, (2.0, 1.5, 0.0), strict=True))
]


def build(folder: Path, **settings: object) -> Challenge:
    folder.mkdir()
    build_challenge(folder, PAIRS, SCORES, COSTS, Settings(home=folder, **settings))
    return Challenge.load(folder)


@pytest.fixture(scope="module")
def challenge(tmp_path_factory: pytest.TempPathFactory) -> Challenge:
    return build(tmp_path_factory.mktemp("challenge") / "built", budget_memory_mib=70.0)


def test_the_budget_holds_and_the_useless_model_goes(challenge: Challenge) -> None:
    assert challenge.members == ("good/1", "other/1")
    assert challenge.aggregator.members == challenge.members
    assert challenge.result["selection"]["used"]["memory_mib"] == 70
    assert [one["member"] for one in challenge.result["selection"]["evicted"]] == ["noise/1"]


def test_worth_is_told_of_the_challenger_and_of_everybody(challenge: Challenge) -> None:
    for field, names in (("worth", {"good/1", "other/1"}), ("worth_all", set(COSTS))):
        members = challenge.result[field]["members"]
        assert {one["member"] for one in members} == names
        assert sum(one["utility"] for one in members) == pytest.approx(1)
        assert members[0]["member"] == "good/1"
        assert [one["utility"] for one in members] == sorted((one["utility"] for one in members), reverse=True)


def test_shapley_values_add_up_to_what_the_ensemble_reaches(challenge: Challenge) -> None:
    columns = stack(SCORES, PAIRS["example_id"].to_numpy())
    labels, groups = PAIRS["label"].to_numpy(), PAIRS["query_key"].to_numpy()
    game = Game(columns, labels, groups, list(COSTS), challenge.aggregator.parameters)
    total = game.value(challenge.members) - game.value(())
    assert sum(challenge.result["shapley"].values()) == pytest.approx(total)
    assert set(challenge.result["drop_one"]) == set(challenge.result["shapley"]) == set(challenge.members)


def test_what_the_challenger_reaches_out_of_fold_is_told_overall_and_by_locale(challenge: Challenge) -> None:
    found = challenge.result["out_of_fold"]
    whole, path = np.array(found["confusion"]), challenge.result["selection"]["path"]
    assert whole.sum() == pytest.approx(len(PAIRS))
    np.testing.assert_allclose(whole.sum(axis=1), np.bincount(PAIRS["label"], minlength=4))
    assert set(found["metrics"]) == {"all", "us", "es"}
    assert found["metrics"]["all"]["macro_f1"] == pytest.approx(path[-1]["value"])
    share = (PAIRS["locale"] == "us").mean()
    both = [found["metrics"][locale]["accuracy"] for locale in ("us", "es")]
    assert share * both[0] + (1 - share) * both[1] == pytest.approx(found["metrics"]["all"]["accuracy"])


def test_what_is_loaded_scores_as_what_was_built(challenge: Challenge, tmp_path: Path) -> None:
    again = build(tmp_path / "again", budget_memory_mib=70.0)
    assert again.result == challenge.result
    columns = stack(SCORES[:2], PAIRS["example_id"].to_numpy())
    np.testing.assert_array_equal(again.aggregator.raw_scores(columns), challenge.aggregator.raw_scores(columns))


def test_a_budget_that_nobody_fits_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="noise/1 alone takes 20 MiB"):
        build(tmp_path / "built", budget_memory_mib=10.0)
    assert list((tmp_path / "built").iterdir()) == []


def test_one_in_sample_score_is_a_leak(tmp_path: Path) -> None:
    leaky = scores("leaky/1", PAIRS, 9.0, 0)
    leaky.out_of_sample[17] = False
    with pytest.raises(LeakError, match="leaky/1 are in-sample for 1 of"):
        build_challenge(tmp_path, PAIRS, [leaky], {"leaky/1": Cost(1, 1)}, Settings(home=tmp_path))


def test_progress_rises_and_never_says_done_too_early(tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    build_challenge(tmp_path, PAIRS, SCORES[:2], COSTS, Settings(home=tmp_path), lambda *said: told.append(said))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[0] >= 0
    assert shares[-1] < 1
    assert all(doing for _, doing in told)
    for words in (
        r"choosing among 2 models on .* re-fit 1 \(.* s each\)",
        r"on all [\d,]+ pairs$",
        "24 of 24, about 0 s",
    ):
        assert any(re.search(words, doing) for _, doing in told), words


def test_shapley_values_that_would_take_too_many_refits_are_left_out() -> None:
    from esci_tournament.tasks.ensemble.challenge import shapley

    class Additive:
        """A game of known values; asking it for Shapley values is what must not happen."""

        members = tuple(f"m{number}" for number in range(8))
        values: dict[frozenset[str], float] = {}  # noqa: RUF012
        refits = 0

        def value(self, subset) -> float:
            self.values[frozenset(subset)] = 0.1 * len(set(subset))
            return self.values[frozenset(subset)]

        def utility(self, subset) -> dict[str, float]:
            return dict.fromkeys(subset, 1 / max(len(set(subset)), 1))

    game = Additive()
    selection = select(game, dict.fromkeys(game.members, Cost(1, 1)), rule="top_k")
    assert 2 ** len(selection.kept) > SHAPLEY_REFITS
    assert shapley(game, selection) == {}


def test_the_result_is_json_without_nan(challenge: Challenge) -> None:
    json.dumps(challenge.result, allow_nan=False)


def test_a_model_for_information_is_ranked_and_never_kept(tmp_path: Path) -> None:
    build_challenge(tmp_path, PAIRS, SCORES, COSTS, Settings(home=tmp_path), for_information=["good/1"])
    built = Challenge.load(tmp_path)
    assert "good/1" not in built.members
    assert {one["member"] for one in built.result["worth_all"]["members"]} == set(COSTS)
    (out,) = [one for one in built.result["selection"]["evicted"] if one["member"] == "good/1"]
    assert re.search(r"for information only: .* would change the metric by \+0\.[0-9]+$", out["reason"])


def test_nobody_but_models_for_information_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CandidateError, match="no candidate can serve"):
        build_challenge(tmp_path, PAIRS, SCORES, COSTS, Settings(home=tmp_path), for_information=list(COSTS))


def test_how_the_members_are_combined_is_told_and_who_is_best_alone(challenge: Challenge, tmp_path: Path) -> None:
    found = challenge.result["combination"]
    assert found["alone"] is None
    assert found["offsets"] == list(challenge.aggregator.offsets)
    assert found["margins"]["macro_f1"] > 0
    assert challenge.best_alone == "good/1"
    assert build(tmp_path / "dear", budget_memory_mib=35.0).best_alone == "other/1"  # the better one cannot be served
    assert build(tmp_path / "forced", must_keep=["other", "noise"]).best_alone is None
