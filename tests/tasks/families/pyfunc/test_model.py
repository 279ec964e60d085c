"""Pyfuncs: run only from allowed sources, in a separate process, within limits on time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.registry.settings import read_settings
from esci_tournament.tasks.candidates.enter import check_spec
from esci_tournament.tasks.candidates.memory import GIB
from esci_tournament.tasks.candidates.supervise import worker_environment
from esci_tournament.tasks.families.protocol import FitData
from esci_tournament.tasks.families.pyfunc.model import Pyfunc
from esci_tournament.tasks.families.pyfunc.process import ModelProcess, ProcessLimits
from esci_tournament.tasks.families.pyfunc.sources import check_source
from esci_tournament.tasks.families.pyfunc.spec import PyfuncSpec

PAIRS = pd.DataFrame({"query": ["lamp", "red lamp"], "locale": ["us", "us"], "product": np.int32([1, 0])})
PRODUCTS = pd.DataFrame(
    {name: [f"{name} 0", f"{name} 1"] for name in ("product_id", "title", "brand", "color", "bullets", "description")}
    | {"locale": "us"}
)
# A class, not a script: MLflow pickles an instance, so opening the model unpickles it. A question is an expression.
CODE = """
import os, sys, time
import numpy as np, pandas as pd
from mlflow.pyfunc import PythonModel

class Model(PythonModel):
    def __reduce__(self):
        return _open, ()

    def predict(self, context, model_input):
        print("half a line to standard output", end="", flush=True)
        frame = model_input
        return eval(frame["query"].iloc[0], {{**globals(), "frame": frame}})

def _open():
    with open({trace!r}, "a") as trace:
        trace.write(str(os.getpid()) + chr(10))
    return Model()
