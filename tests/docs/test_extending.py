"""docs/extending.md: each example works when installed as its own distribution."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esci_tournament.registry.errors import CandidateError, SpecError, UsageError
from esci_tournament.registry.scores import ScoreStore
from esci_tournament.registry.specs import parse_spec, read_specs
from esci_tournament.registry.stages import StageStore
from esci_tournament.tasks.candidates.enter import check_spec
from esci_tournament.tasks.candidates.provenance import EDGES
from esci_tournament.tasks.candidates.steps import FULL, CandidateInputs, content_digest, score
from esci_tournament.tasks.data.behaviour import PRODUCT_EDGE_COLUMNS, QUERY_EDGE_COLUMNS, edges
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.relations import BUILT_IN, names, release_of_relation
from esci_tournament.tasks.data.split import assign_roles, fit_plans, held_out_keys
from tests.plugins import install

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
CODE = {re.match(r'"""(\w+)\.py:', text).group(1): text for language, text in BLOCKS if language == "python"}
LINES = [text for language, text in BLOCKS if "entry-points" in text]
POINTS = [tomllib.loads(text)["project"]["entry-points"] for text in LINES]
(SPECS,) = [text for language, text in BLOCKS if "[[candidate]]" in text]
NOBODY = np.zeros(0, np.uint64)


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    def put(module: str, code: str = "", version: str = "1.0") -> None:
        folder = tmp_path / f"{module}-{version}"
        folder.mkdir()
        (line,) = [text for text in LINES if f"\n{module} = " in text]
        install(folder, module, code or CODE[module], line, version)
        monkeypatch.syspath_prepend(str(folder))

    yield put
    for module in CODE:
        sys.modules.pop(module, None)


def specs(folder: Path) -> dict:
    (folder / "guide.toml").write_text(SPECS, encoding="utf-8")
    return {spec.name: spec for spec in read_specs(folder / "guide.toml")}


def test_every_example_has_its_line() -> None:
    assert {name for one in POINTS for entries in one.values() for name in entries} == set(CODE)


def test_the_guide_to_candidates_lists_the_relations() -> None:
    text = (GUIDE.parent / "candidates.md").read_text(encoding="utf-8")
    listed = text[text.index("Relations: ") :].partition(".")[0].removeprefix("Relations: ")
    assert re.findall(r"\w+", listed) == [one.name for one in BUILT_IN]


@pytest.mark.slow
def test_the_examples_compete(plug_in, tiny_dataset: Dataset, tmp_path: Path) -> None:
    for module in CODE:
        plug_in(module)
    plans = fit_plans(tiny_dataset, assign_roles(tiny_dataset, "blend", 0.25, 0.1, 5), "blend", 0.1)
    stages, scores = StageStore(tmp_path / "stages"), ScoreStore(tmp_path / "scores")
    for name, spec in specs(tmp_path).items():
        check_spec(spec)
        inputs = CandidateInputs(f"{name}/1", spec, content_digest(spec), tiny_dataset.version, "roles", 0, "cpu")
        score(inputs, plans, tiny_dataset, stages, scores)
        seen = np.load(stages.find(inputs.train_key(stages, FULL)) / EDGES)
        assert not np.isin(seen, held_out_keys(tiny_dataset.pairs, plans[0])).any()
        assert (len(seen) > 0) == (name == "popular")  # a color tells of no query
    assert {one["candidate"] for one in scores.list()} == {"gat-color/1", "popular/1"}


def test_edges_of_a_plugged_in_relation_are_those_of_any_other(plug_in, tiny_dataset: Dataset) -> None:
    plug_in("same_color")
    found = edges(tiny_dataset, "same_color", NOBODY)
    assert tuple(found.columns) == PRODUCT_EDGE_COLUMNS
    assert len(found) > 0
    there = set(map(tuple, found[["source", "product"]].to_numpy().tolist()))
    assert {(product, source) for source, product in there} == there
    color = tiny_dataset.products["color"].to_numpy(object)
    assert (color[found["source"]] == color[found["product"]]).all()
    assert names() == (*(one.name for one in BUILT_IN), "same_color")


LEAKY = """
import numpy as np
from esci_tournament.tasks.data.relations import RelationType

SHOWN = []
RELATION = RelationType("same_color", "query", build="same_color:edges")
KEEP = None


def edges(dataset):
    SHOWN.append(dataset)
    return KEEP.assign(weight=1.0)[["query", "locale", "query_key", "product", "weight"]]
"""


def test_a_function_is_shown_no_label_and_nothing_that_is_held_out(plug_in, tiny_dataset: Dataset) -> None:
    plug_in("same_color", LEAKY)
    held_out = tiny_dataset.pairs["query_key"].unique()[:30]
    import same_color

    same_color.KEEP = tiny_dataset.pairs  # it remembers what it is not shown
    found = edges(tiny_dataset, "same_color", held_out)
    (shown,) = same_color.SHOWN
    assert "label" not in shown.pairs
    for frame in (shown.pairs, shown.events, found):
        assert len(frame) > 0
        assert not np.isin(frame["query_key"], held_out).any()
        assert not np.isin(frame["query_key"], tiny_dataset.pairs.query("split == 'test'")["query_key"]).any()
    assert tuple(found.columns) == QUERY_EDGE_COLUMNS


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        (lambda code: "import no_such_module\n" + code, UsageError, r"same-color 1\.0: cannot be imported"),
        (lambda code: code.replace('"same_color", "product"', '"other", "product"'), UsageError, "no RelationType of"),
        (lambda code: code.replace('"weight": 1.0', '"heft": 1.0'), CandidateError, "have no column weight"),
        (lambda code: code.replace('"weight": 1.0', '"weight": 0.0'), CandidateError, "no weight above 0"),
        (lambda code: code.replace("following,", "following + 10**6,"), CandidateError, "no product of the catalogue"),
    ],
    ids=["import", "name", "column", "weight", "product"],
)
def test_a_relation_that_is_none_is_named(plug_in, tiny_dataset: Dataset, change, error, complaint) -> None:
    plug_in("same_color", change(CODE["same_color"]))
    with pytest.raises(error, match=complaint):
        edges(tiny_dataset, "same_color", NOBODY)


def test_another_release_of_a_relation_makes_another_candidate(plug_in, tmp_path: Path) -> None:
    content = {"name": "x", "family": "graph_network", "architecture": "gcn", "relation": "same_color"}
    with pytest.raises(SpecError, match=r"relation: .*\(got 'same_color'\)"):
        parse_spec(content)
    plug_in("same_color")
    spec = parse_spec(content)
    first = content_digest(spec)
    assert release_of_relation("same_color") == "same-color 1.0"
    plug_in("same_color", version="2.0")
    assert "" != first != content_digest(spec)
    assert content_digest(spec.model_copy(update={"relation": "clicks"})) == ""


def test_behaviour_counts_for_who_it_is_about(plug_in, tiny_dataset: Dataset) -> None:
    plug_in("same_color")
    quiet = replace(tiny_dataset, events=None)
    pd.testing.assert_frame_equal(edges(quiet, "same_color", NOBODY), edges(tiny_dataset, "same_color", NOBODY))
