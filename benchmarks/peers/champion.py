"""A champion as the other servers hold it: the scorer's own functions, from the pages of a batch to their answers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from esci_tournament.deployments.scorer.catalogue import TEXTS, Text
from esci_tournament.deployments.scorer.compute.loading import Job, load_members
from esci_tournament.deployments.scorer.compute.pairs import Pairs
from esci_tournament.deployments.scorer.compute.replica import scores_of
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.ensemble import AGGREGATOR

PLACE = "CHAMPION"  # variable that names the file with the job and the version
PAGES_A_BATCH = 12  # of 40 pairs: about what the scorer's `batch_pairs` allows
DEADLINE_S = 1.0


class Champion:
    """Members and aggregator, loaded as a replica of the scorer loads them.

    Attributes:
        version: what its answers say that they come from.
    """

    def __init__(self) -> None:
        import torch

        content = json.loads(Path(os.environ[PLACE]).read_text(encoding="utf-8"))
        job = Job.from_json(content["job"])
        torch.set_num_threads(job.threads)
        self.version = content["version"]
        self._most_pairs = job.most_pairs
        self._members = load_members(job, job.folders, job.device)
        self._aggregator = Aggregator.load(job.ensemble / AGGREGATOR)

    def answer(self, pages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the answers to pages as `/v1/score` takes them, computed together."""
        parts = [_pairs(page) for page in pages]
        columns = [scores_of(member, parts, self._most_pairs) for member in self._members.values()]
        probabilities = self._aggregator.predict_proba(np.stack(columns, axis=1))
        labels = self._aggregator.labels(probabilities)
        bounds = np.cumsum([len(part) for part in parts])[:-1]
        return [
            {"champion": {"version": self.version}, "replica": os.getpid(), "products": _products(part, *rows)}
            for part, *rows in zip(parts, np.split(probabilities, bounds), np.split(labels, bounds), strict=True)
        ]


def _pairs(page: dict[str, Any]) -> Pairs:
    texts = [Text(one["id"], *(one.get(name) or "" for name in TEXTS)) for one in page["products"]]
    return Pairs(page["query"], page["locale"], texts)


def _products(pairs: Pairs, probabilities: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"id": text.product_id, "label": LABELS[label], "probabilities": dict(zip(LABELS, values, strict=True))}
        for text, label, values in zip(pairs.texts, labels, probabilities.round(4).tolist(), strict=True)
    ]
