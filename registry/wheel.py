"""This product as a wheel, made from what is installed here, and the requirements of a model that needs it.

An ensemble in MLflow is loaded by this package. No index has it, and whoever takes its name on one would run code
wherever the model's environment is made. So the wheel travels with the model, and everything else is pinned to the
versions that the ensemble was made with.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import zipfile
from collections.abc import Collection, Iterator
from functools import lru_cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement

import esci_tournament
from esci_tournament.registry.plugins import OURS, families

FOLDER = "wheels"
_TAG = "py3-none-any"
_WHEEL = f"Wheel-Version: 1.0\nGenerator: {OURS}\nRoot-Is-Purelib: true\nTag: {_TAG}\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a wheel of the same code is the same file


def write_wheel(folder: Path) -> str:
    """Write the wheel of the running code.

    Args:
        folder: Where to; made if need be.

    Returns:
        The name of the file, `esci_tournament-VERSION-py3-none-any.whl`; the same code gives the same bytes.

    Raises:
        OSError: If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{_stem(distribution(OURS))}-{_TAG}.whl"
    (folder / name).write_bytes(_wheel())
    return name


def requirements(used: Collection[str] = ()) -> list[str]:
    """Return the lines of a requirements file for an ensemble, the wheel of :func:`write_wheel` excepted.

    Args:
        used: Names of the families of its members; a plug-in's distribution is pinned as well.

    Returns:
        `name==version` of every package that this one needs without an extra, as it is installed here, sorted.
    """
    names = {Requirement(line).name for line in distribution(OURS).requires or [] if _applies(Requirement(line))}
    known = families()
    for family in used:
        own = known[family].dist if family in known else None
        if own is not None and own.name != OURS:
            names.add(own.name)
    pinned = []
    for name in names:
        try:
            # A local version such as 2.13.0+cpu is a build of one machine; no index has it
            pinned.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return sorted(pinned)


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _stem(ours: Distribution) -> str:
    return f"{OURS.replace('-', '_')}-{ours.version}"


@lru_cache(maxsize=1)
def _wheel() -> bytes:
    ours = distribution(OURS)
    about = f"{_stem(ours)}.dist-info"
    entries = dict(_modules())
    entries[f"{about}/METADATA"] = (ours.read_text("METADATA") or "").encode()
    entries[f"{about}/WHEEL"] = _WHEEL.encode()
    for name in ("entry_points.txt", "licenses/LICENSE"):
        if text := ours.read_text(name):
            entries[f"{about}/{name}"] = text.encode()
    record = [f"{name},{_digest(content)},{len(content)}\n" for name, content in entries.items()]
    entries[f"{about}/RECORD"] = "".join([*record, f"{about}/RECORD,,\n"]).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in entries.items():
            facts = zipfile.ZipInfo(name, _EPOCH)
            facts.external_attr = 0o644 << 16
            facts.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(facts, content)
    return made.getvalue()


def _modules() -> Iterator[tuple[str, bytes]]:
    """Yield the files of the package, as a wheel holds them; an editable install has links to the repository.

    What `deployments/package` holds is for building, and stands at the top of a package that was built;
    `deployments/client` is another distribution.
    """
    root = Path(str(esci_tournament.__file__)).parent
    for place, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(folder for folder in folders if folder not in ("__pycache__", "package", "client"))
        for file in sorted(files):
            path = Path(place, file)
            if path.suffix != ".pyc":
                yield f"{root.name}/{path.relative_to(root).as_posix()}", path.read_bytes()


def _digest(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
