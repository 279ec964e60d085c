"""docs/candidates.md: its specs are valid, and its plug-in competes when installed as a distribution."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.registry.models import Models
from esci_tournament.registry.scores import ScoreStore
from esci_tournament.registry.settings import read_settings
from esci_tournament.registry.specs import parse_spec, read_specs
from esci_tournament.registry.stages import StageStore
from esci_tournament.tasks.candidates.enter import check_spec
from esci_tournament.tasks.candidates.steps import CandidateInputs, content_digest, score
from esci_tournament.tasks.candidates.supervise import supervise
from esci_tournament.tasks.data.dataset import query_keys
from esci_tournament.tasks.data.plans import write_plans
from esci_tournament.tasks.data.split import assign_roles, fit_plans
from esci_tournament.tasks.data.store import save_dataset
from tests.harness import clean_environment
from tests.plugins import install

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "candidates.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
SPECS = [text for language, text in BLOCKS if language == "toml" and "[[candidate]]" in text]
(CODE,) = [text for language, text in BLOCKS if "class WordOverlap:" in text]
(ENTRY_POINTS,) = [text for language, text in BLOCKS if "entry-points" in text]
MADE = """
from tests.docs.compatibility.flavours import LETTERS, classifier, sklearn_model

pipe, model = classifier(LETTERS), sklearn_model()
"""
FAMILIES = {"language_model", "graph_network", "pair_features", "scores", "pyfunc", "word_overlap"}


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """Install the guide's plug-in, or `code`, for this process and for those it starts."""

    def put(code: str = CODE, version: str = "1.0") -> None:
        folder = tmp_path / f"site-{version}"
        folder.mkdir()
        install(folder, "word_overlap", code, ENTRY_POINTS, version)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", str(folder))

    yield put
    sys.modules.pop("word_overlap", None)


def read(text: str, folder: Path):
    (folder / "guide.toml").write_text(text, encoding="utf-8")
    return read_specs(folder / "guide.toml")


def test_every_spec_of_the_guide_is_one_and_every_family_has_one(plug_in, tmp_path):
    plug_in()
    assert {spec.family for text in SPECS for spec in read(text, tmp_path)} == FAMILIES


def test_the_plug_in_of_the_guide_is_short():
    assert len(CODE.splitlines()) < 60


def test_the_held_out_queries_of_the_guide_are_those_of_the_split(tiny_dataset):
    (text,) = [text for language, text in BLOCKS if "def held_out" in text]
    scope: dict = {}
    exec(text, scope)
    roles = assign_roles(tiny_dataset, "blend", 0.25, 0.1, 5)
    told = scope["held_out"](tiny_dataset.pairs["query"], tiny_dataset.pairs["locale"])
    free = ~roles["role"].isin(["test", "quarantine"])
    assert (told[free] == (roles["role"] == "blend")[free]).all()
    assert len(query_keys([], [])) == 0


@pytest.fixture
def compete(tiny_dataset, tmp_path):
    """Return how a spec fares through the steps of a tournament: its failures and its scores."""
    roles = assign_roles(tiny_dataset, "blend", 0.25, 0.1, 5)
    for name in ("dataset", "roles"):
        (tmp_path / name).mkdir()
    save_dataset(tiny_dataset, tmp_path / "dataset")
    write_plans(tmp_path / "roles", roles, fit_plans(tiny_dataset, roles, "blend", 0.1))

    def run(spec, **limits):
        check_spec(spec)
        inputs = CandidateInputs(f"{spec.name}/1", spec, content_digest(spec), tiny_dataset.version, "roles", 0, "cpu")
        failures = supervise(
            [(inputs, "train"), (inputs, "profile")],
            dataset=tmp_path / "dataset",
            roles=tmp_path / "roles",
            stages=StageStore(tmp_path / "stages"),
            scores=tmp_path / "scores",
            log=tmp_path / "log",
            threads=1,
            **limits,
        )
        return failures, ScoreStore(tmp_path / "scores").list()

    return run


@pytest.mark.slow
def test_the_plug_in_of_the_guide_competes(plug_in, compete, tmp_path):
    plug_in()
    (spec,) = read(SPECS[-1], tmp_path)
    failures, scores = compete(spec)
    assert failures == {}
    assert [one["candidate"] for one in scores] == ["overlap/1"]


