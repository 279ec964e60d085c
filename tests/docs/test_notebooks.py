"""The notebooks run from top to bottom; what the repository keeps of their outputs is small and of no machine.

To renew the outputs: execute a copy in an empty folder with `jupyter execute --inplace` and the option
`--NotebookClient.record_timing=False`, take out what was written to standard error, and run these tests.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

import esci_tournament as et

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
MOST_BYTES = 400_000


def outputs(notebook: Any) -> list[Any]:
    return [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]


def kinds(notebook: Any) -> list[str]:
    """Return the kinds of all that the cells gave, without what a library wrote to standard error."""
    found = [one for one in outputs(notebook) if one.output_type != "stream"]
    return [kind for one in found for kind in sorted(one.get("data", {one.output_type: None}))]


def code_of(notebook: Any) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_whole_uses_what_is_public_and_refers_to_what_exists(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert set(re.findall(r"\bet\.(\w+)", code_of(notebook))) <= set(et.__all__)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([\w./-]+)\)", text)
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_outputs_are_small_without_errors_and_of_no_machine(path: Path) -> None:
    assert path.stat().st_size < MOST_BYTES
    notebook = nbformat.read(path, as_version=4)
    assert "image/png" in kinds(notebook)
    assert not {"error", "stream"} & {one.output_type for one in outputs(notebook)}
    told = [str(text) for one in outputs(notebook) for kind, text in one.data.items() if kind.startswith("text/")]
    assert not re.search(r"/(?:home|root|tmp|Users|work)/", "\n".join(told))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom_and_gives_what_is_kept_of_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in [name for name in os.environ if name.startswith("TOURNAMENT_")]:
        monkeypatch.delenv(name)
    notebook = nbformat.read(path, as_version=4)
    before = kinds(notebook)
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert kinds(notebook) == before
