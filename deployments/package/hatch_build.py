"""Hatch's hook: what the package `esci_tournament` begins with, in a wheel and in an editable install."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = ("__init__.py", "py.typed")


class PackageHook(BuildHookInterface):
    """Adds the package's own files to a wheel, or lays the links of an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is written.

        Args:
            version: Kind of the build, "editable" or "standard".
            build_data: What a hook may change of it; its "force_include" maps files to their places in the wheel.
        """
        if version == "editable":
            lay_links(Path(self.root), self.build_config.sources.items())
        else:
            here = Path(self.root, "deployments", "package")
            build_data["force_include"] |= {str(here / name): f"esci_tournament/{name}" for name in FILES}


def lay_links(root: Path, folders: Iterable[tuple[str, str]]) -> None:
    """Make `build/editable/` below `root` anew: each folder and file under the name that it is imported as.

    Args:
        root: The repository.
        folders: Folder -> place in the wheel, as in `tool.hatch.build.targets.wheel.sources`.
    """
    editable = root / "build" / "editable"
    shutil.rmtree(editable, ignore_errors=True)
    links = {Path(place): root / folder for folder, place in folders}
    links |= {Path("esci_tournament", name): root / "deployments" / "package" / name for name in FILES}
    for place, target in links.items():
        link = editable / place
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=target.is_dir())
