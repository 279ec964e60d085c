"""`tournament score`: label the rows of a file with the champion."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from esci_tournament.deployments.cli.common import Output, command, workspace_of

DESCRIPTION = """\
Label query-product pairs with the champion. The input is CSV or parquet with the dataset's column names: query and
product_locale are required; product_title, product_brand, product_color, product_bullet_point, product_description
and product_id are used when present. The answer adds the columns E, S, C, I (probabilities) and label.

In a CSV file, text that a spreadsheet would take for a formula (it begins with =, +, -, @, a tab or a line break)
starts with an apostrophe. A program that compares it with the input wants --raw, or a parquet file, which has no such
apostrophes.

example:
  tournament score pairs.csv --out labelled.csv
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "score", work, "label the pairs of a file with the champion", DESCRIPTION)
    parser.add_argument("file", type=Path, help="CSV or parquet file of pairs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="CSV or parquet file to write (default: show)")
    parser.add_argument("--raw", action="store_true", help="write CSV for programs: no text is changed")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")


def work(options: argparse.Namespace, output: Output) -> None:
    """Label the pairs of the file, and write them to `--out` or show the first 50."""
    from esci_tournament.deployments.champion import load_champion
    from esci_tournament.registry.labels import LABELS

    frame = read_table(options.file)
    champion = load_champion(workspace_of(options), options.device)
    for words in champion.warnings:
        output.warn(words)
    answer = frame.join(champion.predict(frame))
    if options.out:
        write_table(answer, options.out, raw=options.raw)
        output.say(f"{len(answer):,} pairs labelled by champion version {champion.version}: {options.out}")
    else:
        columns = [name for name in ("query", "product_title", "product_id") if name in answer]
        output.say(answer[[*columns, *LABELS, "label"]].head(50).to_string(max_colwidth=48))
    output.document({"champion": champion.version, "pairs": answer.to_dict(orient="records")})


def read_table(path: Path) -> Any:
    """Return the rows of a CSV or parquet file as a pandas frame.

    Raises:
        DataError: if the file is missing, unreadable, without rows, or named neither .csv nor .parquet.
    """
    import pandas as pd

    from esci_tournament.registry.errors import DataError

    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    if path.suffix not in readers:
        raise DataError("not a .csv or .parquet file", file=path)
    try:
        frame = readers[path.suffix](path)
    except FileNotFoundError as error:
        raise DataError("the file is missing", file=path) from error
    except (ArithmeticError, LookupError, MemoryError, NotImplementedError, OSError, TypeError, ValueError) as error:
        raise DataError(f"the file cannot be read: {error}", file=path) from error
    if frame.empty:
        raise DataError("the file holds no rows", file=path)
    return frame


def write_table(frame: Any, path: Path, raw: bool = True) -> None:
    """Write a frame to a CSV or parquet file, under a temporary name first, so that a file is complete or absent.

    Args:
        frame: pandas frame; its index is not written.
        path: file whose name ends in .csv or .parquet.
        raw: whether CSV has all text as it is, also what a spreadsheet would take for a formula.

    Raises:
        UsageError: if the name ends otherwise.
    """
    from esci_tournament.registry.errors import UsageError
    from esci_tournament.registry.files import publish

    if path.suffix not in (".csv", ".parquet"):
        raise UsageError(f"--out {path}: the name must end in .csv or .parquet")
    partial = path.with_name(f".{path.name}.part")
    if path.suffix == ".csv":
        (frame if raw else _harmless(frame)).to_csv(partial, index=False)
    else:
        frame.to_parquet(partial, index=False)
    publish(partial, path)


def _harmless(frame: Any) -> Any:
    """Return a frame of which a spreadsheet takes no text and no column's name for a formula."""
    from esci_tournament.registry.spreadsheets import harmless

    texts = [place for place in range(frame.shape[1]) if frame.dtypes.iloc[place].kind not in "biufcmM"]
    columns = [
        frame.iloc[:, place].astype(object).map(harmless) if place in texts else frame.iloc[:, place]
        for place in range(frame.shape[1])
    ]
    import pandas as pd

    changed = pd.concat(columns, axis=1) if columns else frame
    return changed.set_axis([harmless(name) for name in frame.columns], axis=1)
