"""Hatch's build hook: lays out the package `esci_tournament` in a wheel and in an editable install."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = ("__init__.py", "py.typed")


class PackageHook(BuildHookInterface):
    """Adds the package's own files to a wheel, or makes the links of an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Prepare a build; hatch calls this before it writes a wheel.

        Args:
            version: Kind of the build, "editable" or "standard".
            build_data: Facts of the build, changed in place: "force_include" maps a file's path to its place in the
                wheel.
        """
        if version == "editable":
            lay_links(Path(self.root), self.build_config.sources.items())
        else:
            here = Path(self.root, "deployments", "package")
            build_data["force_include"] |= {str(here / name): f"esci_tournament/{name}" for name in FILES}


def lay_links(root: Path, folders: Iterable[tuple[str, str]]) -> None:
    """Replace `build/editable/` below `root` by links: each folder and file under the name that it is imported as.

    Args:
        root: The repository.
        folders: Pairs of a folder below `root` and its place in the wheel, as in
            `tool.hatch.build.targets.wheel.sources`.
    """
    editable = root / "build" / "editable"
    shutil.rmtree(editable, ignore_errors=True)
    links = {Path(place): root / folder for folder, place in folders}
    links |= {Path("esci_tournament", name): root / "deployments" / "package" / name for name in FILES}
    for place, target in links.items():
        link = editable / place
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=target.is_dir())
