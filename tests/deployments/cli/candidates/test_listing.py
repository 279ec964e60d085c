"""`tournament candidates`: the state of every candidate, and the story of one."""

from __future__ import annotations

from typing import Any

import pytest

from esci_tournament.deployments.cli import build_parser
from esci_tournament.deployments.cli.candidates import listing


def test_options_stand_before_or_after_the_part_and_without_a_part_all_are_listed() -> None:
    parser = build_parser()
    before = parser.parse_args(["candidates", "--json", "--home", "h", "show", "x"])
    after = parser.parse_args(["candidates", "show", "x", "--json", "--home", "h"])
    assert (
        (before.json, before.home, before.work)
        == (after.json, after.home, after.work)
        == (True, after.home, listing.show)
    )
    assert str(after.home) == "h"
    alone = parser.parse_args(["candidates"])
    assert (alone.json, alone.home, alone.debug) == (False, None, False)


@pytest.mark.slow
def test_candidates_speak_json(held: Any, tournament: Any) -> None:
    candidates = tournament("candidates", "--home", held.home, "--json").document
    assert {row["candidate"] for row in candidates} >= {"bert-tiny/1", "sage-impressions/1", "gcn-clicks/1"}


@pytest.mark.slow
def test_a_member_has_a_story_with_numbers_from_its_registration_on(held: Any, tournament: Any) -> None:
    member = next(one for one in held.document["models"] if one["status"] == "member")
    answer = tournament("candidates", "show", member["name"], "--home", held.home, "--json")
    assert answer.code == 0, answer.err
    told = answer.document
    assert [one["event"] for one in told["events"]][:2] == ["registered", "entered"]
    assert "became a member" in [one["event"] for one in told["events"]]
    assert (told["state"], told["spec"]["family"]) == ("member", member["family"])
    assert told["member_since"] is not None
    (held_in,) = told["tournaments"]
    assert (held_in["tournament"], held_in["status"]) == (held.document["tournament"], "member")
    assert held_in["fit_seconds"] > 0
    assert held_in["blend"] == {name: member["blend"][name] for name in held_in["blend"]}
    assert held_in["utility"]["share"] == member["utility"]
    assert told["log"]["path"].endswith(f"{member['name']}-1.log")
    assert told["registered"]["by"]
    for words in ("became a member", "worth", "MiB", told["log"]["path"]):
        assert words in answer.err
