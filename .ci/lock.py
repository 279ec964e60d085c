"""Write the locks: every package that make, CI and the images install, in one version, with the hashes of its files.

`make lock` runs it, with `uv` beside the interpreter. `--keep` keeps the versions that are locked and renews the rest.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "lock"
UV = Path(sys.executable).parent / "uv"
BEGIN = re.compile(r"^(?=[a-z0-9])", re.MULTILINE)
NAME = re.compile(r"([a-z0-9][a-z0-9.-]*)==(\S+)")
# What torch for Linux on PyPI needs, and its CPU build does not
CUDA = re.compile(r"(nvidia|cuda)-|triton$")
# Markers of the platforms in [tool.uv], which are left out: elsewhere pip says itself which file it does not find
PLATFORMS = "((platform_machine == 'arm64' and sys_platform == 'darwin') or sys_platform == 'linux')"
PYTHON = "python_full_version < '3.12'"
# Extras with packages that are published as source alone: pip would build them with what no lock has
UNLOCKED = ("japanese",)
TORCH_CPU = "https://download.pytorch.org/whl/cpu"

FILES = {
    "requirements.lock": "What make and CI install. CUDA's libraries are in requirements-cuda.lock.",
    "requirements-cuda.lock": "What torch for Linux on PyPI needs as well, and its CPU build does not.",
    "docker/requirements.lock": "What the images install, in the versions of requirements.lock.",
    "docker/torch.txt": "The CPU build of torch in requirements.lock, which is not on PyPI.",
    ".ci/tools.lock": "What `make lock`, `make sbom` and `make audit` install, from tools.in.",
}


def resolve(name: str, *arguments: str, folder: Path = ROOT) -> dict[str, str]:
    """Return the packages that uv resolves, each as lines with the hashes of every file, by name.

    Args:
        name: Stem of the file that is written in build/lock.
        arguments: Inputs and options of `uv pip compile`.
        folder: Where inputs are.

    Returns:
        Requirements as a file for pip has them.
    """
    place = BUILD / f"{name}.txt"
    place.unlink(missing_ok=True)
    command = [UV, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
    # One version of a package for every patch release of Python: `blocks` keeps one
    command += ["--fork-strategy", "fewest"]
    command += ["--no-annotate", "--no-header", "--output-file", place, *arguments]
    # An index of this machine alone must not decide what others install
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_"))}
    subprocess.run(command, check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    return blocks(place.read_text(encoding="utf-8"))


def blocks(text: str) -> dict[str, str]:
    """Return the requirements of a file with hashes, by name."""
    found = {}
    for block in BEGIN.split(text):
        if match := NAME.match(block):
            line, _, rest = block.partition("\n")
            line = line.replace(f" ; {PYTHON} and {PLATFORMS}", "").replace(f"{PYTHON} and ", "")
            found[match[1]] = f"{line}\n{rest.rstrip()}\n"
    return found


def version_of(block: str) -> str:
    """Return the version of a requirement."""
    match = NAME.match(block)
    assert match is not None
    return match[2]


def cpu_build(version: str) -> str:
    """Return the requirement of torch's CPU build.

    Args:
        version: Of torch in requirements.lock.

    Returns:
        The requirement, with its hashes.

    Raises:
        SystemExit: If its index cannot be reached and the version is not the one that is locked already.
    """
    (BUILD / "torch.in").write_text(f"torch=={version}+cpu\n", encoding="utf-8")
    try:
        return resolve("torch", "--default-index", TORCH_CPU, "--no-deps", "torch.in", folder=BUILD)["torch"]
    except subprocess.CalledProcessError:
        known = read("docker/torch.txt").get("torch", "torch==0")
        if version_of(known) != f"{version}+cpu":
            raise SystemExit(f"{TORCH_CPU} cannot be reached: no hashes of torch {version}+cpu") from None
        print(f"{TORCH_CPU} cannot be reached: the hashes of torch {version}+cpu stay as they are", file=sys.stderr)
        return known


def read(file: str) -> dict[str, str]:
    """Return the requirements of a lock, by name; none where it is not there yet."""
    path = ROOT / file
    return blocks(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(file: str, packages: dict[str, str]) -> None:
    """Write a lock under its head."""
    head = f"# `make lock` writes this file. {FILES[file]}\n"
    (ROOT / file).write_text(head + "".join(packages.values()), encoding="utf-8")


def pins(name: str, packages: dict[str, str]) -> str:
    """Write the versions of packages as constraints; return the path from the top."""
    lines = [f"{package}=={version_of(block)}\n" for package, block in packages.items()]
    (BUILD / name).write_text("".join(lines), encoding="utf-8")
    return f"build/lock/{name}"


def main(arguments: list[str]) -> None:
    """Write every lock."""
    BUILD.mkdir(parents=True, exist_ok=True)
    kept, tools = [], []
    if "--keep" in arguments:
        kept = ["--constraint", pins("kept.txt", read("requirements.lock") | read("requirements-cuda.lock"))]
        tools = ["--constraint", pins("kept-tools.txt", read(".ci/tools.lock"))]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [f"--extra={name}" for name in project["project"]["optional-dependencies"] if name not in UNLOCKED]
    everything = resolve("everything", *wanted, *kept, "pyproject.toml")
    cpu = cpu_build(version_of(everything["torch"]))
    (BUILD / "build.in").write_text("\n".join(project["build-system"]["requires"]), encoding="utf-8")
    extras = ["--extra", "production", "--extra", "lora", "--constraint", pins("pins.txt", everything)]
    image = resolve("image", *extras, "pyproject.toml", "build/lock/build.in")
    write("requirements.lock", {name: block for name, block in everything.items() if not CUDA.match(name)})
    write("requirements-cuda.lock", {name: block for name, block in everything.items() if CUDA.match(name)})
    write("docker/requirements.lock", {name: block for name, block in image.items() if not CUDA.match(name)})
    write("docker/torch.txt", {"torch": cpu})
    write(".ci/tools.lock", resolve("tools", *tools, ".ci/tools.in"))


if __name__ == "__main__":
    main(sys.argv[1:])
