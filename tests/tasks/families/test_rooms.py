"""A family is one folder: no code outside of it, in this repository, names it, its types or its modules.

Docstrings may. Other exceptions, and why:

- the settings `allowed_pyfunc_sources`, `pyfunc_memory_gib`, `pyfunc_timeout_s` and `keep_score_files` in
  `registry/settings.py`: names of settings do not change;
- `registry/pyfuncs.py`: only `registry/` talks to MLflow, whose model flavour this is;
- the entry points in `pyproject.toml`, and the candidates of the demo in `deployments/demo.toml`;
- `benchmarks/`, which measure single families.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from esci_tournament.registry.plugins import Family, families

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ROOT / "tasks" / "families"
PREFIX = "esci_tournament.tasks.families."
FILES = [path for top in ("registry", "tasks", "flows", "deployments") for path in sorted((ROOT / top).rglob("*.py"))]
# The score store, its folder and its table have this name too: there it counts only beside the word "family"
ORDINARY = {"scores"}


def rooms() -> dict[str, Path]:
    """Return family -> folder, of the families of this product."""
    ours = {name: point.module for name, point in families().items() if point.module.startswith(PREFIX)}
    return {name: ROOMS / module.removeprefix(PREFIX) for name, module in ours.items()}


def types_of(family: str) -> set[str]:
    found = families()[family].load()
    assert isinstance(found, Family)
    return {found.spec_class.__name__, found.candidate.partition(":")[2]}


def code(path: Path) -> Iterator[ast.AST]:
    """Yield the nodes of a module, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docs.add(first.value)
    return (node for node in ast.walk(tree) if node not in docs)


def names_in(path: Path, family: str, module: str, types: set[str]) -> list[str]:
    """Return where a module outside of a family's folder names the family, one of its types or its modules."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for node in code(path):
        named = ""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            alone = family not in ORDINARY or "family" in lines[node.lineno - 1]
            named = node.value if (node.value == family and alone) or module in node.value else ""
        elif isinstance(node, ast.ImportFrom):
            named = node.module if node.module and f"{node.module}.".startswith(f"{module}.") else ""
        elif isinstance(node, ast.Import):
            named = next((one.name for one in node.names if f"{one.name}.".startswith(f"{module}.")), "")
        elif isinstance(node, (ast.Name, ast.Attribute)):
            name = node.id if isinstance(node, ast.Name) else node.attr
            named = name if name in types else ""
        if named:
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {named}")
    return found


@pytest.mark.parametrize("family", rooms())
def test_no_module_outside_of_its_folder_names_a_family(family: str) -> None:
    room = rooms()[family]
    assert room.is_dir()
    module, types = PREFIX + room.name, types_of(family)
    outside = [path for path in FILES if not path.is_relative_to(room)]
    assert [line for path in outside for line in names_in(path, family, module, types)] == []


def test_what_is_looked_for_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    planted = tmp_path / "planted.py"
    module = f"{PREFIX}score_file"
    for line in (
        f"from {module}.model import x",
        f"import {module}.spec",
        f'x = "{module}.model"',
        'if x.family == "scores": pass',
        "isinstance(x, ScoresSpec)",
        "y.ScoreFile",
    ):
        planted.write_text(line + "\n", encoding="utf-8")
        assert len(names_in(planted, "scores", module, types_of("scores"))) == 1, line
    planted.write_text('"""Scores of ScoreFile."""\nfolder = root / "scores"\n', encoding="utf-8")
    assert names_in(planted, "scores", module, types_of("scores")) == []


def test_every_folder_beside_the_protocol_is_a_family() -> None:
    assert {path.parent for path in ROOMS.glob("*/__init__.py")} == set(rooms().values())
