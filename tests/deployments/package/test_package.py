"""The distribution: the wheel has one package, which imports correctly beside user files named like our folders."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

import esci_tournament as et
from esci_tournament.registry.wheel import write_wheel

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("registry", "tasks", "flows", "deployments")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    out = tmp_path_factory.mktemp("wheel")
    command = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True, timeout=120)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_one_package_with_every_module_and_what_they_read(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"esci_tournament-{et.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"esci_tournament", info}
    files = {
        f"esci_tournament/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not {"__pycache__", "package", "client"} & {*path.relative_to(ROOT).parts}
    }
    package = {"esci_tournament/__init__.py", "esci_tournament/py.typed"}
    assert {name for name in names if not name.startswith(info)} == files | package


def test_the_command_goes_by_the_name_of_the_distribution_too(wheel: Path) -> None:
    """`uvx NAME` and `pipx run NAME` start the command that has the distribution's name."""
    told = ConfigParser()
    told.read_string(
        zipfile.ZipFile(wheel).read(f"esci_tournament-{et.__version__}.dist-info/entry_points.txt").decode()
    )
    assert dict(told["console_scripts"]) == dict.fromkeys(
        ("tournament", "esci-tournament"), "esci_tournament.deployments.cli:entry"
    )


def test_the_wheel_that_travels_with_an_ensemble_is_the_same(wheel: Path, tmp_path: Path) -> None:
    """MLflow makes the model's environment from it; no index has this package."""
    ours = zipfile.ZipFile(tmp_path / write_wheel(tmp_path))
    built = zipfile.ZipFile(wheel)
    assert Path(str(ours.filename)).name == wheel.name
    assert ours.testzip() is None
    same = [name for name in built.namelist() if not name.endswith(("/WHEEL", "/RECORD"))]
    assert sorted(name for name in ours.namelist() if not name.endswith(("/WHEEL", "/RECORD"))) == sorted(same)
    assert [name for name in same if ours.read(name) != built.read(name)] == []
    place = tmp_path / "installed"
    command = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(place), str(ours.filename)]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True, timeout=120)
    assert (place / "esci_tournament" / "deployments" / "pyfunc_model.py").is_file()


def test_the_wheel_works_in_a_folder_whose_files_have_our_folders_names(wheel: Path, tmp_path: Path) -> None:
    place, here = tmp_path / "installed", tmp_path / "here"
    zipfile.ZipFile(wheel).extractall(place)
    here.mkdir()
    for name in FOLDERS:
        (here / f"{name}.py").write_text("raise SystemExit('a file of the user')\n")
    script = "import esci_tournament as et, sys; print(et.__file__); print(et.synthesize('world', queries=20))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=here, env=os.environ | {"PYTHONPATH": str(place)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.splitlines() == [str(place / "esci_tournament" / "__init__.py"), "world"], done.stderr
    command = [sys.executable, "-m", "esci_tournament.deployments.cli", "data", "check", "world"]
    done = subprocess.run(
        command, cwd=here, env=os.environ | {"PYTHONPATH": str(place)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_every_name_of_the_public_face_is_there_and_no_other() -> None:
    assert all(getattr(et, name) is not None for name in et.__all__)
    assert dir(et) == sorted(et.__all__)
    with pytest.raises(AttributeError, match="no attribute 'flow'"):
        et.flow  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = "import sys, esci_tournament; print(sorted({'torch', 'pandas', 'mlflow', 'prefect'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
