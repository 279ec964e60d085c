"""What people bring beside the official data: one locale, and no test split."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from esci_tournament.tasks.data.layout import EXAMPLES_FILE, PRODUCTS_FILE
from esci_tournament.tasks.data.load import load_esci
from tests.deployments.test_lifecycle import SETTINGS, score_file
from tests.harness import new_home

pytestmark = pytest.mark.slow  # two tournaments of score files


def test_judgements_of_one_locale_without_a_test_split_are_judged_once_a_share_is_drawn(
    tiny_world: Path, tmp_path: Path, tournament
) -> None:
    folder, home = tmp_path / "shop", new_home(tmp_path / "home")
    folder.mkdir()
    for name in (EXAMPLES_FILE, PRODUCTS_FILE):
        frame = pd.read_parquet(tiny_world / name)
        frame = frame[frame["product_locale"] == "us"]
        (frame.assign(split="train") if "split" in frame else frame).to_parquet(folder / name)
    dataset = load_esci(folder)
    files = [score_file(tmp_path, dataset, name, signal) for name, signal in (("weak", 0.5), ("strong", 4.0))]
    (tmp_path / "tournament.toml").write_text(SETTINGS, encoding="utf-8")

    def run(file: Path, **variables: str):
        asked = ("run", "--home", home, "--data", folder, "--candidates", file, "--json")
        return tournament(*asked, cwd=tmp_path, **variables)

    refused = run(files[0])
    assert refused.code == 3
    assert "no pair is in the test split" in refused.err
    assert "test_share = 0.2" in refused.err
    answers = [run(file, TOURNAMENT_TEST_SHARE="0.4", TOURNAMENT_VALIDATION_SHARE="0.3") for file in files]
    assert [answer.code for answer in answers] == [0, 0], answers[-1].err
    first, second = (answer.document for answer in answers)
    assert first["verdict"]["missing"] == ["champion"]
    assert second["verdict"]["missing"] == []
    assert second["verdict"]["outcome"] in ("promote", "refuse")
    by_split = {row["split"]: row for row in second["data"]["by_split_locale"]}
    assert set(by_split) == {"train", "test"}
    assert 0.2 < by_split["test"]["queries"] / second["data"]["queries"] < 0.6
