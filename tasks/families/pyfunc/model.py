"""A candidate that is an MLflow pyfunc from elsewhere; it runs in its own process and needs an allowed source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.registry.files import folder_digest
from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.pyfuncs import fetch_pyfunc
from esci_tournament.registry.settings import Settings, read_settings, settings_in_force
from esci_tournament.registry.specs import CandidateSpec
from esci_tournament.tasks.families.protocol import Candidate, FitData
from esci_tournament.tasks.families.pyfunc.look import check_model
from esci_tournament.tasks.families.pyfunc.process import ModelProcess, ProcessLimits
from esci_tournament.tasks.families.pyfunc.sources import check_source
from esci_tournament.tasks.families.pyfunc.spec import PyfuncSpec
from esci_tournament.tasks.families.pyfunc.worker import BY_POSITION

BATCH = 1_000  # pairs an answer
PROBE = 8  # pairs that show whether it answers at all
COLUMNS = {
    "title": "product_title",
    "brand": "product_brand",
    "color": "product_color",
    "bullets": "product_bullet_point",
    "description": "product_description",
}


class Pyfunc(Candidate):
    """A candidate whose model runs in another process; see :mod:`esci_tournament.tasks.families.pyfunc.process`.

    The model gets a frame with the official columns query, product_locale, product_id, product_title, product_brand,
    product_color, product_bullet_point and product_description, text each, and answers with a column for each class,
    named by its letter or word, or with an array (n, 4) in the order that the spec declares. A text classifier that
    `mlflow.transformers` has logged is asked through its pipeline instead.
    """

    reads_settings = ("allowed_pyfunc_sources", "pyfunc_memory_gib", "pyfunc_timeout_s")

    spec: PyfuncSpec

    def __init__(self, spec: PyfuncSpec) -> None:
        self.spec = spec
        self._folder: Path | None = None
        self._process: ModelProcess | None = None
        self._classes = spec.order

    @classmethod
    def permit(cls, spec: CandidateSpec, settings: Settings) -> None:
        """Check that an operator allowed the source.

        Raises:
            SpecError: if the setting `allowed_pyfunc_sources` does not hold it.
        """
        assert isinstance(spec, PyfuncSpec)
        check_source(spec, settings.allowed_pyfunc_sources)

    @classmethod
    def check(cls, spec: CandidateSpec) -> None:
        """Refuse a model that is not there, is no pyfunc, or has labels that are not the four classes.

        Raises:
            SpecError: if so; nothing of the model is executed.
        """
        assert isinstance(spec, PyfuncSpec)
        check_model(spec, settings_in_force())

    @classmethod
    def keys_of_version(cls, address: str, settings: Settings) -> dict[str, Any] | None:
        """Return the version as the model, which takes part as it is; its owner states what it was trained on."""
        return {"model": address}

    @classmethod
    def describe(cls, spec: CandidateSpec) -> str:
        """Return the name of the model."""
        assert isinstance(spec, PyfuncSpec)
        return f"{spec.model if spec.model.startswith('models:') else Path(spec.model).name}, trained elsewhere"

    def fit(self, data: FitData) -> Self:
        """Fetch the model and ask it about at most eight validation pairs; nothing is learnt.

        Args:
            data: `validation` and `products` are read; the model is copied into `work`.

        Returns:
            The candidate itself.

        Raises:
            SpecError: if its source is not allowed, or it is no pyfunc.
            CandidateError: if it cannot answer.
        """
        settings = read_settings()
        check_source(self.spec, settings.allowed_pyfunc_sources)
        data.progress(0.0, "fetching the model")
        self._folder = data.work / "model"
        for left in data.work.glob("model*"):
            shutil.rmtree(left, ignore_errors=True)
        fetch_pyfunc(self.spec.model, self._folder, settings.tracking_uri)
        data.progress(0.5, "opening the model")
        self._start(settings)
        self.predict_proba(data.validation.head(PROBE), data.products)
        return self

    def predict_proba(self, pairs: pd.DataFrame, products: pd.DataFrame) -> np.ndarray:
        """Return class probabilities; the model is asked about 1,000 pairs at a time.

        Args:
            pairs: columns query, locale and product (row in `products`).
            products: columns of `Dataset.products`.

        Returns:
            float32 (len(pairs), 4), order E, S, C, I.

        Raises:
            CandidateError: if the model fails, takes too long or too much memory, does not answer with four numbers a
                pair, or is not fitted.
        """
        if self._process is None:
            raise CandidateError(f"candidate {self.spec.name} is not fitted; call fit or load first")
        parts = [np.zeros((0, len(LABELS)), dtype=np.float32)]
        for start in range(0, len(pairs), BATCH):
            rows = official_rows(pairs.iloc[start : start + BATCH], products)
            answer = self._process.ask(rows)
            if answer.shape != (len(rows), len(LABELS)):
                raise CandidateError(
                    f"{self.spec.name}: asked about {len(rows)} pairs it answers with an array {answer.shape}; "
                    f"needed is ({len(rows)}, {len(LABELS)}), or columns {', '.join(LABELS)}"
                )
            parts.append(answer)
        return np.concatenate(parts)

    def save(self, folder: Path) -> None:
        """Copy the model as it came; it may hold a pickle, which only the model's own process opens.

        Args:
            folder: gets `model/`, pyfunc.json with the digest of that folder and how answers are read, and spec.json.

        Raises:
            CandidateError: if the candidate is not fitted.
        """
        if self._folder is None:
            raise CandidateError(f"candidate {self.spec.name} is not fitted; there is nothing to save")
        shutil.copytree(self._folder, folder / "model")
        facts = {"digest": folder_digest(folder / "model"), "classes": self._classes}
        (folder / "pyfunc.json").write_text(json.dumps(facts), encoding="utf-8")
        (folder / "spec.json").write_text(self.spec.model_dump_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Start a process for the model that :meth:`save` wrote.

        Args:
            folder: where :meth:`save` wrote.
            device: not used; the model chooses its device itself.

        Returns:
            A fitted candidate.

        Raises:
            SpecError: if its source is not allowed here, or the files are not those that were saved.
            CandidateError: if it cannot be opened.
        """
        model = cls(PyfuncSpec.model_validate(json.loads((folder / "spec.json").read_text(encoding="utf-8"))))
        settings = read_settings()
        check_source(model.spec, settings.allowed_pyfunc_sources)
        model._folder = folder / "model"
        facts = json.loads((folder / "pyfunc.json").read_text(encoding="utf-8"))
        if folder_digest(model._folder) != facts["digest"]:
            raise SpecError(f"{model._folder} is not the model that was saved; run its tournament again")
        # What an earlier release has saved was judged by answers that were read by position
        model._classes = str(facts.get("classes", BY_POSITION))
        model._start(settings)
        return model

    def parameters(self) -> int:
        """Return 0: the model's parameters cannot be counted from outside; see :meth:`resident_bytes`."""
        return 0

    def resident_bytes(self) -> int:
        """Return the memory that its process holds now, in bytes."""
        return 0 if self._process is None else self._process.resident_bytes()

    def _start(self, settings: Settings) -> None:
        assert self._folder is not None
        limits = ProcessLimits(settings.pyfunc_memory_gib, settings.pyfunc_timeout_s)
        columns = [COLUMNS[field] for field in self.spec.fields or ("title",)]
        self._process = ModelProcess(self.spec.name, self._folder.resolve(), limits, self._classes, columns)


def official_rows(pairs: pd.DataFrame, products: pd.DataFrame) -> pd.DataFrame:
    """Return pairs in the columns of the official data set.

    Args:
        pairs: columns query, locale and product (row in `products`).
        products: columns of `Dataset.products`.

    Returns:
        One row a pair, in the same order: query, product_locale, product_id, product_title, product_brand,
        product_color, product_bullet_point and product_description, all `str` in object columns.
    """
    chosen = products.iloc[pairs["product"].to_numpy()]
    columns = {"query": pairs["query"], "product_locale": pairs["locale"], "product_id": chosen["product_id"]}
    columns |= {official: chosen[name] for name, official in COLUMNS.items()}
    return pd.DataFrame({name: values.astype(str).to_numpy(dtype=object) for name, values in columns.items()})
