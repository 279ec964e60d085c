"""docs/extending.md: its metric and its selection rule, installed unchanged, are used for decisions."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.settings import read_settings
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.case import digest_of
from esci_tournament.tasks.ensemble.counts import influence_of, metric_of
from esci_tournament.tasks.ensemble.judge import JudgeInput, JudgeSettings, judge
from esci_tournament.tasks.ensemble.select import select
from esci_tournament.tasks.ensemble.trial import Trial
from esci_tournament.tasks.report.page import render
from esci_tournament.tasks.report.summarise import sides
from esci_tournament.tasks.report.table import as_markdown
from tests.plugins import install
from tests.tasks.report.conftest import build as build_summary

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
METRIC = JudgeSettings(primary_metric="balanced_accuracy", resamples=500, threads=1)


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """Install the plug-in of the guide whose module has this name; `change` edits its code first."""
    names = []

    def put(module: str, change=lambda code: code, version: str = "1.0") -> None:
        found = re.search(rf'```python\n("""{module}\.py.*?)```\n\n```toml\n(.*?)```', GUIDE, re.DOTALL)
        folder = tmp_path / f"{module}-{version}"
        folder.mkdir()
        install(folder, module, change(found[1]), found[2], version)
        monkeypatch.syspath_prepend(str(folder))
        sys.modules.pop(module, None)
        names.append(module)

    yield put
    for name in names:
        sys.modules.pop(name, None)


def make_case(queries: int = 400) -> JudgeInput:
    """A challenger that knows more than the champion, on labels of which half are Exact."""
    random = np.random.default_rng(5)
    labels = random.choice(4, p=[0.5, 0.25, 0.15, 0.1], size=queries * 8).astype(np.int8)
    said = [np.where(random.random(len(labels)) < right, labels, 0) for right in (0.9, 0.6)]
    ours, theirs = (np.eye(4, dtype=np.float32)[one] for one in said)
    groups = np.repeat(np.arange(queries, dtype=np.uint64), 8)
    return JudgeInput.from_probabilities(labels, groups, np.full(len(labels), "us"), ours, theirs)


def test_a_metric_decides_what_the_judge_promotes(plug_in):
    plug_in("balanced_accuracy")
    assert read_settings(primary_metric="balanced_accuracy").primary_metric == "balanced_accuracy"
    case = make_case()
    verdict = judge(case, METRIC)
    assert verdict.outcome == "promote"
    assert "balanced_accuracy changes by +" in verdict.reason
    truth = np.repeat(np.arange(4), case.challenger.sum(axis=(0, 2)))
    said = np.concatenate([np.repeat(np.arange(4), row) for row in case.challenger.sum(axis=0)])
    assert verdict.metric("balanced_accuracy").challenger == pytest.approx(balanced_accuracy_score(truth, said))
    assert {"accuracy", "macro_f1", "weighted_f1", "balanced_accuracy in locale us"} <= {c.name for c in verdict.checks}


def test_its_influences_are_its_derivatives(plug_in):
    plug_in("balanced_accuracy")
    counts = np.random.default_rng(0).integers(1, 9, size=(50, 4, 4))
    whole, moved = counts.sum(axis=0), influence_of("balanced_accuracy", counts)
    for query in range(50):
        change = metric_of("balanced_accuracy", whole + 1e-6 * counts[query]) - metric_of("balanced_accuracy", whole)
        assert moved[query] == pytest.approx(change / 1e-6, abs=1e-5)


def test_it_stands_in_the_report_beside_the_others(plug_in):
    plug_in("balanced_accuracy")
    case = make_case()
    trial = Trial(judge(case, METRIC), confusion=case.challenger.sum(axis=0).tolist(), alone={})
    summary = build_summary()
    models = [one and replace(one, test=one.test and replace(one.test, others={METRIC.primary_metric: 0.5}))
              for one in summary.models]  # fmt: skip
    settings = summary.settings | {"primary_metric": METRIC.primary_metric}
    summary = replace(summary, models=models, settings=settings, **sides(trial))
    value = f"{trial.verdict.metric('balanced_accuracy').challenger:.3f}"
    for told in (render(summary), as_markdown(summary)):
        assert "alanced accuracy" in told
        assert value in told


def test_another_version_of_a_metric_is_another_verdict(plug_in):
    plug_in("balanced_accuracy")
    first = digest_of(make_case().canonical(), METRIC)
    plug_in("balanced_accuracy", version="2.0")
    assert digest_of(make_case().canonical(), METRIC) != first


@pytest.mark.parametrize(
    ("wrong", "words"), [("axis=0) / np", "fails on counts of shape"), ("axis=-1) * np.nan / np", "one finite number")]
)
def test_a_metric_that_gives_no_number_is_refused(wrong, words, plug_in):
    plug_in("balanced_accuracy", lambda code: code.replace("axis=-1) / np", wrong))
    with pytest.raises(UsageError, match=words):
        metric_of("balanced_accuracy", np.ones((3, 4, 4)))


class Sums:
    """A game in which a set is worth the sum of its members' digits."""

    members = ("m1", "m2", "m3", "m4")

    def __init__(self):
        self.values, self.refits = {}, 0

    def value(self, subset):
        return self.values.setdefault(frozenset(subset), sum(int(name[1]) for name in subset))

    def utility(self, subset):
        return {name: int(name[1]) / self.value(subset) for name in subset}


def test_a_selection_rule_chooses_under_the_budget(plug_in):
    plug_in("best_pair")
    assert read_settings(selection="best_pair").selection == "best_pair"
    costs = {name: Cost(float(name[1]), 1.0) for name in Sums.members}
    chosen = select(Sums(), costs, Budget(memory_mib=6.0), "best_pair")
    assert chosen.rule == "best_pair"
    assert chosen.kept == ("m2", "m4")
    assert chosen.path[0].action == "best of 6 pairs"


def test_a_rule_that_keeps_what_it_may_not_is_refused(plug_in):
    plug_in("best_pair", lambda code: code.replace("and search.fits(pair)", ""))
    costs = {name: Cost(float(name[1]), 1.0) for name in Sums.members}
    with pytest.raises(UsageError, match="kept m3, m4: it has to keep eligible models within the budget"):
        select(Sums(), costs, Budget(memory_mib=6.0), "best_pair")


@pytest.mark.parametrize("setting", ["primary_metric", "selection"])
def test_a_name_that_nobody_offers_is_refused_with_those_that_are_there(setting, plug_in):
    plug_in("best_pair")
    with pytest.raises(UsageError, match=f"setting {setting}: .*nonsense.*choose one of"):
        read_settings(**{setting: "nonsense"})
