"""`tournament score`: label the rows of a file with the champion."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from esci_tournament.deployments.cli.common import Output, command, workspace_of
from esci_tournament.registry.spelling import counted

DESCRIPTION = """\
Label query-product pairs with the champion. The input is CSV, TSV or parquet with the dataset's column names: query
and product_locale are required; product_title, product_brand, product_color, product_bullet_point, product_description
and product_id are used when present. A product without any text is looked up by its id.

The answer has the rows of the input, in their order and with their cells as they are (CSV is text: 007, NA and null
stay), and the columns E, S, C, I (probabilities), label and problem: why a row has no answer. Where the input has one
of these columns, all of them begin with champion_.

In a CSV file, text that a spreadsheet would take for a formula (it begins with =, +, -, @, a tab or a line break, and
is no number) starts with an apostrophe. A program that compares it with the input wants --raw, or a parquet file, which
has no such apostrophes.

example:
  tournament score pairs.csv --out labelled.csv
"""

SHOWN_PROBLEMS = 5  # kinds of rows without an answer that are told


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "score", work, "label the pairs of a file with the champion", DESCRIPTION)
    parser.add_argument("file", type=Path, help="CSV, TSV (also with .gz) or parquet file of pairs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="CSV, TSV or parquet file to write (default: show)")
    parser.add_argument("--raw", action="store_true", help="write CSV for programs: no text is changed")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")


def work(options: argparse.Namespace, output: Output) -> None:
    """Label the pairs of the file, and write them to `--out` or show the first 50.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        DataError: if the file cannot be read, or not a single row can be answered.
        UsageError: if the name of `--out` says no known format.
    """
    import pyarrow as pa

    from esci_tournament.deployments.champion import load_champion
    from esci_tournament.deployments.pair_tables import beside, check_name, read_table, without_index, write_table
    from esci_tournament.registry.errors import DataError

    if options.out:
        check_name(options.out)
    table = read_table(options.file)
    champion = load_champion(workspace_of(options), options.device)
    for words in champion.warnings:
        output.warn(words)
    answer = champion.predict(readable(table), strict=False)
    found = {name: pa.array(answer[name], from_pandas=True) for name in answer}
    labelled, prefix = beside(table, found)
    if prefix:
        taken = ", ".join(name for name in found if name in table.column_names)
        output.warn(f"the file has columns of our names ({taken}); ours begin with {prefix}")
    problems = answer["problem"].dropna()
    for problem, count in list(problems.value_counts().items())[:SHOWN_PROBLEMS]:
        row = int(problems.index[problems == problem][0])
        output.warn(f"{count:,} of {len(answer):,} rows have no answer (first: row {row + 1}): {problem}")
    if options.out:
        write_table(labelled, options.out, raw=options.raw)
        pairs = counted(len(answer) - len(problems), "pair")
        output.say(f"{pairs} labelled by champion version {champion.version}: {options.out}")
    else:
        show(labelled, prefix, output)
    if len(problems) == len(answer):
        raise DataError(
            "not a single row can be answered", file=options.file, count=len(answer), advice=problems.iloc[0]
        )
    if output.as_json:
        pairs = without_index(labelled).to_pylist()
        output.document({"champion": champion.version, "pairs": pairs, "unanswered": len(problems)})


def readable(table: Any) -> Any:
    """Return an Arrow table as a pandas frame on a RangeIndex; columns that the champion does not read are empty."""
    import pandas as pd

    from esci_tournament.tasks.ensemble.rows import INPUT_COLUMNS

    # As Python's own objects: integers beside missing values stay integers
    columns = [
        pd.Series(column.to_pylist() if name in INPUT_COLUMNS else None, range(len(column)), object, name)
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return pd.concat(columns, axis=1)


def show(labelled: Any, prefix: str, output: Output) -> None:
    """Show the first 50 rows of what was labelled."""
    from esci_tournament.registry.labels import LABELS

    columns = [name for name in ("query", "product_title", "product_id") if name in labelled.column_names]
    wanted = [*columns, *(f"{prefix}{name}" for name in (*LABELS, "label", "problem"))]
    frame = (
        labelled.select(wanted)
        .slice(0, 50)
        .to_pandas()
        .fillna({f"{prefix}{name}": "" for name in ("label", "problem")})
    )
    output.say(frame.to_string(max_colwidth=48))
