"""`tournament data`: a world is generated, and checked like any folder."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_what_is_synthesized_passes_its_check_and_a_damaged_file_does_not(tournament, tmp_path):
    made = tournament("data", "synthesize", "--to", tmp_path / "world", "--queries", 60, "--json")
    assert made.code == 0, made.err
    assert tournament("data", "check", tmp_path / "world", "--json").document["passed"]
    (tmp_path / "world" / "shopping_queries_dataset_examples.parquet").write_bytes(b"no parquet")
    damaged = tournament("data", "check", tmp_path / "world", "--json")
    assert damaged.code == 3
    assert not damaged.document["passed"]
