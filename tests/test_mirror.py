"""Modules of flows/, deployments/cli/ and deployments/scorer/ have test files of the same name in the same folder.

So have those of the client, whose package's folder is left out.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MIRRORED = ("flows", "deployments/cli", "deployments/scorer", "deployments/client")


def folder_of_tests(folder: Path) -> Path:
    return ROOT / "tests" / (folder.parent if folder.name == "esci_tournament_client" else folder)


def test_every_module_has_a_test_file_of_its_name() -> None:
    modules = [path.relative_to(ROOT) for folder in MIRRORED for path in (ROOT / folder).rglob("[!_]*.py")]
    assert len(modules) > 70
    without = [one.as_posix() for one in modules if not (folder_of_tests(one.parent) / f"test_{one.name}").is_file()]
    assert without == [], "write tests/<folder>/test_<module>.py"