"""
ALPHABETICAL = "pd.DataFrame([[0.1, 0.7, 0.15, 0.05]] * 2, columns=['complement', 'exact', 'irrelevant', 'substitute'])"
LETTERS = "pd.DataFrame({'I': [0.1, 0.1], 'C': 0.2, 'S': 0.3, 'E': 0.4})"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow", "ignore::UserWarning:mlflow"),
]


def asking(expression: str) -> pd.DataFrame:
    return PAIRS.assign(query=[expression, "red lamp"])


def declared(model: object, **more: object) -> PyfuncSpec:
    told = {"trained_on": "other_queries", "provenance": "made in a test"}
    return PyfuncSpec(name="guest", model=str(model), **told, **more)


@dataclass(frozen=True)
class Guest:
    """A model that evaluates the first query; opening it leaves the process id in the file `opened`."""

    folder: Path
    opened: Path


@pytest.fixture(scope="module")
def guest(tmp_path_factory):
    place = tmp_path_factory.mktemp("guest")
    module = place / "code" / "guest_code.py"
    module.parent.mkdir()
    module.write_text(CODE.format(trace=str(place / "opened")), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(module.parent))
        from guest_code import Model

        folder = place / "sources" / "guest"
        mlflow.pyfunc.save_model(
            str(folder), python_model=Model(), code_paths=[str(module)], pip_requirements=["numpy"]
        )
    sys.modules.pop("guest_code")
    (place / "opened").unlink(missing_ok=True)
    return Guest(folder, place / "opened")


@pytest.fixture
def fit(guest, tmp_path, monkeypatch):
    monkeypatch.setenv("TOURNAMENT_ALLOWED_PYFUNC_SOURCES", json.dumps([str(guest.folder.parent)]))
    monkeypatch.setenv("TOURNAMENT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TOURNAMENT_PYFUNC_TIMEOUT_S", "60")

    def run(folder: Path = guest.folder) -> Pyfunc:
        (tmp_path / "work").mkdir(exist_ok=True)
        data = FitData(PAIRS, asking(LETTERS), PRODUCTS, None, 0, "cpu", tmp_path / "work")
        return Pyfunc(declared(folder)).fit(data)

    return run


@pytest.fixture(scope="module")
def talker(guest):
    """The model in its process; it is started again when a question ended it."""
    model = Pyfunc(declared(guest.folder))
    model._process = ModelProcess("guest", guest.folder, ProcessLimits(4, 60), "ESCI")
    return model


def test_it_answers_from_a_process_of_its_own_before_and_after_a_move(guest, fit, tmp_path):
    guest.opened.unlink(missing_ok=True)
    model = fit()
    np.testing.assert_allclose(model.predict_proba(asking(LETTERS), PRODUCTS), [[0.4, 0.3, 0.2, 0.1]] * 2, atol=1e-6)
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    again = Pyfunc.load(tmp_path / "saved")
    question = asking(LETTERS)
    np.testing.assert_array_equal(again.predict_proba(question, PRODUCTS), model.predict_proba(question, PRODUCTS))
    openers = set(map(int, guest.opened.read_text().split()))
    assert len(openers) == 2
    assert os.getpid() not in openers
    assert model.resident_bytes() > 0.02 * GIB
    (tmp_path / "saved" / "model" / "python_model.pkl").write_bytes(b"another model")
    with pytest.raises(SpecError, match="not the model that was saved"):
        Pyfunc.load(tmp_path / "saved")


def test_it_reads_the_official_columns(talker):
    wanted = {"product_locale": "us", "product_title": "title 1", "product_bullet_point": "bullets 1", "query": "x"}
    question = f"np.stack([(frame[c] == v) * 1.0 for c, v in {wanted!r}.items()], axis=1)"
    assert talker.predict_proba(asking(question), PRODUCTS).tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("question", "complaint"),
    [
        ("np.ones((len(frame), 3)) / 3", r"asked about 2 pairs it answers with an array \(2, 3\)"),
        ("np.full((len(frame), 4), 'E')", "answers with labels such as 'E'.*predict_proba"),
        ("1 / 0", "ZeroDivisionError"),
        ("sys.exit(3)", "SystemExit: 3"),
        ("np.ones(2**31)", "out of memory.*pyfunc_memory_gib"),
        ("os._exit(5)", "its process ended with code 5 before an answer came"),
    ],
    ids=["three classes", "text", "raises", "leaves", "greedy", "dies"],
)
def test_a_model_that_does_not_answer_loses_with_a_reason(talker, question, complaint):
    with pytest.raises(CandidateError, match=complaint):
        talker.predict_proba(asking(question), PRODUCTS)


def test_an_array_without_names_is_read_in_the_declared_order_and_in_no_other(guest):
    question = asking("np.array([[0.1, 0.7, 0.15, 0.05]] * 2)")
    alphabetical = Pyfunc(declared(guest.folder, classes=("complement", "exact", "irrelevant", "substitute")))
    alphabetical._process = ModelProcess("guest", guest.folder, ProcessLimits(4, 60), alphabetical.spec.order)
    np.testing.assert_allclose(alphabetical.predict_proba(question, PRODUCTS), [[0.7, 0.05, 0.1, 0.15]] * 2)
    named = asking(ALPHABETICAL)
    np.testing.assert_allclose(alphabetical.predict_proba(named, PRODUCTS), [[0.7, 0.05, 0.1, 0.15]] * 2)
    silent = Pyfunc(declared(guest.folder))
    silent._process = ModelProcess("guest", guest.folder, ProcessLimits(4, 60), silent.spec.order)
    with pytest.raises(CandidateError, match=r"nothing tells which is which class.*declare the order"):
        silent.predict_proba(question, PRODUCTS)


def test_a_model_that_an_earlier_release_has_saved_answers_as_it_was_judged(fit, tmp_path):
    """It was read by position, whatever its columns were called."""
    (tmp_path / "saved").mkdir()
    fit().save(tmp_path / "saved")
    facts = json.loads((tmp_path / "saved" / "pyfunc.json").read_text())
    assert facts.pop("classes") == ""
    (tmp_path / "saved" / "pyfunc.json").write_text(json.dumps(facts))
    again = Pyfunc.load(tmp_path / "saved")
    for question in ("np.array([[0.1, 0.7, 0.15, 0.05]] * 2)", ALPHABETICAL):
        np.testing.assert_allclose(again.predict_proba(asking(question), PRODUCTS), [[0.1, 0.7, 0.15, 0.05]] * 2)
    np.testing.assert_allclose(again.predict_proba(asking(LETTERS), PRODUCTS), [[0.4, 0.3, 0.2, 0.1]] * 2, atol=1e-6)


@pytest.mark.parametrize("classes", [("E", "S", "C"), ("E", "S", "C", "C"), ("E", "S", "C", "LABEL_3"), list("ESCIE")])
def test_an_order_that_does_not_name_each_class_once_is_refused(classes):
    with pytest.raises(ValueError, match="classes names each of E, S, C, I once"):
        declared("/a", classes=classes)


def test_a_model_that_hangs_is_ended_and_another_process_answers_the_next_question(talker):
    talker.predict_proba(asking(LETTERS), PRODUCTS)
    talker._process.limits = ProcessLimits(4, 1.5)
    with pytest.raises(CandidateError, match=r"did not come within 1.5 s \(setting pyfunc_timeout_s\)"):
        talker.predict_proba(asking("time.sleep(600)"), PRODUCTS)
    talker._process.limits = ProcessLimits(4, 60)
    assert talker.predict_proba(asking(LETTERS), PRODUCTS).shape == (2, 4)


def test_a_worker_is_told_the_settings_that_pyfuncs_need(tmp_path, monkeypatch):
    named = {"allowed_pyfunc_sources": ["/a b", "models:/x"], "pyfunc_memory_gib": 1.5, "pyfunc_timeout_s": 7}
    settings = read_settings(home=tmp_path, mlflow_uri="http://127.0.0.1:5000", **named)
    for name, value in worker_environment(settings, ["pyfunc"]).items():
        monkeypatch.setenv(name, value)
    assert read_settings() == settings


def test_nothing_of_a_source_that_is_not_allowed_is_opened(guest, fit, monkeypatch):
    guest.opened.unlink(missing_ok=True)
    monkeypatch.setenv("TOURNAMENT_ALLOWED_PYFUNC_SOURCES", "[]")
    with pytest.raises(SpecError, match=r"allowed_pyfunc_sources"):
        fit()
    with pytest.raises(SpecError, match=r"is not allowed \(allowed: none\)"):
        check_spec(declared(guest.folder))
    assert not guest.opened.exists()


@pytest.mark.parametrize(
    ("model", "sources", "allowed"),
    [
        ("/a/b/c", ["/a/b"], True),
        ("/a/bc", ["/a/b"], False),
        ("/a/b/../c", ["/a/b"], False),
        ("models:/house/3", ["models:/house"], True),
        ("models:/household/3", ["models:/house"], False),
        ("models:/house/3", ["models:/house/3"], True),
        ("models:/house/31", ["models:/house/3"], False),
        ("models:/house/3", ["models:/"], True),
        ("models:/house/3", ["/", ""], False),
        ("/a", ["models:/", ""], False),
    ],
)
def test_a_source_is_allowed_by_whole_names(model, sources, allowed):
    if allowed:
        check_source(declared(model), sources)
    else:
        with pytest.raises(SpecError, match="is not allowed"):
            check_source(declared(model), sources)


@pytest.mark.parametrize("model", ["models:/house@champion", "models:/house/latest", "s3://house/model"])
def test_a_model_that_may_change_under_its_name_is_refused(model):
    with pytest.raises(ValueError, match=r"models:/NAME/VERSION"):
        declared(model)


def test_a_folder_that_is_no_model_is_named(guest, fit):
    (guest.folder.parent / "none").mkdir()
    with pytest.raises(SpecError, match="is no MLflow model"):
        fit(guest.folder.parent / "none")


def test_code_that_a_model_brings_is_not_compiled_into_its_folder(fit, tmp_path: Path) -> None:
    fit().save(tmp_path / "saved")
    assert list(tmp_path.rglob("guest_code.py"))
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="this system shows no environment")
def test_it_finds_no_password_in_the_environment_of_any_of_its_ancestors(guest, tmp_path):
    """X3: it read MLFLOW_TRACKING_PASSWORD and the ledger's URL in /proc/PPID/environ.

    The processes between it and this test are two, each started with the passwords: the command line, and the worker of
    a candidate.
    """
    question = (
        "(lambda up: np.full((len(frame), 4), 1.0 * sum("
        "b'S3cretPw' in open(f'/proc/{n}/environ', 'rb').read() for n in up(up, os.getpid()))))"
        "(lambda up, n: [n] + up(up, int(open(f'/proc/{n}/stat').read().rpartition(')')[2].split()[1]))"
        " if n > 1 else [])"
    )
    inner = f"""
