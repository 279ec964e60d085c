"""Tiny synthetic worlds that every test may read; nobody writes into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.data.dataset import Dataset
from tasks.data.load import load_esci
from tasks.data.synthesize import synthesize


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 120 judged queries (about 1,400 pairs) and behaviour events. Read only."""
    return synthesize(tmp_path_factory.mktemp("world") / "tiny", queries=120, seed=7, searches_per_query=10)


@pytest.fixture(scope="session")
def tiny_dataset(tiny_world: Path) -> Dataset:
    """The data set of `tiny_world`. Read only."""
    return load_esci(tiny_world)


@pytest.fixture(scope="session")
def esci_sample() -> Path:
    """The folder of real ESCI rows beside the repository; the test is skipped when it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "esci_sample"
    if not folder.is_dir():
        pytest.skip(f"real ESCI rows are not there: {folder}")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run fast tests first; among equals the order of the files stays."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
