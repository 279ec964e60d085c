"""Write distributions with entry points into a folder, as an installer would."""

from __future__ import annotations

import tomllib
from pathlib import Path


def install(folder: Path, module: str, code: str, entry_points: str, version: str = "1.0") -> None:
    """Lay a distribution of one module into a folder.

    Args:
        folder: Where it goes; it has to be on Python's path to be found.
        module: Name of the module; the distribution has it with dashes.
        code: Content of the module.
        entry_points: The `[project.entry-points."group"]` table of its pyproject.toml.
        version: Version of the distribution.
    """
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    name = module.replace("_", "-")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    ((group, points),) = tomllib.loads(entry_points)["project"]["entry-points"].items()
    lines = [f"[{group}]", *(f"{point} = {value}" for point, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
