"""The leaderboard as a frame: every model once, figures as numbers, missing measurements as NaN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from esci_tournament.tasks.report.leaderboard import COLUMNS, leaderboard


def test_every_model_stands_once_after_the_ensemble(summary):
    board = leaderboard(summary)
    assert tuple(board.columns) == COLUMNS
    assert list(board["model"]) == ["ensemble", *(model.name for model in summary.models)]
    assert board["status"][0] == "champion"
    assert board["accuracy"][0] == summary.ensemble.accuracy
    assert board["page_ms"][1] == summary.models[0].cost["milliseconds_per_page_p50"]


def test_what_was_not_measured_is_not_a_number_and_the_reason_is_told(summary):
    failed = leaderboard(summary).set_index("status").loc["failed"]
    assert np.isnan(failed[["macro_f1", "utility", "memory_mib", "fit_seconds"]].astype(float)).all()
    assert failed["reason"]


def test_sums_over_members_are_not_told_when_one_of_them_is_unknown(summary):
    member, *others = summary.models
    unknown = replace(member, fit_seconds=None, cost={})
    first = leaderboard(replace(summary, models=[unknown, *others])).iloc[0]
    assert np.isnan(first["fit_seconds"])
    assert np.isnan(first["parameters"])


def test_a_challenger_that_was_not_promoted_is_called_one(summary):
    assert leaderboard(replace(summary, promoted=False))["status"][0] == "challenger"
