"""`tournament explain`: the contribution of each member to a pair's label."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_contributions_of_all_members_are_told_and_drawn(held, tournament, tmp_path):
    pair = ("--query", "red lamp", "--locale", "us", "--title", "Velo red lamp")
    picture = ("--picture", tmp_path / "why.png", "--class", "I")
    answer = tournament("explain", *pair, *picture, "--home", held.home, "--json")
    assert answer.code == 0, answer.err
    members = tournament("champion", "show", "--home", held.home, "--json").document["members"]
    assert all(member in answer.out for member in members)
    assert (tmp_path / "why.png").stat().st_size > 1000


def test_without_a_champion_it_says_so(tournament, tmp_path):
    answer = tournament("explain", "--query", "x", "--locale", "us", "--home", tmp_path)
    assert answer.code == 10
    assert "no champion yet" in answer.err
