"""A realistic summary: six models, one of them evicted and one failed, against a champion of three."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.report.summary import Metrics, ModelSummary, Summary

CURVES = {"train_loss": [1.31, 1.02, 0.88], "validation_macro_f1": [None, 0.41, 0.52]}


def metrics(macro_f1: float) -> Metrics:
    return Metrics(accuracy=macro_f1 + 0.112, macro_f1=macro_f1, weighted_f1=macro_f1 + 0.0934)


def model(name: str, family: str, detail: str, status: str, macro_f1: float | None, **rest: Any) -> ModelSummary:
    if macro_f1 is None:
        return ModelSummary(name, "1", family, detail, rest.pop("entry", "candidate"), status, **rest)
    return ModelSummary(
        name=name,
        version=rest.pop("version", "1"),
        family=family,
        detail=detail,
        entry=rest.pop("entry", "incumbent"),
        status=status,
        test=metrics(macro_f1),
        test_by_locale={"us": metrics(macro_f1 + 0.01), "es": metrics(macro_f1 - 0.02), "jp": metrics(macro_f1 - 0.05)},
        blend=metrics(macro_f1 + 0.005),
        cost={
            "kind": "cpu",
            "memory_mib": 212.4,
            "milliseconds_per_page_p50": 41.27,
            "milliseconds_per_page_p95": 55.9,
            "parameters": 22_713_604,
        },
        fit_seconds=318.2,
        temperature=1.312,
        calibration_error=0.081,
        calibration_error_after=0.0234,
        reliability=[[0.36, 0.3, 410], [0.61, 0.52, 1904], [0.9, 0.83, 2838]],
        cover=rest.pop("cover", 1.0),
        **rest,
    )


def default_models() -> list[ModelSummary]:
    graph, language = "graph_network", "language_model"
    minilm = {"utility": 0.412, "utility_low": 0.385, "utility_high": 0.44, "utility_all": 0.351, "drop_one": 0.0312}
    gatv2 = {"utility": 0.331, "utility_low": 0.301, "utility_high": 0.36, "utility_all": 0.284, "drop_one": 0.0198}
    e5 = {"utility": 0.257, "utility_low": 0.226, "utility_high": 0.289, "utility_all": 0.199, "drop_one": -0.0003}
    minilm |= {"drop_one_error": 0.0061, "above_noise": True, "curves": CURVES}
    e5 |= {"drop_one_error": 0.0044, "above_noise": False}
    evicted = "least utility per unit of budget when memory stood at 1,023 MiB of 800 MiB (0.041 of SHAP for 212 MiB)"
    return [
        model("minilm-l6", language, "bert, pretrained, cross-encoder", "member", 0.5321, version="3", **minilm),
        model("gatv2-clicks", graph, "gatv2 on clicks", "member", 0.5012, **gatv2),
        model("e5-small", language, "bert, pretrained, bi-encoder", "member", 0.4987, entry="candidate", **e5),
        model(
            "sage-impressions", graph, "graphsage on impressions", "evicted", 0.4701, reason=evicted, utility_all=0.1
        ),
        model("gcn-purchases", graph, "gcn on purchases", "evicted", 0.4533, reason=evicted, utility_all=0.066),
        model("minilm-l3", language, "bert, pretrained", "failed", None, reason="epoch 2: the loss is NaN at step 118"),
    ]


def examples() -> dict[str, Any]:
    """Return a pair whose label changes and a member's worst error."""
    pair = {"query": "red lamp", "title": "Velo lamp, red", "locale": "us", "label": "E"}
    changed = {"against": 3, "count": 412, "better": 230, "worse": 141}
    return {
        "pairs": 3821,
        "changed": changed | {"shown": [pair | {"before": "S", "after": "E", "moved": 0.6123}]},
        "errors": {"minilm-l6/3": {"count": 1412, "shown": [pair | {"given": "I", "probability": 0.9871}]}},
    }


def contributions(members: Sequence[str]) -> dict[str, Any]:
    """Return contributions of 40 pairs that add nothing up, for pictures."""
    random = np.random.default_rng(0)
    values, given = random.integers(-9000, 9000, (2, 40, len(members), 4))
    whole = {"base": [1000, 2000, 3000, 4000], "values": values.tolist(), "given": np.abs(given).tolist()}
    return {"members": list(members), "unit": 1e-4, **whole}


