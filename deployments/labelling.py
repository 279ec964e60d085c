"""Rows of any table as the champion reads them: products that are named by id alone are looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from esci_tournament.deployments.scorer.catalogue import ProductCatalogue

PROBLEM = "problem"


@dataclass(frozen=True)
class Rows:
    """Rows as the champion reads them.

    Attributes:
        frame: Columns `esci_tournament.tasks.ensemble.rows.INPUT_COLUMNS`, `str`, "" where a row says nothing; on a
            RangeIndex, in the order of the table.
        problems: Why each row cannot be answered, "" where it can; str (n,).
    """

    frame: pd.DataFrame
    problems: pd.Series

    @property
    def answerable(self) -> np.ndarray:
        """Which rows can be answered, bool (n,)."""
        return (self.problems == "").to_numpy()


def read_rows(frame: pd.DataFrame, products: Callable[[], ProductCatalogue]) -> Rows:
    """Return the rows of a table as the champion reads them, and why some cannot be answered.

    A row without any text of its product is looked up by locale and product_id.

    Args:
        frame: As for :func:`esci_tournament.tasks.ensemble.rows.rows_of`.
        products: Opens the champion's catalogue; called only when a row has to be looked up.

    Returns:
        One row for each row of `frame`.

    Raises:
        DataError: If a required column is absent.
    """
    from esci_tournament.tasks.ensemble.rows import TEXT_COLUMNS, problems_of, rows_of

    rows = rows_of(frame)
    problems = problems_of(rows)

    def refuse(wrong: pd.Series, why: pd.Series | str) -> None:
        here = wrong & (problems == "")
        problems[here] = why if isinstance(why, str) else why[here]

    bare = ~_any_text(rows) & (problems == "")
    refuse(bare & (rows["product_id"] == ""), "the row names no product: it has neither a text nor a product_id")
    wanted = rows[bare & (problems == "")]
    if len(wanted):
        catalogue = products()
        for locale, some in wanted.groupby("product_locale"):
            places = catalogue.find(str(locale), some["product_id"].tolist())
            found = some.index[places >= 0]
            texts = catalogue.texts(places[places >= 0].tolist())
            for name, column in TEXT_COLUMNS.items():
                rows.loc[found, column] = [getattr(text, name) for text in texts]
        nowhere = (
            "product " + rows["product_id"] + " has no text, here or in the catalogue of " + rows["product_locale"]
        )
        no_catalogue = "the row has no text of its product, and the champion's catalogue is not in this home"
        refuse(bare & ~_any_text(rows), nowhere if len(catalogue) else no_catalogue)
    return Rows(rows, problems)


def _any_text(rows: pd.DataFrame) -> pd.Series:
    from esci_tournament.tasks.ensemble.rows import TEXT_COLUMNS

    return rows[list(TEXT_COLUMNS.values())].apply(lambda column: column.str.strip() != "").any(axis=1)