import sys
from pathlib import Path
import pandas as pd
from esci_tournament.tasks.families.pyfunc.process import ModelProcess, ProcessLimits
process = ModelProcess("guest", Path({str(guest.folder)!r}), ProcessLimits(4, 60), "ESCI")
print("found", process.ask(pd.DataFrame({{"query": [{question!r}] * 2}})).tolist())
"""
    outer = f"""
import subprocess, sys
from esci_tournament.registry.secrecy import hide_environment
hide_environment()
sys.exit(subprocess.run([sys.executable, "-c", {inner!r}]).returncode)
"""
    secrets = {"MLFLOW_TRACKING_PASSWORD": "S3cretPw", "TOURNAMENT_LEDGER_URL": "postgresql://a:S3cretPw@b/c"}
    run = subprocess.run(
        [sys.executable, "-c", outer],
        env=os.environ | secrets,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "found [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]" in run.stdout, run.stderr


def test_a_channel_that_is_flooded_and_an_answer_that_is_a_link_are_refused(talker):
    flood = "[os.write(n, b'x' * 200000) for n in range(3, 12) if os.path.exists(f'/proc/self/fd/{n}')]"
    with pytest.raises(CandidateError, match=r"guest: .*(protocol|ended)"):
        talker.predict_proba(asking(flood), PRODUCTS)
    link = "[os.symlink('/etc/passwd', f'answer-{n}.npy') for n in range(2, 9)]"
    with pytest.raises(CandidateError):
        talker.predict_proba(asking(link), PRODUCTS)
    for _ in range(3):
        talker._process._kill()
        with contextlib.suppress(CandidateError):
            assert talker.predict_proba(asking(LETTERS), PRODUCTS).shape == (2, 4)
