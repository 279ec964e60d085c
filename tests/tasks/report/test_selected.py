"""The gain that won stands beside what it is worth given that it won, in the page and in both Markdown texts."""

from dataclasses import replace

import pytest

from esci_tournament.tasks.report.page import render
from esci_tournament.tasks.report.review_words import review_markdown
from esci_tournament.tasks.report.selected import gain_markdown, gain_rows
from esci_tournament.tasks.report.table import as_markdown

GIVEN = {"measured": 0.0234, "measured_low": 0.011, "measured_high": 0.036, "error": 0.006, "cut": 0.0129}
GIVEN |= {"estimate": 0.0201, "low": -0.0004, "high": 0.0351}


@pytest.fixture
def winner(summary):
    return replace(summary, verdict={**summary.verdict, "conditional": GIVEN})


def test_both_gains_stand_beside_each_other_with_why_they_differ(winner):
    page, text, review = render(winner), as_markdown(winner), review_markdown(winner, (), {})
    assert gain_rows(winner) == [
        ("as measured", "+0.023", "+0.011 to +0.036"), ("given that it won", "+0.020", "0.000 to +0.035"),
    ]  # fmt: skip
    for title, gain, spread in gain_rows(winner):
        assert f"| {title} | {gain} | {spread} |" in text
        assert f"| {title} | {gain} | {spread} |" in review
        assert gain in page
        assert spread in page
    assert "A gain above +0.013 was needed to win." in page


def test_a_verdict_that_refuses_or_is_older_has_none_and_a_missing_interval_is_a_dash(summary, winner):
    assert gain_markdown(summary) == ""
    assert "given that it won" not in render(summary)
    bare = replace(winner, verdict={**winner.verdict, "conditional": GIVEN | {"measured_low": None}})
    assert gain_rows(bare)[0] == ("as measured", "+0.023", "–")


def test_a_gain_in_probabilities_says_what_it_is_a_gain_of(winner):
    given = GIVEN | {"metric": "log_loss"}
    text = gain_markdown(replace(winner, verdict={**winner.verdict, "conditional": given}))
    assert "gain in log loss (how far it falls, in nats)" in text
