"""A champion registered by version 0.1.0, before its modules were moved into one package, still loads.

`champion_0_1_0.zip` holds what that code wrote: the pyfunc model of an ensemble of a language model and a graph
network (`ensemble/`), rows of its world (`frame.json`), and its predictions for them (`predictions.json`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from esci_tournament.deployments.mlflow_plugin import FORMER_LOADER, no_repository

KEPT = Path(__file__).with_name("champion_0_1_0.zip")
LOAD = """
import sys, json
import mlflow.pyfunc, pandas as pd
frame = pd.DataFrame(json.load(open(sys.argv[1] + "/frame.json")))
print(mlflow.pyfunc.load_model(sys.argv[1] + "/ensemble").predict(frame).to_json(orient="records"))
"""


def test_a_champion_of_0_1_0_is_loaded_by_mlflow_alone_beside_a_users_own_deployments(tmp_path: Path) -> None:
    """Plain MLflow, in a folder whose files have the names that our modules had."""
    with zipfile.ZipFile(KEPT) as kept:
        kept.extractall(tmp_path / "kept")
    assert f"loader_module: {FORMER_LOADER}\n" in (tmp_path / "kept" / "ensemble" / "MLmodel").read_text()
    here = tmp_path / "here"
    here.mkdir()
    for name in ("tasks", "flows", "registry", "deployments"):
        (here / f"{name}.py").write_text("raise SystemExit('a file of the user')\n")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "kept")],
        cwd=here, env={k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = pd.DataFrame(json.loads(done.stdout))
    expected = pd.DataFrame(json.loads((tmp_path / "kept" / "predictions.json").read_text()))
    assert list(answer["label"]) == list(expected["label"])
    np.testing.assert_allclose(answer[list("ESCI")], expected[list("ESCI")], atol=1e-6)


def test_the_plug_in_offers_no_store_of_artifacts() -> None:
    with pytest.raises(MlflowException, match="names no store of artifacts"):
        no_repository("esci-tournament://somewhere")
