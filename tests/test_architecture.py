"""The rules on imports, libraries and test pairs in docs/architecture.md."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "esci_tournament"
LAYERS = ("registry", "tasks", "flows", "deployments")  # each may import itself and those before it
MODULES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
ELSEWHERE = sorted(path for folder in ("tests", "benchmarks", "docker") for path in (ROOT / folder).rglob("*.py"))
# Which modules may import a library; all others ask these.
KNOWN_IN = {
    "mlflow": {
        *("registry/packaging.py", "registry/pyfuncs.py", "registry/registered.py"),
        *("registry/tracking.py", "registry/webhooks.py"),
        "deployments/mlflow_plugin.py",  # MLflow imports it, and is told so in MLflow's own error
    },
    "great_expectations": {"tasks/data/expectations.py", "tasks/data/docs_views.py"},
    "lightgbm": {
        "tasks/ensemble/aggregate.py",
        "tasks/ensemble/booster.py",
        "tasks/ensemble/fitting.py",
        "tasks/families/pair_features/training.py",
    },
}


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of every module that a file imports, at its top or anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module


CLIENT = "deployments/client/esci_tournament_client/"  # a distribution of its own


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_run_one_way(path: Path) -> None:
    allowed = LAYERS[: LAYERS.index(named(path).partition("/")[0]) + 1]
    if named(path).startswith("deployments/package/"):
        allowed = LAYERS
    found = {name for name in imports(path) if name.startswith(f"{PACKAGE}.")}
    assert {name for name in found if name.split(".")[1] not in allowed} == set()


def test_no_module_imports_one_that_imports_it() -> None:
    """Not even through others, inside a function or for type checking alone."""
    modules = {f"{PACKAGE}.{named(path)[:-3].replace('/', '.')}".removesuffix(".__init__"): path for path in MODULES}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                # `from package import module` needs the module, `from package.module import name` what holds the name.
                found = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
                graph[name] |= found or ({node.module} & modules.keys())
    TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_no_module_is_imported_by_the_name_of_its_folder() -> None:
    """It would be found where the repository is the current folder, and nowhere else."""
    for path in (*MODULES, *ELSEWHERE):
        assert {name for name in imports(path) if name.partition(".")[0] in LAYERS} == set(), path


def test_the_client_needs_nothing_of_ours_and_nothing_of_ours_needs_the_client() -> None:
    """It is installed without the platform, and the platform without it."""
    own = "esci_tournament_client"
    of_client = {name for path in MODULES if named(path).startswith(CLIENT) for name in imports(path)}
    assert {name.partition(".")[0] for name in of_client} - sys.stdlib_module_names == {own, "httpx"}
    others = [path for path in (*MODULES, *ELSEWHERE) if not named(path).startswith((CLIENT, "tests/"))]
    assert [path for path in others if own in {name.partition(".")[0] for name in imports(path)}] == []


def test_tasks_and_registry_run_without_prefect() -> None:
    for path in MODULES:
        if named(path).startswith(("registry/", "tasks/")):
            assert "prefect" not in {name.partition(".")[0] for name in imports(path)}, path


@pytest.mark.parametrize("library", KNOWN_IN)
def test_a_library_is_known_to_few_modules(library: str) -> None:
    found = {named(path) for path in MODULES if library in {name.partition(".")[0] for name in imports(path)}}
    assert found == KNOWN_IN[library]


def test_letters_and_number_of_the_classes_stand_in_one_module() -> None:
    """Three exceptions: the types of the HTTP schema and of its client, which have to be literal, and docstrings."""
    for path in MODULES:
        if named(path) in ("registry/labels.py", "deployments/scorer/schemas.py", f"{CLIENT}answers.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Tuple | ast.List):
                values = [one.value for one in node.elts if isinstance(one, ast.Constant)]
                assert values != ["E", "S", "C", "I"], path
            if isinstance(node, ast.Constant):
                assert node.value != "ESCI", path
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                assert node.targets[0].id not in ("CLASSES", "LABELS", "LABEL_NAMES"), path


def test_test_pairs_are_read_for_the_verdict_and_for_the_calibration_that_is_told_after_it() -> None:
    asked = {named(path) for path in MODULES if "learns=False" in path.read_text(encoding="utf-8")}
    assert asked == {"flows/quarantine.py", "flows/conclusion.py"}
    read = {named(path) for path in MODULES if "judged_pairs(" in path.read_text(encoding="utf-8")}
    assert read == {"tasks/data/plans.py", "flows/judging.py", "flows/quarantine.py"}


def test_verdicts_and_summaries_are_shown_as_the_seal_tells_them() -> None:
    """What reads whole verdicts goes by id, outcome and what was missing, or through `registry/sealing.py`.

    `flows/looks.py` goes by outcomes, and by the bounds of what was promoted.
    """
    asked = {named(path) for path in MODULES if re.search(r"\.verdicts?\(", path.read_text(encoding="utf-8"))}
    sealing = {"registry/tournaments.py", "flows/decision.py"}
    assert asked == sealing | {"registry/states.py", "registry/reviews.py", "flows/conclusion.py", "flows/looks.py"}
    for name in (*sealing, "registry/chronicle.py"):
        assert "of_record(" in (ROOT / name).read_text(encoding="utf-8"), name
    stored = {named(path) for path in MODULES if re.search(r"Summary\.(read|from_json)\(", path.read_text("utf-8"))}
    assert stored == {"tasks/report/sealing.py"}


def test_nobody_renames_on_their_own() -> None:
    """A rename that is not synced keeps a name and loses its bytes at a power cut: `registry/files.py` does both."""
    for path in MODULES:
        if named(path) == "registry/files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                # A path's own `replace` and `rename` take one argument, a text's two, a frame's and a date's named ones
                a_path = node.func.attr in ("rename", "replace") and len(node.args) == 1 and not node.keywords
                assert not a_path, (path, node.lineno)
                assert (of, node.func.attr) not in {
                    *(("os", name) for name in ("rename", "renames", "replace")),
                    ("shutil", "move"),
                }, (path, node.lineno)
            if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
                assert {one.name for one in node.names} & {"rename", "renames", "replace", "move"} == set(), path
