"""The champion as a model in this process: loaded from MLflow, it labels the rows of pandas frames."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.labels import LABELS

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import shap

    from esci_tournament.deployments.labelling import Rows
    from esci_tournament.deployments.scorer.catalogue import ProductCatalogue
    from esci_tournament.registry.versions import EnsembleVersion
    from esci_tournament.registry.workspace import Workspace
    from esci_tournament.tasks.ensemble.ensemble import Ensemble


@dataclass(frozen=True)
class ChampionModel:
    """The champion, loaded into this process.

    Attributes:
        version: Version number of the ensemble in MLflow.
        members: Candidate ids (`name/version`), in the order of the aggregator's columns.
        ensemble: The fitted members and the aggregator over their scores.
        warnings: What somebody should look into: an alias in MLflow that was moved by hand, and is not followed; files
            that could be compared with nothing.
        products: Opens the catalogue in which products without text are looked up by id.
    """

    version: int
    members: tuple[str, ...]
    ensemble: Ensemble
    warnings: tuple[str, ...] = ()
    products: Callable[[], ProductCatalogue] | None = None

    def predict(self, frame: pd.DataFrame, *, strict: bool = True) -> pd.DataFrame:
        """Return the class probabilities and the label of each query-product pair.

        Args:
            frame: One row a pair, with the official column names of the Shopping Queries Dataset. query and
                product_locale (us, es or jp) are required; product_id, product_title, product_brand, product_color,
                product_bullet_point and product_description are taken as empty when they are absent. A product
                without any text is looked up by its locale and id. Other columns are ignored.
            strict: Whether a row that cannot be answered is an error. Otherwise its probabilities are missing, its
                label is None, and a column `problem` says why (None in the other rows).

        Returns:
            One row for each row of `frame`, in its order and on its index: float32 columns E, S, C and I that add up
            to 1, and label, a letter: that of the class the ensemble decides for, which is not always the most
            probable one (see docs/decisions.md). To put it beside the frame: `pd.concat([frame, answer], axis=1)` with
            a unique index.

        Raises:
            DataError: if a required column is absent, or, when `strict`, a query is blank, a locale unknown, or a
                product has no text and is not in the catalogue.
        """
        import numpy as np
        import pandas as pd

        from esci_tournament.deployments.labelling import PROBLEM

        rows = self.read(frame, strict=strict)
        here = rows.answerable
        answer = pd.DataFrame(np.nan, index=range(len(frame)), columns=list(LABELS), dtype=np.float32)
        answer["label"] = pd.Series(None, index=answer.index, dtype=object)
        if here.any():
            answer[here] = self.ensemble.predict(rows.frame[here])
        if not strict:
            answer[PROBLEM] = rows.problems.where(~here, None)
        return answer.set_axis(frame.index)

    def explain(self, frame: pd.DataFrame) -> shap.Explanation:
        """Return what each member adds to each class's raw score of each query-product pair.

        Args:
            frame: As for :meth:`predict`.

        Returns:
            `values` float64 (n, k, 4), `base_values` float64 (n, 4), `data` float32 (n, k, 4): the member's own
            probability of the class. `found[:, :, "Exact"]` is what `shap.plots.bar` and `shap.plots.beeswarm` draw,
            `found[0, :, "Exact"]` what `shap.plots.waterfall` draws.

        Raises:
            DataError: as :meth:`predict`.
        """
        from esci_tournament.tasks.ensemble.explanation import explanation

        return explanation(self.ensemble.aggregator, self.ensemble.member_scores(self.read(frame).frame))

    def read(self, frame: pd.DataFrame, *, strict: bool = True) -> Rows:
        """Return rows with the texts of products that were looked up, and why some cannot be answered.

        Args:
            frame: As for :meth:`predict`.
            strict: Whether a row that cannot be answered is an error.

        Returns:
            One row for each row of `frame`, on a RangeIndex.

        Raises:
            DataError: as :meth:`predict`.
        """
        from esci_tournament.deployments.labelling import read_rows
        from esci_tournament.deployments.scorer.catalogue import ProductCatalogue
        from esci_tournament.tasks.ensemble.rows import raise_for

        rows = read_rows(frame, self.products or ProductCatalogue.empty)
        if strict:
            raise_for(rows.problems)
        return rows


def load_champion(workspace: Workspace, device: str = "auto") -> ChampionModel:
    """Load the champion.

    It is the one that the ledger says, wherever the alias in MLflow points to. A home whose ledger has no promotion,
    such as one that has only MLflow's address in common with the tournaments, goes by the alias.

    Its files are compared with the manifest that was approved before any of them is parsed.

    Args:
        workspace: The settings and the stores of a home.
        device: Where the members compute: "auto" (the first GPU, else the CPU), "cpu", "cuda" or "cuda:N".

    Returns:
        The champion, its members loaded on the device.

    Raises:
        NotFoundError: if there is no champion yet, or MLflow has no files of it.
        StoreError: if MLflow cannot be reached.
        IntegrityError: if MLflow holds other files than those that were approved.
        UsageError: if the machine has no such device.
    """
    from esci_tournament.tasks.candidates.device import resolve_device
    from esci_tournament.tasks.ensemble.ensemble import Ensemble

    version, warnings = _champion_of(workspace)
    if version is None:
        told = f" ({'; '.join(warnings)})" if warnings else ""
        raise NotFoundError(f"there is no champion yet{told}; hold a tournament first: tournament run --help")
    folder, unsure = _files_of(workspace, version)
    ensemble = Ensemble.load(folder, str(resolve_device(device)))
    products = cache(lambda: _products(workspace, version))  # opened when a row has to be looked up, and once
    return ChampionModel(version.version, tuple(ensemble.members), ensemble, (*warnings, *unsure), products)


def _products(workspace: Workspace, version: EnsembleVersion) -> ProductCatalogue:
    """Return the catalogue that scorers find products in: of the newest data, or of the champion's own tournament."""
    from esci_tournament.deployments.scorer.catalogue import ProductCatalogue
    from esci_tournament.registry.live_data import live_data
    from esci_tournament.registry.tournaments import find_tournament

    ledger, stages = workspace.ledger, workspace.stages
    held = find_tournament(ledger, version.tournament)
    for data in (live_data(ledger, held), held.data_version) if held else ():
        if folder := stages.find(stages.key("load", version=data)):
            return ProductCatalogue.open(folder / "products.arrow", workspace.folder("serving", "catalogues"))
    return ProductCatalogue.empty()


