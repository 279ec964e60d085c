"""What the `MLmodel` of somebody else's pyfunc may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.pyfuncs import check_pyfunc


def model(folder: Path, flavor: str) -> Path:
    (folder / "MLmodel").write_text(f"flavors:\n  python_function: {{loader_module: x, {flavor}}}\n", encoding="utf-8")
    return folder


def test_a_pyfunc_whose_files_stand_in_its_folder_is_one(tmp_path: Path) -> None:
    check_pyfunc(model(tmp_path, "data: data/x, code: code, artifacts: {a: {path: artifacts/a, uri: 'file:///x'}}"))


@pytest.mark.parametrize(
    "flavor",
    [
        *("data: /etc", "data: ../x", "code: /opt/code", "python_model: ../model.pkl", "data: link/x"),
        *("artifacts: {a: {path: /etc/passwd}}", "data: ''", "data: ."),
    ],
)
def test_a_pyfunc_that_names_files_outside_its_folder_is_refused(tmp_path: Path, flavor: str) -> None:
    """A2: MLflow's loader would follow them, and the candidate's digest would say nothing of them."""
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(SpecError, match="MLmodel"):
        check_pyfunc(model(tmp_path, flavor))


@pytest.mark.parametrize("text", ["", "[" * 100_000, "flavors: 7", "a: &a [x]\nflavors: {b: *a}", "\0"])
def test_an_mlmodel_that_cannot_be_parsed_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "MLmodel").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match="is no MLflow model"):
        check_pyfunc(tmp_path)
