"""Which tests stay together when several processes share them, and which begin first.

pytest-xdist 3.8 hands the groups of `--dist loadgroup` over in the tests' ids, which pytest 9.2 no longer lets it write
(pytest-xdist issue 1386): nothing fails, but every process makes every long setup. Here a file hands them over.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

# Fixtures that take long to set up, and where they are shared: a tournament, Prefect servers
SHARED_SETUPS = {"held": "tests/deployments/", "prefect": "tests/", "served": "tests/flows/"}
# Groups by the time they take, where it is more than six seconds: what begins last should not end last.
LONGEST_FIRST = (
    "held",
    "served",
    "tests/deployments/test_first_hour.py",
    "tests/deployments/test_lifecycle.py",
    "tests/docs/test_notebooks.py",
    "prefect",
    "tests/docs/test_first_screen.py",
    "tests/flows/red_team/test_record.py",
    "tests/deployments/test_watcher.py",
    "tests/docs/test_site.py",
    "tests/flows/test_reevaluate.py",
    "tests/flows/test_guests.py",
    "tests/flows/test_tournament.py",
    "tests/deployments/test_plugged_in_family.py",
    "tests/flows/red_team/test_sealed.py",
    "tests/tasks/candidates/test_supervise.py",
    "tests/tasks/families/language_model/test_model.py",
    "tests/tasks/families/language_model/test_together.py",
    "tests/deployments/cli/test_ending.py",
    "tests/deployments/cli/test_review.py",
    "tests/registry/test_chain.py",
    "tests/registry/test_models.py",
    "tests/registry/test_promotion.py",
    "tests/deployments/scorer/test_swap.py",
    "tests/tasks/families/graph_network/test_world.py",
    "tests/deployments/scorer/compute/test_forked.py",
    "tests/deployments/test_bad_input.py",
)
INPUT = "groups_file"  # under which pytest-xdist tells each process where to write the groups
FILE = pytest.StashKey[Path]()


class GroupScheduling(LoadScopeScheduling):
    """Give each process whole groups, in the order in which their first tests stand.

    Args:
        config: pytest's, of the process that distributes.
        log: where pytest-xdist logs to.
        file: JSON of the group of each test, which the processes have written when they have collected.
    """

    def __init__(self, config: pytest.Config, log: Producer | None, file: Path) -> None:
        super().__init__(config, log)
        self.file = file
        self.groups: dict[str, str] = {}

    def schedule(self) -> None:
        if self.file.is_file():  # it is not there when there are no tests
            self.groups = json.loads(self.file.read_text(encoding="utf-8"))
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return self.groups[nodeid]


def group_of(item: pytest.Item) -> str:
    """Return what a test is kept together with: those that share its long setup, else those of its file."""
    path = item.path.relative_to(item.config.rootpath).as_posix()
    for fixture, folder in SHARED_SETUPS.items():
        if path.startswith(folder) and fixture in getattr(item, "fixturenames", ()):
            return fixture
    return path


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Tell a process where to write the groups."""
    node.workerinput[INPUT] = str(_file(node.config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling | None:
    """Distribute by those groups where pytest-xdist was told to distribute by groups."""
    return GroupScheduling(config, log, _file(config)) if config.getoption("dist") == "loadgroup" else None


def _file(config: pytest.Config) -> Path:
    if FILE not in config.stash:
        folder = tempfile.TemporaryDirectory(prefix="test-groups-")
        config.add_cleanup(folder.cleanup)
        config.stash[FILE] = Path(folder.name, "groups.json")
    return config.stash[FILE]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In one process run fast tests first; in several, groups with slow tests, and those that take longest of all."""
    slow = {item: item.get_closest_marker("slow") is not None for item in items}
    if not hasattr(config, "workerinput"):
        items.sort(key=lambda item: slow[item])
        return
    groups = {item: group_of(item) for item in items}
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    slow_groups = {groups[item] for item in items if slow[item]}
    items.sort(key=lambda item: (order.get(groups[item], len(order)), groups[item] not in slow_groups))
    file = Path(config.workerinput[INPUT])
    written = file.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps({item.nodeid: group for item, group in groups.items()}), encoding="utf-8")
    written.replace(file)
