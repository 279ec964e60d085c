"""`tournament register`: register candidates for the next tournament."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from esci_tournament.deployments.cli.common import Output, checked_specs, command, say_where, workspace_of

DESCRIPTION = """\
Check the specs of a TOML file and register each as a version of a registered model in MLflow. A spec that is
registered already keeps its version. While `tournament up` runs, they are tried without another command; otherwise by
the next `tournament run --data DIR` without --candidates.

A version that stands in MLflow already is named by its address: its tag `tournament.spec` is written. Weights of
mlflow.transformers and mlflow.sentence_transformers are fine-tuned here; everything else takes part as it is, as a
pyfunc, for which its owner states what it was trained on.

example file:
  [[candidate]]
  name = "minilm-l6"
  family = "language_model"
  checkpoint = "models/minilm-l6"        # Hugging Face folder or hub id
  recipe = { epochs = 3, max_length = 128 }

  [[candidate]]
  name = "sage-clicks"
  family = "graph_network"
  architecture = "graphsage"
  relation = "clicks"

example versions:
  tournament register models:/ESCI-Cross-Encoder/3 --set recipe.epochs=2
  tournament register models:/house-relevance@production --set trained_on=other_queries \\
      --set provenance="search team, clicks of 2025, no judgement of this data"
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "register", work, "register candidates for the next tournament", DESCRIPTION)
    parser.add_argument(
        "what", metavar="FILE|models:/NAME/VERSION", help="TOML file with [[candidate]] tables, or a registered version"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a key of a registered version's spec"
    )


def work(options: argparse.Namespace, output: Output) -> None:
    """Register every candidate of the file, none when one of the specs is wrong; or enter a registered version.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        UsageError: if `--set` is given with a file, or is no KEY=VALUE.
    """
    from esci_tournament.deployments.api import register_all, register_version
    from esci_tournament.registry.errors import UsageError

    workspace = workspace_of(options)
    if options.what.startswith("models:/"):
        versions = [register_version(workspace, options.what, parse_keys(options.set))]
    elif options.set:
        raise UsageError("--set belongs to a registered version, models:/NAME/VERSION; change the file instead")
    else:
        specs = checked_specs(Path(options.what), workspace.settings)
        versions = register_all(workspace, specs, checked=True)
    for one in versions:
        output.say(f"registered {one.id}")
    say_where(workspace.settings, output)
    output.document([{"name": one.name, "version": one.version, "run_id": one.run_id} for one in versions])


def parse_keys(given: Sequence[str]) -> dict[str, Any]:
    """Return the keys of a spec that options `--set KEY=VALUE` give.

    Args:
        given: The options' values; keys with dots stand in tables, values are TOML, or else text.

    Returns:
        Key -> value.

    Raises:
        UsageError: if one has no =, or a key is a table in one and a value in another.

    Example:
        >>> parse_keys(["recipe.epochs=2", "trained_on=other_queries", 'classes=["C", "E", "I", "S"]'])
        {'recipe': {'epochs': 2}, 'trained_on': 'other_queries', 'classes': ['C', 'E', 'I', 'S']}
    """
    from esci_tournament.registry.errors import UsageError

    found: dict[str, Any] = {}
    for one in given:
        dotted, equals, text = one.partition("=")
        *above, key = dotted.strip().split(".")
        if not equals or not key:
            raise UsageError(f"--set {one}: write KEY=VALUE, such as recipe.epochs=2")
        table = found
        for name in above:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise UsageError(f"--set {one}: {name} has a value already")
        try:
            table[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            table[key] = text
    return found
