"""Tests mirror the modules: who looks for the tests of a module finds them under its name."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MIRRORED = ("flows", "deployments/cli", "deployments/scorer")

# Tested from files of other names. The list only gets shorter: what is new has a test file of its own.
WITHOUT = {
    "flows/competition.py",
    "flows/conclusion.py",
    "flows/preparation.py",
    "flows/refresh.py",
    "flows/roster.py",
    "flows/equipment.py",
}


def test_every_module_has_its_test_file_but_for_those_that_are_listed() -> None:
    modules = [path.relative_to(ROOT) for folder in MIRRORED for path in (ROOT / folder).rglob("[!_]*.py")]
    tested = {one for one in modules if (ROOT / "tests" / one.parent / f"test_{one.name}").is_file()}
    without = {one.as_posix() for one in set(modules) - tested}
    assert without - WITHOUT == set(), "write tests/<folder>/test_<module>.py"
    assert WITHOUT & {one.as_posix() for one in tested} == set(), "these have one now: take them off the list"
