"""A home that was moved or copied: its champion is served from where it stands now, and tournaments go on there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from esci_tournament.tasks.data.layout import EXAMPLES_FILE

pytestmark = pytest.mark.slow


def test_a_copied_and_moved_home_scores_and_goes_on(
    held: Any, tournament: Any, newcomer: Path, tmp_path: Path, world_pairs: Path
) -> None:
    copied = Path(shutil.copytree(held.home, tmp_path / "copied"))

    def done(home: Path, *words: object) -> Any:
        answer = tournament(*words, "--home", home, "--json")
        assert answer.code == 0, answer.err
        return answer.document

    assert done(copied, "champion", "show")["version"] == 1
    before = done(copied, "score", world_pairs)
    place = {name: before.pop(name) for name in ("home", "tracking_uri")}
    home = copied.rename(tmp_path / "moved")  # what the copy had kept of the first home would not be found here
    after = done(home, "score", world_pairs)
    assert {name: after.pop(name) for name in place} == {
        name: text.replace(str(copied), str(home)) for name, text in place.items()
    }
    assert after == before
    links = done(home, "report")["links"]
    assert set(links.values()) == {f"sqlite:///{home / name}" for name in ("mlflow.db", "ledger.db")}
    again = done(home, "run", "--data", held.data, "--candidates", held.specs)
    assert again["unchanged"], "nothing is trained again"
    went_on = done(home, "run", "--data", held.data, "--candidates", newcomer)
    assert {model["entry"] for model in went_on["models"]} == {"candidate", "incumbent"}
    if went_on["promoted"]:
        done(home, "champion", "rollback", "--reason", "a test")
    assert done(home, "champion", "show")["version"] == 1
    assert all(check["ok"] for check in done(home, "doctor")["checks"])
    assert not copied.exists()


@pytest.fixture
def world_pairs(held: Any, tmp_path: Path) -> Path:
    """A file of some pairs of the world."""
    path = tmp_path / "pairs.csv"
    pairs = pd.read_parquet(held.data / EXAMPLES_FILE).head(20)
    pairs[["query", "product_id", "product_locale"]].assign(product_title="red steel helmet").to_csv(path, index=False)
    return path
