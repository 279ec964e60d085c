"""What a replica makes of a model: an answer for each part of a batch, or why there is none."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from esci_tournament.deployments.scorer.catalogue import Text
from esci_tournament.deployments.scorer.compute.pairs import MemberBroken, NotAnswered, PageFailed, Pairs
from esci_tournament.deployments.scorer.compute.replica import Answer, Judge, LocalReplica, answers_of, scores_of
from tests.deployments.scorer.conftest import Hashed


def page(number: int, title: str = "lamp") -> Pairs:
    return Pairs("red lamp", "us", [Text(f"P{row}", f"{title} {row}", "", "", "", "") for row in range(number)])


@pytest.mark.parametrize("most_pairs", [1, 4, 7, 100])
def test_scores_do_not_depend_on_how_many_pairs_a_model_is_given_at_once(most_pairs: int) -> None:
    model = Hashed("a")
    whole = model.predict_proba(*page(7).frames)
    model.calls.clear()
    np.testing.assert_array_equal(scores_of(model, [page(7)], most_pairs), whole)
    assert max(model.calls) <= most_pairs


def test_each_part_gets_its_own_answer_and_a_part_that_fails_fails_alone() -> None:
    model, parts = Hashed("a"), [page(2), page(1, "poison"), page(3)]
    first, failed, last = answers_of(model, parts, 100)
    np.testing.assert_array_equal(first, model.predict_proba(*page(2).frames))
    np.testing.assert_array_equal(last, model.predict_proba(*page(3).frames))
    assert isinstance(failed, NotAnswered)
    assert str(failed) == "RuntimeError: it cannot bear this"


class Wrong(Hashed):
    """A model that answers with something else."""

    def __init__(self, answer: np.ndarray) -> None:
        super().__init__("a")
        self.answer = answer

    def predict_proba(self, *_: Any) -> np.ndarray:
        return self.answer


@pytest.mark.parametrize(
    "answer", [np.ones((1, 4)), np.ones((2, 3)), np.ones(2), np.array([[1, 0, 0, 0], [np.nan, 0, 0, 1]])]
)
def test_an_answer_that_is_no_finite_number_for_each_pair_and_class_is_none(answer: np.ndarray) -> None:
    with pytest.raises(NotAnswered, match="its answer for 2 pairs has shape"):
        scores_of(Wrong(answer), [page(2)], 100)


def test_a_replica_in_this_process_answers_in_the_event_loop_with_rows_of_a_page() -> None:
    model = Hashed("a")
    replica = LocalReplica({"a/1": model}, slots=1, threads=1, most_pairs=100)

    async def go() -> list[Answer]:
        loop = asyncio.get_running_loop()
        come: asyncio.Future[list[Answer]] = loop.create_future()
        replica.send("a/1", [(page(5), 1, 3)], lambda answers, seconds: come.set_result(answers))
        return await asyncio.wait_for(come, 10)

    (answer,) = asyncio.run(go())
    np.testing.assert_array_equal(answer, model.predict_proba(*page(5).frames)[1:3])
    assert not replica.give_up()  # a thread cannot be stopped
    replica.end()


class Delicate(Hashed):
    """A model that cannot bear some titles, nor the page that is tried after a failure."""

    def predict_proba(self, pairs: Any, products: Any) -> np.ndarray:
        if products["title"].isin(["a", "lamp 1"]).any():
            raise IndexError("index out of range in self")
        return super().predict_proba(pairs, products)


def test_a_page_is_to_blame_when_the_model_still_answers_for_what_it_has_answered_before() -> None:
    model, judge = Delicate("a"), Judge()
    (first,) = judge.answers("a/1", model, [page(2)], 100)
    assert isinstance(first, MemberBroken)  # nothing shows yet that it ever works
    good, bad = judge.answers("a/1", model, [page(1), page(2)], 100)
    assert isinstance(good, np.ndarray)
    assert isinstance(bad, PageFailed)
    (again,) = judge.answers("a/1", model, [page(2)], 100)
    assert isinstance(again, PageFailed)


def test_a_replica_in_this_process_tells_pages_from_models_too() -> None:
    replica = LocalReplica({"a/1": Hashed("a")}, slots=1, threads=1, most_pairs=100)

    async def go() -> list[Answer]:
        come: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        replica.send("a/1", [(page(1, "poison"), 0, 1)], lambda answers, seconds: come.set_result(answers))
        return await asyncio.wait_for(come, 10)

    (answer,) = asyncio.run(go())
    assert type(answer) is PageFailed
    replica.end()
