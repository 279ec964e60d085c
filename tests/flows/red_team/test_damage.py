"""Stored files change under the product: it notices before they are registered, judged by or served."""

from __future__ import annotations

from typing import Any

import pytest

from esci_tournament.flows import competition
from esci_tournament.flows.context import TournamentContext
from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.stages import StageStore
from esci_tournament.registry.tournaments import Attempt
from tests.flows.conftest import say


def flip_a_bit(path: Any) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_weights_that_change_after_they_were_scored_are_neither_registered_nor_promoted(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F2: the stage is damaged between the verdict and the registration."""
    judge = competition.judge.fn

    def judged(work: Any, context: TournamentContext, left: Any, *rest: Any) -> Any:
        trial = judge(work, context, left, *rest)
        flip_a_bit(left[0].inputs.model_folder(work.stages) / "spec.json")
        return trial

    monkeypatch.setattr(competition.judge, "fn", judged)
    with pytest.raises(StoreError, match=r"the model of weak/1: .*spec\.json has changed"):
        world.challenge("t-first", ["weak"])
    work = world.workspace
    assert work.models.ensembles() == []
    monkeypatch.undo()
    folder = world.entrant("weak", "newcomer").inputs.model_folder(work.stages)
    flip_a_bit(folder / "spec.json")  # as restored from a backup
    say(world, world.challenge("t-first", ["weak"]), reason="the first")
    assert world.champion() == 1


def test_an_ensemble_that_changes_before_it_is_registered_is_made_again(world: Any) -> None:
    """F2: the same for what the stage store holds of the ensemble itself."""
    case = world.challenge("t-first", ["weak"])
    work = world.workspace
    key = work.stages.key("ensemble", tournament=case.tournament)
    aggregator = next(work.stages.find(key).rglob("*.txt"))
    before = aggregator.read_bytes()
    flip_a_bit(aggregator)
    world.challenge("t-first", ["weak"])
    assert next(StageStore(work.stages.root).whole(key).rglob("*.txt")).read_bytes() == before


def test_a_damaged_challenger_is_built_again_as_it_was_judged(world: Any) -> None:
    """F2: the aggregator is damaged after the verdict; trees and numbers come out the same, so the verdict holds."""
    world.challenge("t-first", ["good", "weak"])
    stages = world.workspace.stages
    folder = next(stages.root.glob("challenge-*"))
    before = {path.name: path.read_bytes() for path in folder.rglob("*.txt")}
    for path in folder.rglob("*.txt"):
        flip_a_bit(path)
    world.challenge("t-first", ["good", "weak"])
    assert {path.name: path.read_bytes() for path in stages.whole(folder.name).rglob("*.txt")} == before


def test_scores_or_a_model_that_have_changed_are_not_taken_for_a_tournament(world: Any) -> None:
    """F2: an entrant whose files are damaged goes through training and scoring again."""
    entrant, work = world.entrant("weak", "newcomer"), world.workspace
    assert entrant.inputs.is_done(work.stages, work.scores)
    scores = work.scores.folder(entrant.id, world.source.version, entrant.inputs.digest()) / "scores.npz"
    flip_a_bit(scores)
    assert not entrant.inputs.is_done(work.stages, work.scores)
    flip_a_bit(scores)
    assert entrant.inputs.is_done(work.stages, work.scores)
    flip_a_bit(entrant.inputs.model_folder(work.stages) / "spec.json")
    assert not entrant.inputs.is_done(work.stages, work.scores)
    context = TournamentContext(Attempt("t", "new", 0, None), world.source, world.roles, [entrant])
    with pytest.raises(StoreError, match=r"spec\.json"):
        competition.survivors.fn(work, context, [""])