def _files_of(workspace: Workspace, version: EnsembleVersion) -> tuple[Path, tuple[str, ...]]:
    """Return the folder of a champion's files, compared with its manifest, and what makes that less than sure."""
    from esci_tournament.registry.attestation import UNATTESTED, attested, check_unknown, tell_difference
    from esci_tournament.registry.errors import IntegrityError, StoreError

    ledger, models = workspace.ledger, workspace.models
    if ledger.standing(models.ensemble_name).sequence == 0:
        folder = models.download(version)
        return folder, check_unknown(folder, version.id, workspace.settings.manifest_digest)
    known = attested(ledger, version.name, version.version)
    try:
        folder = models.download(version, manifest=known.manifest)
    except IntegrityError as error:
        with suppress(StoreError):  # the refusal stands whether or not the ledger can be written
            tell_difference(ledger, version.id, str(error), "score")
        raise
    return folder, () if known.manifest else (f"{version.id} {UNATTESTED}",)


def _champion_of(workspace: Workspace) -> tuple[EnsembleVersion | None, tuple[str, ...]]:
    """Return the champion, None when there is none, and what is wrong with ledger and alias."""
    from esci_tournament.registry.promotion import drift

    ledger, models = workspace.ledger, workspace.models
    standing = ledger.standing(models.ensemble_name)
    if standing.sequence == 0:
        return models.champion(), ()
    warnings = tuple(map(str, [*standing.invalid, *drift(ledger, models)]))
    return (workspace.roll.ensemble(standing.champion.version) if standing.champion else None), warnings
