"""The text that a reviewer reads beside the form."""

from __future__ import annotations

from dataclasses import replace

import pytest

from esci_tournament.tasks.report.review_words import review_markdown, review_title

BEFORE = ("minilm-l6/3", "gatv2-clicks/1", "sage-impressions/1")


def row(scope: str, metric: str, before: float, after: float) -> dict[str, object]:
    return {
        "scope": scope,
        "metric": metric,
        "champion": before,
        "champion_low": before - 0.02,
        "champion_high": before + 0.02,
        "challenger": after,
        "challenger_low": after - 0.01,
        "challenger_high": after + 0.01,
        "difference": after - before,
        "difference_low": after - before - 0.005,
        "difference_high": after - before + 0.005,
    }


def test_who_comes_in_and_who_goes_is_told_against_the_champions_members(summary):
    text = review_markdown(summary, BEFORE, {})
    assert "Members in: e5-small v1" in text
    assert "Members evicted: sage-impressions v1" in text
    assert "Members that stay: minilm-l6 v3 and gatv2-clicks v1" in text


def test_metrics_stand_before_and_after_with_intervals_overall_and_by_locale(summary):
    metrics = [row("all", "macro_f1", 0.54, 0.563), row("jp", "macro_f1", 0.5, 0.521)]
    text = review_markdown(replace(summary, verdict={**summary.verdict, "metrics": metrics}), BEFORE, {})
    assert "| **macro F1** | 0.540 (0.520 to 0.560) | 0.563 (0.553 to 0.573) | +0.023 (+0.018 to +0.028) |" in text
    assert "| jp | 0.500 (0.480 to 0.520) | 0.521 (0.511 to 0.531) | +0.021 (+0.016 to +0.026) |" in text


def test_where_too_few_queries_tell_there_is_no_interval(summary):
    known = row("all", "macro_f1", 0.54, 0.563)
    text = review_markdown(
        replace(summary, verdict={**summary.verdict, "metrics": [known | {"champion_low": None}]}), (), {}
    )
    assert "| **macro F1** | 0.540 (too few) | 0.563 (0.553 to 0.573) |" in text


def test_cost_stands_before_and_after_beside_the_budget_and_is_unknown_when_a_member_was_not_measured(summary):
    assert "| memory | 425 MiB | 637 MiB | 800 MiB |" in review_markdown(summary, BEFORE[:2], {})
    assert "| memory | – | 637 MiB | 800 MiB |" in review_markdown(summary, ("gone/1",), {})


def test_each_member_has_its_worth(summary):
    text = review_markdown(summary, BEFORE, {})
    assert "| minilm-l6 v3 | 41.2 % (38.5 to 44.0) | +0.031 ± 0.006 | 212 MiB | 41.3 ms |" in text
    assert "| e5-small v1 | 25.7 % (22.6 to 28.9, no more than noise) | 0.000 ± 0.004 |" in text
    assert "A member of noise beside them would get 2.1 % on average, and more than 3.4 % in one of twenty" in text
    assert "e5-small v1: no more than noise." in text


def test_notes_come_first_and_nothing_of_others_is_markup(summary):
    text = review_markdown(summary, BEFORE, {"Report": "/home/a b/report.html"}, ["[x](javascript:1) <b>"], "soon")
    assert text.startswith(r"> **\[x\](javascript:1) \<b\>**")
    assert "Report: `/home/a b/report.html`" in text
    assert "[MLflow](https://mlflow/a%20%28b%29)" in review_markdown(summary, (), {"MLflow": "https://mlflow/a (b)"})


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({}, "Promote version 4 over champion version 3?"),
        ({"champion": None, "champion_version": ""}, "Install version 4 as the first champion?"),
    ],
)
def test_the_title_says_what_is_asked(changes, title, build_summary):
    assert review_title(build_summary(**changes)) == title


def test_a_sparse_summary_is_told_without_gaps(sparse_summary):
    text = review_markdown(sparse_summary, (), {})
    assert "Not evaluable" in text
    assert "None" not in text
    assert "nan" not in text.replace("minilm", "")


def test_the_outcome_is_not_said_twice(build_summary):
    verdict = {"outcome": "not_evaluable", "reason": "not evaluable: there is no champion to compare with"}
    text = review_markdown(build_summary(verdict=verdict), (), {})
    assert "**Verdict: Not evaluable.** There is no champion to compare with" in text