def split_rows(locales: tuple[str, ...]) -> list[dict[str, Any]]:
    sizes = {("train", "us"): 9120, ("train", "es"): 3210, ("train", "jp"): 2980}
    sizes |= {("test", "us"): 3050, ("test", "es"): 1104, ("test", "jp"): 998}
    return [
        {
            "split": split,
            "locale": locale,
            "pairs": pairs,
            "queries": pairs // 20,
            "E": int(pairs * 0.44),
            "S": int(pairs * 0.34),
            "C": int(pairs * 0.05),
            "I": int(pairs * 0.17),
        }
        for (split, locale), pairs in sizes.items()
        if split == "train" or locale in locales
    ]


def build(**changes: Any) -> Summary:
    """Return a summary of a promoted challenger; `changes` replace its fields."""
    names = ("minilm-l6", "gatv2-clicks", "e5-small")
    whole: dict[str, Any] = {
        "tournament": "t-20261122-101512-7f3a",
        "started": "2026-11-22T10:15:12Z",
        "seconds": 1284.6,
        "machine": {
            "device": "cpu",
            "cpu": "Generic x86",
            "cores": 2,
            "memory_gib": 15.6,
            "platform": "Linux",
            "python": "3.11.9",
        },
        "data": {
            "version": "9f2c41d07a" + "0" * 54,
            "source": "data/esci",
            "pairs": 20_462,
            "queries": 1021,
            "products": 18_734,
            "events": 151_200,
            "by_split_locale": split_rows(("us", "es", "jp")),
            "roles": {"fit": 10_340, "validation": 1149, "blend": 3821, "test": 5152},
        },
        "checks": [
            {"name": "unique example_id", "critical": True, "passed": True, "sentence": "no id occurs twice"},
            {
                "name": "titles present",
                "critical": False,
                "passed": False,
                "sentence": "98.2 % of titles are there",
            },
        ],
        "data_docs": "data_docs/index.html",
        "settings": {"primary_metric": "macro_f1", "alpha": 0.05, "budget_memory_mib": 800.0, "device": "auto"},
        "models": default_models(),
        "ensemble": Metrics(accuracy=0.6822, macro_f1=0.5634, weighted_f1=0.6601),
        "ensemble_by_locale": {"us": metrics(0.5711), "es": metrics(0.5402), "jp": metrics(0.5213)},
        "ensemble_intervals": {
            "accuracy": [0.6694, 0.6951],
            "macro_f1": [0.5483, 0.5788],
            "weighted_f1": [0.6463, 0.6738],
        },
        "champion": Metrics(accuracy=0.6602, macro_f1=0.5398, weighted_f1=0.6388),
        "champion_version": "3",
        "confusion": [[1905, 310, 12, 40], [520, 1066, 31, 135], [22, 91, 103, 42], [95, 225, 20, 535]],
        "by_class": {
            "E": {"precision": 0.749, "recall": 0.84, "f1": 0.792, "support": 2267},
            "S": {"precision": 0.63, "recall": 0.608, "f1": 0.619, "support": 1752},
            "C": {"precision": 0.62, "recall": 0.399, "f1": 0.486, "support": 258},
            "I": {"precision": 0.711, "recall": 0.611, "f1": 0.657, "support": 875},
        },
        "utility_by_class": {
            name: dict(zip(LABELS, row, strict=True))
            for name, row in zip(
                names, ((0.45, 0.38, 0.35, 0.4), (0.3, 0.33, 0.41, 0.3), (0.25, 0.29, 0.24, 0.3)), strict=True
            )
        },
        "utility_by_locale": {
            name: dict(zip(("us", "es", "jp"), row, strict=True))
            for name, row in zip(names, ((0.51, 0.31, 0.2), (0.32, 0.33, 0.36), (0.17, 0.36, 0.44)), strict=True)
        },
        "shapley": {"minilm-l6/3": 0.214},
        "likeness": [
            {"first": "minilm-l6/3", "second": "e5-small/1", "correlation": 0.913, "agreement": 0.93, "sentence": "."}
        ],
        "mixed_up": ["guest/1: its columns seem to be in another order than E, S, C, I"],
        "interchangeable": ["minilm-l6/3 and e5-small/1 are interchangeable: one of them is enough"],
        "tied": [["gatv2-clicks/1", "e5-small/1"]],
        "noise": {"share": 0.021, "high": 0.034, "refits": 25},
        "shap": {"rows": 256, "gap": 3.2e-15, "version": "0.51.0"},
        "contributions": contributions(names),
        "near_copies": ["minilm-l6 and e5-small agree on 93 % of the pairs (correlation of scores 0.91)"],
        "selection": {
            "rule": "shap",
            "budget": {"memory_mib": 800.0, "latency_ms": None},
            "used": {"memory_mib": 637.2, "latency_ms": 123.8},
            "path": [
                {
                    "step": 1,
                    "action": "evict",
                    "member": "gcn-purchases",
                    "metric": 0.5601,
                    "sentence": "least utility per unit of budget: 6.6 % for 212 MiB",
                },
                {
                    "step": 2,
                    "action": "evict",
                    "member": "sage-impressions",
                    "metric": 0.5633,
                    "sentence": "least utility per unit of budget: 10.0 % for 212 MiB; the budget holds",
                },
            ],
            "regret": 0.0012,
            "refits": 17,
            "value": 0.5633,
            "value_error": 0.0087,
            "curve_memory": [[212.4, 0.5296], [424.8, 0.5502], [637.2, 0.5633], [849.6, 0.5641], [1062.0, 0.5645]],
            "curve_latency": [[41.3, 0.5296], [82.6, 0.5502], [123.9, 0.5633], [165.2, 0.5645]],
        },
        "shift": {"minilm-l6": 0.0312, "gatv2-clicks": 0.0551, "e5-small": 0.0287},
        "verdict": {
            "outcome": "promote",
            "reason": "macro F1 rises by 0.024 and the lower bound of the difference is above 0.",
            "checks": [
                {
                    "name": "gain",
                    "passed": True,
                    "value": 0.0091,
                    "threshold": 0.0,
                    "sentence": "the lower bound of the difference in macro F1 is 0.009, above the required 0.000",
                },
                {
                    "name": "guardrail: locale jp",
                    "passed": True,
                    "value": -0.0043,
                    "threshold": -0.02,
                    "sentence": "macro F1 in jp may be lower by 0.004 at most, 0.020 is tolerated",
                },
                {
                    "name": "budget",
                    "passed": True,
                    "value": None,
                    "threshold": None,
                    "sentence": "all members together keep to the budget",
                },
            ],
        },
        "decision": {"decision": "promote", "by": "m.reviewer", "reason": "better in every locale"},
        "ensemble_version": "4",
        "ensemble_calibration_error": 0.0175,
        "ensemble_reliability": [[0.4, 0.41, 390], [0.62, 0.6, 1700], [0.92, 0.93, 3062]],
        "promoted": True,
        "examples": examples(),
        "links": {"MLflow run": "http://127.0.0.1:5000/#/experiments/1/runs/abc", "Ledger": "sqlite:///ledger.db"},
    }
    return Summary(**{**whole, **changes})


