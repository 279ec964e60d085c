"""The Python of the first screen runs as it is written there, with the model of the first tutorial as well."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import transformers

from tests.docs.compatibility import checkpoints
from tests.harness import PYTHON, clean_environment, warm

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"TOURNAMENT_RESAMPLES": "200", "TOURNAMENT_MINIMUM_TEST_QUERIES": "2", "TOURNAMENT_THREADS": "1"}


def python(page: str) -> str:
    """Return the first block of Python of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0]


@pytest.mark.slow
def test_the_first_lines_of_python_hold_a_tournament(tiny_world: Path, tmp_path: Path) -> None:
    config = transformers.BertConfig(max_position_embeddings=128, **checkpoints.SIZES)
    checkpoints._save(tmp_path / "my-encoder", config)
    os.symlink(tiny_world, tmp_path / "esci")
    mine, run = python("README.md").split("result = ")
    another, _ = python("docs/tutorials/model.md").split("result = ")
    code = [mine, another, f"result = {run}", 'print("MODELS", *sorted(result.leaderboard["model"]))']
    (tmp_path / "first.py").write_text("\n".join(code), encoding="utf-8")
    done = warm([PYTHON, tmp_path / "first.py"], tmp_path, clean_environment(**QUICK))
    assert done.code == 0, done.err
    assert "MODELS ensemble my-encoder sage-clicks" in done.out.splitlines()
