"""Models under models:/ addresses: looked up in the registry that is named, whatever the process or its folder says."""

from __future__ import annotations

from pathlib import Path

import pytest

from esci_tournament.registry.errors import SpecError, StoreError
from esci_tournament.registry.registered import fetch, fetch_file, version_of


@pytest.fixture
def logged(models, tmp_path, monkeypatch):
    """Two versions of a model whose name has what addresses quote, in a folder where another registry would be made."""
    client = models.tracking.client
    source = tmp_path / "files of it"
    (source / "model").mkdir(parents=True)
    (source / "MLmodel").write_text("flavors: {}", encoding="utf-8")
    (source / "model" / "config.json").write_text("{}", encoding="utf-8")
    client.create_registered_model("O'Brien's model")
    for _ in range(2):
        client.create_model_version("O'Brien's model", str(source))
    client.set_registered_model_alias("O'Brien's model", "production", "1")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return models


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_files_of_a_version_are_those_of_the_registry_that_is_named(logged, tmp_path):
    """F03: MLflow's own function looks in the registry of the process, and makes one in the current folder."""
    fetch("models:/O'Brien's model/2", tmp_path / "copy", logged.tracking_uri)
    assert names(tmp_path / "copy") == ["MLmodel", "model/config.json"]
    one = fetch_file("models:/O'Brien's model/2", "model/config.json", tmp_path, logged.tracking_uri)
    assert one.read_text(encoding="utf-8") == "{}"
    assert list(Path.cwd().iterdir()) == []


def test_a_logged_model_is_found_by_its_id(logged, tmp_path):
    client = logged.tracking.client
    made = client.create_logged_model(client.create_experiment("team", artifact_location=(tmp_path / "team").as_uri()))
    place = Path(made.artifact_location.removeprefix("file://"))
    place.mkdir(parents=True)
    (place / "MLmodel").write_text("flavors: {}", encoding="utf-8")
    client.finalize_logged_model(made.model_id, "READY")
    fetch(f"models:/{made.model_id}", tmp_path / "copy", logged.tracking_uri)
    assert names(tmp_path / "copy") == ["MLmodel"]


def test_an_address_names_the_version_of_now(logged):
    for address, version in (("2", 2), ("latest", 2)):
        assert version_of(f"models:/O'Brien's model/{address}", logged.tracking_uri) == ("O'Brien's model", version)
    assert version_of("models:/O'Brien's model@production", logged.tracking_uri) == ("O'Brien's model", 1)


@pytest.mark.parametrize(
    "address", ["models:/nobody/1", "models:/O'Brien's model/9", "models:/O'Brien's model@x", "models:/nobody/latest"]
)
def test_what_is_not_there_is_named_with_where_it_was_looked_for(logged, tmp_path, address):
    with pytest.raises(SpecError, match="sqlite:///"):
        version_of(address, logged.tracking_uri)
    if "@" not in address and "latest" not in address:
        with pytest.raises(SpecError, match="cannot be read from MLflow at sqlite:///"):
            fetch(address, tmp_path / "copy", logged.tracking_uri)


def test_a_version_whose_files_are_gone_is_refused_and_a_server_that_is_gone_is_not_its_fault(
    logged, tmp_path, monkeypatch
):
    client = logged.tracking.client
    client.create_registered_model("gone")
    client.create_model_version("gone", str(tmp_path / "nothing"))
    with pytest.raises(SpecError):
        fetch("models:/gone/1", tmp_path / "copy", logged.tracking_uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match="cannot be read from MLflow at http://"):
        fetch("models:/gone/1", tmp_path / "copy", "http://127.0.0.1:9")


@pytest.mark.parametrize("address", ["models:/bad", "models:/a/b/1", "models:/", "models:/x/-1"])
def test_another_way_to_write_it_is_told(models, address):
    with pytest.raises(SpecError, match="models:/NAME/VERSION"):
        version_of(address, models.tracking_uri)
