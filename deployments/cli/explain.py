"""`tournament explain`: what each member contributed to the label of a pair."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from esci_tournament.deployments.cli.common import Output, command, workspace_of
from esci_tournament.registry.labels import LABEL_NAMES, LABELS

DESCRIPTION = """\
Show which label the champion gives one pair, and what each member contributed to each class. The contributions are
exact SHAP values: they add up to the score. The picture is shap's waterfall of one class.

example:
  tournament explain --query "red lamp" --locale us --title "Velo red lamp" --picture why.png
"""

FIELDS = ("title", "brand", "color", "bullets", "description")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "explain", work, "show what each member contributed to the label of a pair", DESCRIPTION)
    parser.add_argument("--query", required=True, help="the query")
    parser.add_argument("--locale", required=True, help="us, es or jp")
    parser.add_argument("--product-id", default="", help="id of the product; one without text is looked up by it")
    for field in FIELDS:
        parser.add_argument(f"--{field}", default="", help=f"the product's {field}")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write shap's waterfall: .png, .svg or .pdf")
    parser.add_argument("--class", dest="letter", choices=LABELS, help="the picture's class (default: the label)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")


def work(options: argparse.Namespace, output: Output) -> None:
    """Score the pair with every member, and show each one's contribution to the aggregator's answer."""
    import pandas as pd

    from esci_tournament.deployments.champion import load_champion
    from esci_tournament.tasks.ensemble.explain import explain_pairs
    from esci_tournament.tasks.ensemble.rows import TEXT_COLUMNS

    champion = load_champion(workspace_of(options), options.device)
    for words in champion.warnings:
        output.warn(words)
    ensemble = champion.ensemble
    pair = {"query": options.query, "product_locale": options.locale, "product_id": options.product_id}
    frame = champion.read(
        pd.DataFrame([pair | {TEXT_COLUMNS[field]: getattr(options, field) for field in FIELDS}])
    ).frame
    name = f"{options.query} -> {options.title or options.product_id}"
    columns = ensemble.member_scores(frame)
    explained = explain_pairs(ensemble.aggregator, columns, [name])[0]
    output.say(explained.to_text())
    if options.picture:
        import matplotlib as mpl

        from esci_tournament.tasks.ensemble.explanation import explanation
        from esci_tournament.tasks.report.shap_figures import save_waterfall

        mpl.use("agg")  # no window
        kind = LABEL_NAMES[LABELS.index(options.letter or explained.label)]
        save_waterfall(explanation(ensemble.aggregator, columns)[0, :, kind], f"{name}: {kind}", options.picture)
        output.say(f"picture: {options.picture}")
    output.document(explained.to_dict())
