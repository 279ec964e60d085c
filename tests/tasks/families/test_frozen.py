"""The stored form of a spec of each family, as of 2026-11-26. It must not change: candidates are recognised by it."""

from __future__ import annotations

import json

import pytest

from esci_tournament.registry.specs import parse_spec

NOTE = {"provenance": "made in a test"}
DIGESTS = {
    "09e054f08fb2072b03df54caf4b56d8e8b44d51c2f0c511cb22886a651d88b6b": {
        "family": "language_model",
        "architecture": "electra",
        "seed": 3,
        "recipe": {"epochs": 2, "fields": ["title", "brand"], "keywords": {"bullets": 4}, "style": "bi_encoder"},
    },
    "cf78e0e8f5887477aa79453942e992c1eafc66bb50476917514a91b3ba208017": {
        "family": "language_model",
        "checkpoint": "group/model@1",
    },
    "2e65e37028085ef2904997fff57a7e0526e42c073fe99c3d88adca69e0bb14fa": {
        "family": "graph_network",
        "architecture": "hgt",
        "relation": ["purchases", "same_brand", "clicks"],
        "recipe": {"hidden_size": 16, "encoder": "group/model"},
    },
    "6a0f6b0785b91eda5976b6469cb31ddca656594eb9e574395db5dc4e4bf541be": {
        "family": "pair_features",
        "popularity": ["purchases", "clicks"],
        "recipe": {"rounds": 20, "class_weights": "balanced"},
    },
    "8924ffcfa53d660af782b4e344749bc25388b263076157e0462d2a1bcf11a751": NOTE
    | {
        "family": "scores",
        "file": "scores.parquet",
        "trained_on": "listed_queries",
        "trained_queries": "queries.parquet",
    },
    "89f2dd0178af246a8a79a45807c5c1977c446019df76b2f7d7b2fd9eaa1f032f": NOTE
    | {"family": "pyfunc", "model": "models:/house/3", "trained_on": "train_split"},
}
# The fields of spec.json beside a saved model and of the tag in MLflow, in this order: bytes of both are compared.
FIELDS = {
    "language_model": ["name", "description", "seed", "family", "checkpoint", "architecture", "recipe"],
    "graph_network": ["name", "description", "seed", "family", "architecture", "relation", "recipe"],
    "pair_features": ["name", "description", "seed", "family", "popularity", "recipe"],
    "scores": ["name", "description", "seed", "trained_on", "provenance", "trained_queries", "family", "file"],
    "pyfunc": ["name", "description", "seed", "trained_on", "provenance", "trained_queries", "family", "model"],
}


@pytest.mark.parametrize(("digest", "content"), DIGESTS.items(), ids=[one["family"] for one in DIGESTS.values()])
def test_a_registered_candidate_is_recognised(digest: str, content: dict) -> None:
    spec = parse_spec({"name": "a", **content})
    assert spec.digest() == digest
    assert list(json.loads(spec.model_dump_json())) == FIELDS[content["family"]]
