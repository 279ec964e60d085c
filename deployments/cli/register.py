"""`tournament register`: register candidates for the next tournament."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from esci_tournament.deployments.cli.common import Output, command, workspace_of

DESCRIPTION = """\
Check the specs of a TOML file and register each as a version of a registered model in MLflow. A spec that is
registered already keeps its version. While `tournament up` runs, they are tried without another command; otherwise by
the next `tournament run --data DIR` without --candidates.

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
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "register", work, "register candidates for the next tournament", DESCRIPTION)
    parser.add_argument("file", type=Path, help="TOML file with [[candidate]] tables")


def work(options: argparse.Namespace, output: Output) -> None:
    """Register every candidate of the file; none when one of the specs is wrong."""
    from esci_tournament.deployments.api import register_all
    from esci_tournament.registry.specs import read_specs

    versions = register_all(workspace_of(options), read_specs(options.file))
    for one in versions:
        output.say(f"registered {one.id}")
    output.document([{"name": one.name, "version": one.version, "run_id": one.run_id} for one in versions])