def sparse() -> Summary:
    """Return what is left when everything optional is absent: one member, no champion, no Japanese test rows."""
    only = replace(
        model("minilm-l6", "language_model", "bert", "member", 0.53, entry="candidate"),
        temperature=None,
        calibration_error=None,
        calibration_error_after=None,
        reliability=[],
        cover=None,
    )
    return build(
        models=[only, default_models()[-1]],
        data={**build().data, "events": None, "by_split_locale": split_rows(("us", "es")), "roles": {}},
        checks=[],
        data_docs="",
        settings={},
        ensemble_by_locale={"us": metrics(0.54)},
        ensemble_intervals={},
        champion=None,
        champion_version="",
        by_class={},
        confusion=[],
        utility_by_class={},
        utility_by_locale={},
        near_copies=[],
        interchangeable=[],
        mixed_up=[],
        noise={},
        tied=[],
        shap={},
        contributions={},
        selection={"rule": "shap", "budget": {}, "used": {}, "path": [], "regret": None, "refits": 0},
        shift={},
        verdict={"outcome": "not-evaluable", "reason": "there is no champion to compare with", "checks": []},
        decision={},
        ensemble_version="",
        promoted=False,
        links={},
        ensemble_calibration_error=None,
        ensemble_reliability=[],
        examples={},
    )


@pytest.fixture
def build_summary() -> Callable[..., Summary]:
    return build


@pytest.fixture
def summary() -> Summary:
    return build()


@pytest.fixture
def sparse_summary() -> Summary:
    return sparse()
