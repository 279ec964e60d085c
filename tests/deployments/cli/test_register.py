"""`tournament register`: versions in MLflow, or none if one spec of the file is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from esci_tournament.deployments.cli.register import parse_keys
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.models import Models
from tests.harness import new_home

pytestmark = pytest.mark.slow

GOOD = '[[candidate]]\nname = "one"\nfamily = "graph_network"\narchitecture = "gcn"\n'
SKLEARN = "flavors:\n  python_function: {loader_module: mlflow.sklearn}\n  sklearn: {pickled_model: model.pkl}\n"
WRONG = '[[candidate]]\nname = "two"\nfamily = "language_model"\ncheckpoint = "empty"\n'


def test_a_spec_is_a_version_once_and_another_of_that_name_is_the_next(tournament, tmp_path):
    file, home = tmp_path / "specs.toml", tmp_path / "home"
    for content, version in ((GOOD, 1), (GOOD, 1), (GOOD.replace("gcn", "graphsage"), 2)):
        file.write_text(content, encoding="utf-8")
        (row,) = tournament("register", file, "--home", home, "--json").document
        assert (row["name"], row["version"]) == ("one", version)


def test_nothing_of_a_file_is_registered_when_one_spec_is_wrong(tournament, tmp_path):
    file, home = tmp_path / "specs.toml", tmp_path / "home"
    file.write_text(GOOD + WRONG, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    answer = tournament("register", file, "--home", home)
    assert answer.code == 4
    assert "config.json" in answer.err
    assert tournament("candidates", "--home", home, "--json").document == []


def logged(home: Path, files: Path) -> str:
    """Return MLflow's address in a home, where plain MLflow has registered a pyfunc and a folder with a config."""
    new_home(home)
    models = Models(f"sqlite:///{home / 'mlflow.db'}", home)
    for name, content in (("Sklearn model", {"MLmodel": SKLEARN}), ("O'Brien's BERT", {"config.json": "{}"})):
        place = files / name
        place.mkdir(parents=True)
        for file, text in content.items():
            (place / file).write_text(text, encoding="utf-8")
        models.tracking.client.create_registered_model(name)
        models.tracking.client.create_model_version(name, str(place))
    return models.tracking_uri


def test_a_registered_version_becomes_a_candidate_by_its_address(tournament, tmp_path):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    uri = logged(home, tmp_path / "files")
    # From another home, as an engineer's machine has one: MLflow's own variable says where
    register = ("register", "models:/Sklearn model/latest", "--home", elsewhere)
    told = {"MLFLOW_TRACKING_URI": uri, "TOURNAMENT_ALLOWED_PYFUNC_SOURCES": '["models:/"]'}
    missing = tournament(*register, **told)
    assert missing.code == 4
    assert "trained_on is missing (what the model has seen of this data)" in missing.err
    keys = ("--set", "trained_on=other_queries", "--set", "provenance=a team, on clicks of 2025")
    answer = tournament(*register, *keys, "--json", **told)
    assert answer.code == 0, answer.err
    assert f"MLflow: {uri} (named by MLFLOW_TRACKING_URI)" in answer.err
    assert not (elsewhere / "mlflow.db").exists()
    (row,) = tournament("candidates", "--home", home, "--json").document
    assert (row["candidate"], row["family"]) == ("Sklearn model/1", "pyfunc")
    assert row["spec"]["model"] == "models:/Sklearn model/1"
    # What has a config is an encoder that would be fine-tuned, if it were one
    refused = tournament("register", "models:/O'Brien's BERT/1", "--home", home)
    assert refused.code == 4
    assert "no config.json with model.safetensors beside it" in refused.err


def test_a_home_with_a_registry_of_its_own_says_when_another_is_used(tournament, tmp_path):
    home, file = tmp_path / "home", tmp_path / "specs.toml"
    uri = logged(tmp_path / "other", tmp_path / "files")
    new_home(home)
    file.write_text(GOOD, encoding="utf-8")
    answer = tournament("register", file, "--home", home, MLFLOW_TRACKING_URI=uri)
    assert answer.code == 0, answer.err
    assert f"{home / 'mlflow.db'} exists and was not used, because MLFLOW_TRACKING_URI is set" in answer.err


@pytest.mark.parametrize("words", [["epochs"], ["=2"], ["recipe=1", "recipe.epochs=2"], ["recipe.=3"]])
def test_keys_that_are_none_are_wrong_usage(words):
    with pytest.raises(UsageError, match="--set"):
        parse_keys(words)


def test_values_of_keys_are_toml_or_else_text():
    given = ["a=1", "b=two words", "c=[1, 2]", "d.e=true", 'd.f="3"', "g=x=y"]
    expected = {"a": 1, "b": "two words", "c": [1, 2], "d": {"e": True, "f": "3"}, "g": "x=y"}
    assert json.dumps(parse_keys(given)) == json.dumps(expected)
