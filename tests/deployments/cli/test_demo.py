"""`tournament demo`: its candidates are what it says they are."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path

from esci_tournament.deployments.cli import build_parser
from esci_tournament.deployments.cli.demo import DESCRIPTION
from esci_tournament.registry.specs import read_specs


def test_three_language_models_and_three_graph_networks_begin_and_one_more_comes_later() -> None:
    *first, newcomer = read_specs(Path(str(files("esci_tournament.deployments") / "demo.toml")))
    assert "three language models and three graph\nnetworks" in DESCRIPTION
    assert Counter(spec.family for spec in first) == {"language_model": 3, "graph_network": 3}
    assert newcomer.name not in {spec.name for spec in first}


def test_nothing_of_the_demo_is_downloaded() -> None:
    specs = read_specs(Path(str(files("esci_tournament.deployments") / "demo.toml")))
    assert [spec.name for spec in specs if getattr(spec, "checkpoint", None)] == []


def test_it_needs_no_option() -> None:
    options = build_parser().parse_args(["demo"])
    assert (options.queries, options.seed, options.home) == (1500, 0, None)
