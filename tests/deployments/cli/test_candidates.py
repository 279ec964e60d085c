"""`tournament candidates`: the state of every candidate."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_candidates_speak_json(held, tournament):
    candidates = tournament("candidates", "--home", held.home, "--json").document
    assert {row["candidate"] for row in candidates} >= {"bert-tiny/1", "sage-impressions/1", "gcn-clicks/1"}
