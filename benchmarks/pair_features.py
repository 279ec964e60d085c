"""Trees on features of the pair: how right they are alone, and what a fit and a page cost.

Splits are drawn as in `benchmarks.real_rows`, from a generated world or from `--data`. The peers are logistic
regression on the same features and the most frequent class.

    python -m benchmarks.pair_features [--data DIR] [--popularity clicks purchases] [--json] [--quick] [--seed N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness import Figure, arguments, figure, report, say
from benchmarks.real_rows import METRICS, metrics, plans, split
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.behaviour import edges
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.split import FitPlan, held_out_keys
from esci_tournament.tasks.data.synthesize import synthesize
from esci_tournament.tasks.families.pair_features.features import pair_features
from esci_tournament.tasks.families.pair_features.model import PairFeatures
from esci_tournament.tasks.families.pair_features.popularity import of_own_query
from esci_tournament.tasks.families.pair_features.spec import PairFeaturesRecipe, PairFeaturesSpec
from esci_tournament.tasks.families.protocol import FitData

SPLITS, QUERIES, PAGE = 5, 1500, 40
REGRESSION, FREQUENT = "logistic regression", "most frequent class"
LOSS = "log loss"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1; a quick run only shows that it runs."""
    own, rest = _own_options().parse_known_args(sys.argv[1:] if argv is None else argv)
    options = arguments("pair_features", f"{__doc__}\n{_own_options().format_usage()}", rest)
    with tempfile.TemporaryDirectory(prefix="pair-features-") as temporary:
        data = own.data or synthesize(Path(temporary), queries=150 if options.quick else QUERIES, seed=options.seed)
        recipe = PairFeaturesRecipe(rounds=20) if options.quick else PairFeaturesRecipe()
        spec = PairFeaturesSpec(name="pair-features", popularity=tuple(own.popularity), recipe=recipe)
        first = options.seed * 1000
        figures = list(measure(data, spec, range(first, first + (1 if options.quick else SPLITS))))
    report("pair_features", figures, options.json, beside=True)
    return 0 if options.quick or all(each.met is not False for each in figures) else 1


def measure(data: Path, spec: PairFeaturesSpec, seeds: Sequence[int]) -> Iterator[Figure]:
    """Yield the figures over the splits of some data."""
    found: dict[str, list[dict[str, float]]] = {"": [], REGRESSION: [], FREQUENT: []}
    seconds, pages = [], []
    for seed in seeds:
        dataset, plan = split(data, seed), plans(data, "blend", seed)["full"]
        with tempfile.TemporaryDirectory() as work:
            given = fit_data(dataset, plan, spec, seed, Path(work))
            began = time.process_time()
            model = PairFeatures(spec).fit(given)
            seconds.append(time.process_time() - began)
        asked = dataset.pairs.iloc[plan.score]
        labels = asked["label"].to_numpy()
        pages.append(page_milliseconds(model, asked.iloc[:PAGE], dataset))
        answers = {"": model.predict_proba(asked, dataset.products)} | peers(model, given, dataset, plan)
        for name, probabilities in answers.items():
            loss = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-6)).mean()
            found[name].append(metrics(labels, probabilities.argmax(axis=1)) | {LOSS: float(loss)})
        say(f"split {seed}: {found[''][-1]}")
    yield figure("splits", len(found[""]), "splits")
    yield figure("pairs to fit on", len(given.pairs), "pairs")
    yield figure("pairs to evaluate on", len(asked), "pairs")
    for name in (*METRICS, LOSS):
        mean = {peer: float(np.mean([one[name] for one in rows])) for peer, rows in found.items()}
        sign = "<=" if name == LOSS else ">="
        for peer in (REGRESSION, FREQUENT):
            target = f"{sign} {mean[REGRESSION]:.4f}"
            yield figure(name, mean[""], "nats" if name == LOSS else "", target, peer, mean[peer])
    yield figure("a fit, processor time", float(np.median(seconds)), "s")
    yield figure(f"a page of {PAGE} pairs, processor time", float(np.median(pages)), "ms")


def page_milliseconds(model: PairFeatures, page: pd.DataFrame, dataset: Dataset) -> float:
    """Return the median processor time of a page."""
    times = []
    for _ in range(50):
        began = time.process_time()
        model.predict_proba(page, dataset.products)
        times.append(1000 * (time.process_time() - began))
    return float(np.median(times))


def fit_data(dataset: Dataset, plan: FitPlan, spec: PairFeaturesSpec, seed: int, work: Path) -> FitData:
    """Return what a tournament hands to a fit."""
    behaviour = edges(dataset, spec.popularity, held_out_keys(dataset.pairs, plan)) if spec.popularity else None
    fit, validation = (dataset.pairs.iloc[rows] for rows in (plan.fit, plan.validation))
    return FitData(fit, validation, dataset.products, behaviour, seed, "cpu", work)


def peers(model: PairFeatures, data: FitData, dataset: Dataset, plan: FitPlan) -> dict[str, np.ndarray]:
    """Return the probabilities of each peer for the pairs that the plan scores, float (n, 4)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    assert model.vocabulary is not None
    assert model.popularity is not None
    own = of_own_query(data.edges, model.spec.popularity, data.pairs)
    words = model.vocabulary, model.popularity
    learnt = pair_features(data.pairs, data.products, *words, own)
    asked = pair_features(dataset.pairs.iloc[plan.score], dataset.products, *words)
    labels = data.pairs["label"].to_numpy()
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(learnt, labels)
    shares = np.bincount(labels, minlength=len(LABELS)) / len(labels)
    regressed = np.zeros((len(asked), len(LABELS)))
    regressed[:, regression.classes_] = regression.predict_proba(asked)
    return {REGRESSION: regressed, FREQUENT: np.tile(shares, (len(asked), 1))}


def _own_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pair_features", add_help=False)
    parser.add_argument("--data", type=Path, help="folder with the official file names; default: a generated world")
    parser.add_argument("--popularity", nargs="*", default=[], help="relations whose events are counted")
    return parser


if __name__ == "__main__":
    sys.exit(main())
