"""`tournament explain`: what each member contributed to the label of a pair."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from esci_tournament.deployments.cli.common import Output, command, workspace_of

DESCRIPTION = """\
Show which label the champion gives one pair, and what each member contributed to each class. The contributions are
exact SHAP values: they add up to the score.

example:
  tournament explain --query "red lamp" --locale us --title "Velo red lamp" --picture why.png
"""

FIELDS = ("title", "brand", "color", "bullets", "description")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "explain", work, "show what each member contributed to the label of a pair", DESCRIPTION)
    parser.add_argument("--query", required=True, help="the query")
    parser.add_argument("--locale", required=True, help="us, es or jp")
    parser.add_argument("--product-id", default="", help="id of the product, for members that know products by id")
    for field in FIELDS:
        parser.add_argument(f"--{field}", default="", help=f"the product's {field}")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write a bar chart: .png, .svg or .pdf")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")


def work(options: argparse.Namespace, output: Output) -> None:
    """Score the pair with every member, and show each one's contribution to the aggregator's answer."""
    import pandas as pd

    from esci_tournament.deployments.champion import load_champion
    from esci_tournament.tasks.ensemble.ensemble import TEXT_COLUMNS
    from esci_tournament.tasks.ensemble.explain import explain_pairs, save_picture

    champion = load_champion(workspace_of(options), options.device)
    for words in champion.warnings:
        output.warn(words)
    ensemble = champion.ensemble
    pair = {"query": options.query, "product_locale": options.locale, "product_id": options.product_id}
    frame = pd.DataFrame([pair | {TEXT_COLUMNS[field]: getattr(options, field) for field in FIELDS}])
    name = f"{options.query} -> {options.title or options.product_id}"
    explanation = explain_pairs(ensemble.aggregator, ensemble.member_scores(frame), [name])[0]
    output.say(explanation.to_text())
    if options.picture:
        save_picture(explanation, options.picture)
        output.say(f"picture: {options.picture}")
    output.document(explanation.to_dict())
