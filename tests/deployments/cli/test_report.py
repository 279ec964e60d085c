"""`tournament report`: the report of a finished tournament."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_a_report_is_that_of_its_tournament(held, tournament):
    name = held.document["tournament"]
    again = tournament("report", name, "--home", held.home, "--json").document
    assert again["ensemble"] == held.document["ensemble"]
    assert again["report"] == held.document["report"]
    markdown = tournament("report", name, "--markdown", "--home", held.home)
    assert "bert-tiny" in markdown.out + markdown.err


def test_a_tournament_that_nobody_held_is_named_with_those_there_are(held, tournament):
    answer = tournament("report", "no-such", "--home", held.home)
    assert answer.code == 10
    assert "no-such" in answer.err
    assert held.document["tournament"] in answer.err
