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


def test_other_tables_are_imported_and_what_was_made_of_them_is_said(tournament, tmp_path):
    rows = "".join(f'lamp {n % 40},"L{n}",Lamp {n},{n % 4}\n' for n in range(400))
    (tmp_path / "mine.csv").write_text("search_term,sku,title,grade\n" + rows)
    labels = [f"--label={number}={letter}" for number, letter in enumerate("ICSE")]
    made = tournament("data", "import", tmp_path / "mine.csv", "--to", tmp_path / "esci", "--locale", "us", *labels)
    assert made.code == 0, made.err
    for part in (
        "sku as product_id",
        "400 rows",
        "split of mine.csv: train, nothing tells it",
        "test_share",
        "400 pairs",
    ):
        assert part in made.out
    unsaid = tournament("data", "import", tmp_path / "mine.csv", "--to", tmp_path / "other", "--locale", "us")
    assert unsaid.code == 3
    assert "--label" in unsaid.err
    assert tournament("data", "import", tmp_path, "--to", tmp_path / "other", "--label", "3=best").code == 2
