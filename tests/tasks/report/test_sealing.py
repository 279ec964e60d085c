"""No number of the test split is published of a challenger that may not serve, by whatever publishes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.case import Answers, JudgeInput, JudgeSettings
from esci_tournament.tasks.ensemble.counts import confusion, metrics_of
from esci_tournament.tasks.ensemble.judge import judge
from esci_tournament.tasks.ensemble.spending import History
from esci_tournament.tasks.ensemble.trial import Trial, by_class, metrics_alone
from esci_tournament.tasks.report import figures, words
from esci_tournament.tasks.report.leaderboard import leaderboard
from esci_tournament.tasks.report.page import render
from esci_tournament.tasks.report.review_words import review_markdown
from esci_tournament.tasks.report.sealing import published, read
from esci_tournament.tasks.report.summarise import metrics, sides
from esci_tournament.tasks.report.summary import Summary
from esci_tournament.tasks.report.table import as_markdown, render_table
from tests.tasks.report.conftest import build

BEST = "gatv2-clicks/1"
MEMBERS = ("minilm-l6/3", BEST, "e5-small/1")
OUTSIDER = "sage-impressions/1"


def answers(labels: np.ndarray, right: float, seed: int) -> Answers:
    """Return answers of which a share is right, with probabilities that are about as sure."""
    rng = np.random.default_rng(seed)
    given = np.where(rng.random(len(labels)) < right, labels, rng.integers(0, 4, len(labels)))
    blurred = right * np.eye(4)[given] + (1 - right) * rng.dirichlet(np.ones(4), len(labels))
    return Answers(blurred.astype(np.float32), given.astype(np.int8))


def trial(seed: int, ours: float = 0.61, theirs: float = 0.67, memory: float = 80.0) -> Trial:
    """Return what a test split of 600 pairs says of a challenger; the answers follow from the seed."""
    labels = np.random.default_rng(7).integers(0, 4, 611).astype(np.int8)
    groups, locales = np.arange(611, dtype=np.uint64) // 7, np.where(np.arange(611) // 7 % 3, "us", "jp")
    mine = answers(labels, ours, seed)
    case = JudgeInput.from_answers(
        labels,
        groups,
        locales,
        mine,
        answers(labels, theirs, seed + 1),
        answers(labels, 0.6, seed + 2).labels,
        single_name=OUTSIDER,
        challenger_cost=Cost(memory, 9.0),
        champion_cost=Cost(100.0, 9.0),
        budget=Budget(memory_mib=120.0),
        before=History(2),
    )
    alone = {
        name: metrics_alone(answers(labels, 0.55, seed + number).probabilities, labels, locales)
        for number, name in enumerate((*MEMBERS, OUTSIDER), 10)
    }
    return Trial(judge(case, JudgeSettings(resamples=300)), confusion(labels, mine.labels).tolist(), alone)


def measured(held: Trial, **changes: Any) -> Summary:
    """Return the summary with everything that was measured, as a tournament makes it before it is told."""
    fold = np.array([[201.3, 30.2, 7.1, 9.4], [25.5, 180.9, 12.2, 11.4], [9.7, 13.3, 90.2, 6.8], [8, 7.7, 6.3, 120.0]])
    models = []
    for number, model in enumerate(build().models):
        name = f"{model.name}/{model.version}"
        found = {scope: metrics(one) for scope, one in held.alone.get(name, {}).items()}
        error = held.alone.get(name, {"all": {"accuracy": 0.0}})["all"]["accuracy"] / 7
        learnt = model.blend and replace(model.blend, accuracy=0.51 + number / 300)
        models.append(
            replace(
                model, test=found.pop("all", None), test_by_locale=found, blend=learnt, calibration_error=error,
                blend_by_locale={"us": learnt} if learnt else {}, calibration_error_after=error / 2,
                reliability=[[error, error / 3, 611.0]],
            )
        )  # fmt: skip
    whole = build(
        models=models,
        promoted=False,
        decision={},
        ensemble_version="",
        selection=build().selection | {"best_alone": {"member": OUTSIDER, "value": 0.5}},
        ensemble_calibration_error=held.verdict.metric("accuracy").challenger / 9,
        ensemble_reliability=[[held.verdict.metric("accuracy").challenger, 0.5, 611.0]],
        out_of_fold=metrics(metrics_of(fold)),
        out_of_fold_by_locale={"us": metrics(metrics_of(fold))},
        out_of_fold_confusion=fold.tolist(),
        out_of_fold_by_class=by_class(fold.tolist()),
        **sides(held),
    )
    return replace(whole, **changes)


def page(summary: Summary) -> str:
    return re.sub(r"<style>.*?</style>|<path[^>]*>|</?abbr[^>]*>", "", render(summary), flags=re.DOTALL)


def terminal(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=200)
    render_table(summary, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def pictures(summary: Summary) -> str:
    drawn = (figures.FIGURES[name](summary) for name in figures.FIGURES)
    return "".join(image.decode() for image in drawn if image)


PUBLISHING: dict[str, Callable[[Summary], str]] = {
    "page": page,
    "summary.json": Summary.to_json,
    "Markdown": as_markdown,
    "terminal": terminal,
    "review": lambda summary: review_markdown(summary, MEMBERS, {}),
    "frame": lambda summary: leaderboard(summary).to_csv(),
    "message": lambda summary: f"{words.headline(summary)} {summary.verdict['reason']}",
}


def numbers(value: Any) -> Iterator[float]:
    """Yield every number in a JSON-able value that is no setting and no level of an error probability."""
    if isinstance(value, dict):
        for one in value.values():
            yield from numbers(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, float) and abs(value) > 0.01 and value != round(value, 3):
        yield value


def secrets(verdict: dict[str, Any]) -> set[str]:
    """Return the numbers of a whole verdict, as they are and as its sentences write them."""
    found = [*numbers(verdict["metrics"]), *numbers([one for one in verdict["checks"] if one["name"] != "budget"])]
    return {form.format(abs(value)) for value in found for form in ("{}", "{:.4f}")}


def told_of(verdict: dict[str, Any], text: str) -> set[str]:
    """Return the numbers of a whole verdict that stand in a text."""
    assert len(secrets(verdict)) > 50
    return secrets(verdict) & set(re.findall(r"\d+\.\d+", text))


REFUSED, OTHER, PROMOTED = trial(1), trial(40), trial(1, ours=0.95, memory=100.0)


def test_the_trials_are_refused_and_promoted_as_the_tests_below_take_them() -> None:
    assert [one.verdict.outcome for one in (REFUSED, OTHER, PROMOTED)] == ["refuse", "refuse", "promote"]
    assert REFUSED.verdict.metrics != OTHER.verdict.metrics


@pytest.mark.parametrize("where", [*PUBLISHING, "pictures"])
def test_what_is_published_of_a_refused_challenger_does_not_depend_on_its_answers(where: str) -> None:
    publish = (PUBLISHING | {"pictures": pictures})[where]
    first, other = (publish(published(measured(one), may_serve=False)) for one in (REFUSED, OTHER))
    assert first == other
    assert first != publish(measured(REFUSED)), "else this test would pass for what shows no number at all"


@pytest.mark.parametrize("where", PUBLISHING)
def test_no_number_of_the_test_split_is_published_of_a_refused_challenger(where: str) -> None:
    whole = REFUSED.verdict.to_dict()
    assert not told_of(whole, PUBLISHING[where](published(measured(REFUSED), may_serve=False)))


def test_a_refused_challenger_is_told_of_by_its_numbers_out_of_fold() -> None:
    sealed = published(measured(REFUSED), may_serve=False)
    shown = page(sealed)
    assert words.number(sealed.out_of_fold.macro_f1) in shown
    assert "The numbers of the test split are sealed." in shown
    assert "Look 3 at a test split of 88 queries and 611 pairs, at level 0.0029; 41 % of the error" in shown
    assert "refused: it is cheaper (20% less memory), but the test split does not rule" in sealed.verdict["reason"]
    assert [check["name"] for check in sealed.verdict["checks"]] == ["budget"]
    assert leaderboard(sealed)["split"].unique().tolist() == ["blend"]
    assert leaderboard(sealed)["macro_f1"][0] == sealed.out_of_fold.macro_f1
    assert sealed == published(sealed, may_serve=False) == Summary.from_json(sealed.to_json())


def test_of_a_challenger_that_may_serve_all_is_told_but_models_that_are_no_members() -> None:
    whole = measured(PROMOTED)
    told = published(whole, may_serve=True)
    assert not told.sealed
    assert (told.ensemble, told.champion, told.confusion) == (whole.ensemble, whole.champion, whole.confusion)
    assert {model.name: model.test is None for model in told.models} == {
        "minilm-l6": False, "gatv2-clicks": False, "e5-small": False, "sage-impressions": True, "gcn-purchases": True,
        "minilm-l3": True,
    }  # fmt: skip
    [check] = [one for one in told.verdict["checks"] if one["name"] == "the best model alone"]
    assert (check["passed"], check["value"]) == (True, None)
    assert f"against {OUTSIDER} alone, the best model, which is no member: it is not shown to be worse" in str(check)
    outsider = next(model for model in told.models if model.name == "sage-impressions")
    assert words.alone_text(told, outsider, "macro_f1") == f"({words.number(outsider.blend.macro_f1)})"
    secret = {f"{value:.4f}" for value in numbers(PROMOTED.alone[OUTSIDER])}
    shown = page(told)
    assert not [number for number in secret if number in shown]
    assert told_of(PROMOTED.verdict.to_dict(), shown)


def test_what_an_earlier_release_wrote_is_sealed_when_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    for held, version, sealed in ((REFUSED, "", True), (REFUSED, "3", True), (PROMOTED, "", False)):
        old = asdict(measured(held, ensemble_version=version))
        old = {name: value for name, value in old.items() if name != "sealed" and not name.startswith("out_of_fold")}
        file.write_text(json.dumps(old), encoding="utf-8")
        found = read(file)
        assert found.sealed == sealed
        assert bool(told_of(held.verdict.to_dict(), page(found))) == (not sealed)
    assert "The numbers of the test split are sealed." in page(read(file)) or not read(file).sealed


def test_a_first_champion_of_an_earlier_release_is_told_where_it_is_known_to_be_registered(tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    old = asdict(measured(REFUSED, verdict={"outcome": "not_evaluable", "missing": ["champion"], "checks": []}))
    del old["sealed"]
    file.write_text(json.dumps(old), encoding="utf-8")
    assert (read(file).sealed, read(file, registered=True).sealed) == (True, False)