LOSERS = {
    "constant": ("self.mix[0][None].repeat(len(pairs), 0)", r"its scores are constant, \(.*\) for each of"),
    "three classes": ("self.mix[:, :3][self._bins(pairs, products)]", r"it answers with 3 classes .* there are 4"),
    "five classes": ("np.ones((len(pairs), 5), 'f') / 5", r"it answers with 5 classes"),
    "no classes": ("np.ones(len(pairs), 'f')", r"it answers with no classes"),
    "a row too few": ("self.mix[self._bins(pairs, products)][1:]", r"it must give one row per pair"),
    "not a number": ("self.mix[self._bins(pairs, products)] * np.nan", r"are not finite"),
}


@pytest.mark.slow
@pytest.mark.parametrize("answer", LOSERS)
def test_who_answers_something_else_loses_with_a_reason(answer, plug_in, tmp_path, tiny_dataset):
    code, complaint = LOSERS[answer]
    plug_in(CODE.replace("self.mix[self._bins(pairs, products)]\n", f"{code}\n", 1))
    (spec,) = read(SPECS[-1], tmp_path)
    roles = assign_roles(tiny_dataset, "blend", 0.25, 0.1, 5)
    inputs = CandidateInputs("overlap/1", spec, "", tiny_dataset.version, "roles", 0, "cpu")
    store = ScoreStore(tmp_path / "scores")
    with pytest.raises(CandidateError, match=complaint):
        score(
            inputs, fit_plans(tiny_dataset, roles, "blend", 0.1), tiny_dataset, StageStore(tmp_path / "stages"), store
        )
    assert store.list() == []


@pytest.mark.slow
def test_who_takes_more_memory_than_allowed_loses_with_a_reason(plug_in, compete, tmp_path):
    greedy = "        hoard = [np.ones(2**24) for _ in range(64)]\n        import time; time.sleep(60)\n"
    plug_in(CODE.replace("    def fit(self, data):\n", f"    def fit(self, data):\n{greedy}", 1))
    (spec,) = read(SPECS[-1], tmp_path)
    failures, scores = compete(spec, memory_gib=2.0)
    assert re.search(r"more than 2 GiB \(setting candidate_memory_gib\)", failures["overlap/1"])
    assert scores == []


def test_a_wrong_value_of_a_plugged_in_spec_is_named(plug_in):
    plug_in()
    with pytest.raises(SpecError, match=r"bins: .*\(got 1\)"):
        parse_spec({"name": "x", "family": "word_overlap", "bins": 1})
    with pytest.raises(SpecError, match="unknown key 'bin'"):
        parse_spec({"name": "x", "family": "word_overlap", "bin": 3})


def test_another_release_of_a_plug_in_makes_another_candidate(plug_in, tmp_path):
    plug_in()
    (spec,) = read(SPECS[-1], tmp_path)
    first = content_digest(spec)
    plug_in(version="2.0")
    assert "" != first != content_digest(spec)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda code: "import no_such_module\n" + code, "word-overlap 1.0 .* cannot be imported .*no_such_module"),
        (lambda code: code.replace("spec_class", "spec_type"), "needs an attribute spec_class"),
        (lambda code: code.replace("def parameters", "def size"), "has no parameters"),
    ],
    ids=["import", "spec", "protocol"],
)
def test_a_plug_in_that_is_none_is_named(plug_in, change, complaint):
    plug_in(change(CODE))
    with pytest.raises(SpecError, match=complaint):
        parse_spec({"name": "x", "family": "word_overlap"})


@pytest.mark.slow
def test_the_snippets_for_mlflow_make_candidates(tmp_path, empty_mlflow):
    """As somebody runs them who has MLflow alone; what the guide calls pipe and model is made here."""
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow)
    snippets = [text for language, text in BLOCKS if language == "python" and "tournament.spec" in text]
    assert len(snippets) == 2
    (tmp_path / "guide.py").write_text("\n".join([MADE, *snippets]), encoding="utf-8")
    models = Models(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    here = clean_environment(MLFLOW_TRACKING_URI=models.tracking_uri, PYTHONPATH=str(GUIDE.parents[1]))
    done = subprocess.run([sys.executable, "guide.py"], cwd=tmp_path, env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    encoder, pipeline = models.candidates(with_metrics=False)
    assert (encoder.id, encoder.complaint) == ("ESCI Cross-Encoder v2/1", "")
    assert encoder.spec.checkpoint == "models:/ESCI Cross-Encoder v2/1"
    assert (pipeline.id, pipeline.complaint, pipeline.spec.order) == ("house-relevance/1", "", "CEIS")
    settings = read_settings(home=tmp_path, allowed_pyfunc_sources=["models:/"])
    for one in (encoder, pipeline):
        check_spec(one.spec, settings)
