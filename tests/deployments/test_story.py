"""The main use case from end to end: a first champion, a repeated run, a new candidate, a rollback."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LOAD = """
import sys, mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
frame = pd.DataFrame({
    "query": ["red bottle", "lampara"], "product_locale": ["us", "es"], "product_title": ["Velo red bottle", None],
})
answer = mlflow.pyfunc.load_model("models:/esci-ensemble@champion").predict(frame)
print(answer.to_json(orient="records"))
"""

# What people who know MLflow alone do with a model
USE = """
import json, sys, mlflow, pandas as pd
from fastapi.testclient import TestClient
from mlflow.pyfunc.scoring_server import init

mlflow.set_tracking_uri(sys.argv[1])
uri = "models:/esci-ensemble@champion"
model = mlflow.pyfunc.load_model(uri)
columns = {"query": ["red bottle", "lampara"], "product_locale": ["us", "es"], "product_title": ["Velo bottle", "x"]}
rows = pd.DataFrame(columns).to_dict("records")
sparse = pd.DataFrame(columns).assign(product_id=[7, 8], product_brand=[None, float("nan")], price=[1, 2])
client = TestClient(init(model))
bodies = {
    "inputs": columns, "instances": rows, "dataframe_records": rows,
    "dataframe_split": pd.DataFrame(columns).to_dict("split"),
}
served = {name: client.post("/invocations", json={name: body}) for name, body in bodies.items()}
labels = mlflow.pyfunc.load_model(uri, model_config={"answer": "label"})
data = pd.DataFrame(columns).assign(truth=["E", "I"])
measured = mlflow.models.evaluate(
    labels, data, targets="truth", model_type="classifier",
    evaluator_config={"log_model_explainability": False, "label_list": list("CEIS")},
)
print(json.dumps({
    "optional": model.metadata.get_input_schema().optional_input_names(),
    "outputs": model.metadata.get_output_schema().input_names(),
    "example": model.predict(model.input_example)["label"].tolist(),
    "frame": model.predict(pd.DataFrame(columns))["label"].tolist(),
    "columns": model.predict(columns)["label"].tolist(),
    "rows": model.predict(rows)["label"].tolist(),
    "sparse": len(model.predict(sparse)),
    "served": {name: [row["label"] for row in answer.json()["predictions"]] for name, answer in served.items()},
    "accuracy": measured.metrics["accuracy_score"],
    "requirements": mlflow.pyfunc.get_model_dependencies(uri, "pip"),
}))
"""


def test_first_tournament_installs_a_champion(held):
    document = held.document
    assert document["promoted"]
    assert document["verdict"]["outcome"] == "not_evaluable"
    assert "champion" in document["verdict"]["missing"]
    assert {model["status"] for model in document["models"]} <= {"member", "evicted"}
    assert Path(document["report"]).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert Path(document["data_docs"]).is_file()


def test_champion_loads_from_another_folder_in_a_fresh_process(held, tmp_path, tournament, clean_environment):
    shown = tournament("champion", "show", "--home", held.home, "--json").document
    done = subprocess.run(
        [sys.executable, "-c", LOAD, shown["tracking_uri"]],
        cwd=tmp_path,
        env=clean_environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [sorted(row) for row in rows] == [["C", "E", "I", "S", "label"]] * 2
    card = next(Path(held.home).glob("stages/ensemble-*/**/aggregator/aggregator.json"))
    offsets = dict(zip("ESCI", json.loads(card.read_text(encoding="utf-8"))["offsets"], strict=True))
    for row in rows:
        assert sum(row[label] for label in "ESCI") == pytest.approx(1, abs=1e-5)
        assert row["label"] == max("ESCI", key=lambda label: math.log(row[label]) + offsets[label])


def test_the_champion_is_a_model_like_any_other_to_mlflow(held, tmp_path, tournament, clean_environment):
    """F07: signature, example, every form of input, the scoring server, evaluation, and what its environment needs."""
    shown = tournament("champion", "show", "--home", held.home, "--json").document
    done = subprocess.run(
        [sys.executable, "-c", USE, shown["tracking_uri"]],
        cwd=tmp_path,
        env=clean_environment | {"MLFLOW_EXPERIMENT_NAME": "somebody's"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"product_id", "product_title", "product_brand"} <= set(found["optional"])
    assert found["outputs"] == [*"ESCI", "label"]
    assert len(found["example"]) == found["sparse"] == 2
    labels = found["frame"]
    assert found["columns"] == found["rows"] == labels
    assert found["served"] == dict.fromkeys(("inputs", "instances", "dataframe_records", "dataframe_split"), labels)
    assert found["accuracy"] == sum(map(str.__eq__, labels, "EI")) / 2
    needed = Path(found["requirements"])
    wheel, *pinned = needed.read_text(encoding="utf-8").split()
    assert all("==" in line and "+" not in line for line in pinned)
    assert zipfile.is_zipfile(needed.parent / wheel)


def test_second_run_trains_nothing_and_ends_within_a_minute(held, tournament):
    begun = time.monotonic()
    answer = tournament("run", "--home", held.home, "--data", held.data, "--candidates", held.specs, "--json")
    assert answer.code == 0, answer.err
    assert time.monotonic() - begun < 60
    assert answer.document["unchanged"]
    assert answer.document["tournament"] == held.document["tournament"]
    assert "trained and scored" not in answer.err


def test_newcomer_meets_the_champion_and_a_rollback_takes_it_back(held, tournament, newcomer):
    assert tournament("register", newcomer, "--home", held.home).code == 0
    answer = tournament("run", "--home", held.home, "--data", held.data, "--json")
    assert answer.code == 0, answer.err
    document = answer.document
    entries = {model["name"]: model["entry"] for model in document["models"]}
    assert entries.pop("sage-clicks") == "candidate"
    assert set(entries.values()) == {"incumbent"}
    assert document["verdict"]["outcome"] in ("promote", "refuse")
    assert document["verdict"]["look"] == 1
    history = tournament("champion", "history", "--home", held.home, "--json").document
    assert len(history) == 1 + document["promoted"]
    if document["promoted"]:
        back = tournament("champion", "rollback", "--home", held.home, "--reason", "a test")
        assert back.code == 0
        assert f"MLflow: sqlite:///{held.home / 'mlflow.db'} (in the home)" in back.out
        assert tournament("champion", "show", "--home", held.home, "--json").document["version"] == 1
