"""Learning curves: a panel for each model that has any, whatever was not measured."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

from esci_tournament.tasks.report.curve_figures import MOST_PANELS, learning_curves, with_curves
from esci_tournament.tasks.report.summary import Summary
from tests.tasks.report.conftest import build


def texts(svg: bytes) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(svg).iter() if one.tag.endswith("text")]


def test_models_without_a_curve_have_no_panel() -> None:
    first, second, *others = build().models
    bare = [replace(one, curves={"train_loss": [None]}) for one in others]
    odd = replace(second, name="<odd>", curves={"validation_kappa": [0.1, None, float("nan"), 0.3]})
    drawn = texts(learning_curves(build(models=[first, odd, *bare])))
    assert [one for one in drawn if one.endswith((" v1", " v3"))] == ["minilm-l6 v3", "<odd> v1"]
    assert "validation kappa (right)" in drawn
    assert "training loss (left)" in drawn
    assert learning_curves(build(models=bare)) is None


def test_a_page_of_many_models_stays_small() -> None:
    summary = build(models=build().models * 15)
    assert len(with_curves(summary)) == 15
    assert texts(learning_curves(summary)).count("epoch") == MOST_PANELS


def test_a_summary_without_curves_reads_and_writes_as_that_of_an_earlier_release() -> None:
    old = build(models=[replace(model, curves={}) for model in build().models], examples={})
    assert not {"curves", "examples", "review"} & set(old.to_json().replace('"', " ").split())
    assert Summary.from_json(old.to_json()) == old
    assert Summary.from_json(build(review=7).to_json()) == build(review=7)
