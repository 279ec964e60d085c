"""`tournament demo`: its candidates are what it says they are, and it says how long it takes."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from esci_tournament.deployments.cli import build_parser
from esci_tournament.deployments.cli.demo import DESCRIPTION, FULL, QUICK, Demo
from esci_tournament.registry.specs import CandidateSpec, read_specs
from tests.harness import Answer, clean_environment, warm


def specs_of(demo: Demo) -> list[CandidateSpec]:
    return read_specs(Path(str(files("esci_tournament.deployments") / demo.candidates)))


@pytest.mark.parametrize(
    ("demo", "words", "families"),
    [
        (QUICK, "a language model and a graph network", {"language_model": 1, "graph_network": 1}),
        (FULL, "three language models and three graph networks", {"language_model": 3, "graph_network": 3}),
    ],
)
def test_those_that_it_names_begin_and_one_more_comes_later(demo: Demo, words: str, families: dict[str, int]) -> None:
    *first, newcomer = specs_of(demo)
    assert words in " ".join(DESCRIPTION.split())
    assert Counter(spec.family for spec in first) == families
    assert newcomer.name not in {spec.name for spec in first}


@pytest.mark.parametrize("demo", [QUICK, FULL])
def test_nothing_of_the_demo_is_downloaded(demo: Demo) -> None:
    assert [spec.name for spec in specs_of(demo) if getattr(spec, "checkpoint", None)] == []


def test_one_home_may_have_both_demos() -> None:
    """A name stands for one spec in both, or the second demo would register another version of it."""
    known = {spec.name: spec for spec in specs_of(FULL)}
    assert all(known.get(spec.name, spec).digest() == spec.digest() for spec in specs_of(QUICK))


def test_it_needs_no_option() -> None:
    options = build_parser().parse_args(["demo"])
    assert (options.queries, options.seed, options.home, options.full) == (1500, 0, None, False)


def test_the_first_result_of_the_quick_demo_is_there_within_two_minutes_on_two_cores() -> None:
    assert QUICK.first * QUICK.seconds(2, 1500) <= 120
    assert QUICK.seconds(2, 1500) <= 240
    assert FULL.seconds(2, 1500) > QUICK.seconds(2, 1500)
    assert QUICK.seconds(1, 1500) > QUICK.seconds(8, 1500) > QUICK.seconds(8, 300)


def test_the_first_line_says_how_long_it_takes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ("demo", "--home", tmp_path / "file" / "home")  # it cannot be made, so the demo ends after the first line
    answer: Answer = warm(words, tmp_path, clean_environment(TOURNAMENT_THREADS=1))
    first = answer.out.splitlines()[0]
    assert first.startswith("about "), answer.out
    assert " on 1 idle core, the first result after about " in first
