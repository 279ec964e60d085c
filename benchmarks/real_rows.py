"""Real judgements, ten splits: on how many of them is the ensemble ahead of every member, on all three metrics?

Each seed draws anew which queries are tested, which choose epochs and which the aggregator learns from. Members are
fitted and score the pairs whose query they have not seen, as in a tournament under `blend` or `kfold`; then the
ensemble is built as a tournament builds it. `--without NAME` leaves candidates out, to see what they are worth; what a
column about the other pairs of the page would gain (see `benchmarks/aggregation/pages.py`) is printed beside. With
`--scores DIR` the members' scores are kept there, and what is there
is not fitted again, so that the members can be fitted on a machine with a GPU (`--members-only`, in `--jobs`
processes at once; it needs what `benchmarks.gpu` needs) and the ensembles be built elsewhere.

    python -m benchmarks.real_rows --data DIR --candidates docs/esci.toml [--protocol kfold] [--scores DIR] [--json]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness import Figure, arguments, figure, report, say
from esci_tournament.registry.specs import CandidateSpec, read_specs
from esci_tournament.tasks.data.behaviour import edges
from esci_tournament.tasks.data.dataset import Dataset, salted_uniform
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.split import FitPlan, assign_roles, fit_plans, held_out_keys
from esci_tournament.tasks.families.loading import candidate_class, make_candidate
from esci_tournament.tasks.families.protocol import FitData

SEEDS, QUICK_SEEDS = 10, 2
TEST_SHARE, BLEND_SHARE, VALIDATION_SHARE, FOLDS = 0.3, 0.25, 0.1, 5  # the last three are the settings' defaults
METRICS = ("accuracy", "macro_f1", "weighted_f1")
_MIXER = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Fit:
    """One fit of one member.

    Attributes:
        data: folder with the official file names.
        candidates: TOML file of the candidates.
        name: of the candidate.
        protocol: blend or kfold.
        seed: of the split.
        plan: name of the plan.
        device: torch device.
        scores: folder of scores.
    """

    data: Path
    candidates: Path
    name: str
    protocol: str
    seed: int
    plan: str
    device: str
    scores: Path

    @property
    def file(self) -> Path:
        return self.scores / f"{self.protocol}-{self.seed}-{self.name}-{self.plan}.npy"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1."""
    own, rest = _own_options().parse_known_args(sys.argv[1:] if argv is None else argv)
    options = arguments("real_rows", f"{__doc__}\n{_own_options().format_usage()}", rest)
    seeds = own.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    with tempfile.TemporaryDirectory(prefix="real-rows-") as temporary:
        scores = own.scores or Path(temporary)
        scores.mkdir(parents=True, exist_ok=True)
        fits = [one for seed in range(seeds) for one in fits_of(own, seed, scores)]
        fit_all([one for one in fits if not one.file.is_file()], own.jobs, own.minutes)
        if own.members_only:
            return 0 if all(one.file.is_file() for one in fits) else 1
        figures = list(compare(own, range(seeds), scores, Path(temporary)))
    report("real_rows", figures, options.json)
    return 0 if all(each.met is not False for each in figures) else 1


def fits_of(own: argparse.Namespace, seed: int, scores: Path) -> Iterator[Fit]:
    """Yield the fits that one split needs."""
    plans = [f"fold-{number}" for number in range(FOLDS)] if own.protocol == "kfold" else []
    for spec in taking_part(own):
        for plan in [*plans, "full"]:
            yield Fit(own.data, own.candidates, spec.name, own.protocol, seed, plan, own.device, scores)


def taking_part(own: argparse.Namespace) -> list[CandidateSpec]:
    """Return the candidates of the file but for those that are left out."""
    return [spec for spec in read_specs(own.candidates) if spec.name not in own.without]


def fit_all(fits: Sequence[Fit], jobs: int, minutes: float | None) -> None:
    """Make the fits in some processes, until the time is over; what is done is kept."""
    began = time.monotonic()
    if not fits:
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (jobs,)) as pool:
        running = [pool.submit(_fit, one) for one in fits]
        for number, one in enumerate(as_completed(running), 1):
            say(f"{time.monotonic() - began:.0f} s: {number} of {len(fits)}: {one.result()}")
            if minutes is not None and time.monotonic() - began > 60 * minutes:
                pool.shutdown(wait=False, cancel_futures=True)
                break


def _begin(jobs: int) -> None:
    import torch

    torch.set_num_threads(max((os.cpu_count() or 1) // jobs, 1))


def _fit(one: Fit) -> str:
    """Fit one member on one plan, and write its scores; float32 (pairs that the plan scores, 4)."""
    began = time.monotonic()
    dataset, plan = split(one.data, one.seed), plans(one.data, one.protocol, one.seed)[one.plan]
    spec = next(spec for spec in read_specs(one.candidates) if spec.name == one.name)
    relations = candidate_class(spec.family).relations_of(spec)
    with tempfile.TemporaryDirectory() as work:
        model = make_candidate(spec).fit(
            FitData(
                dataset.pairs.iloc[plan.fit], dataset.pairs.iloc[plan.validation], dataset.products,
                edges(dataset, relations if len(relations) > 1 else relations[0], held_out_keys(dataset.pairs, plan))
                if relations else None,
                one.seed, one.device, Path(work),
            )
        )  # fmt: skip
    answers = np.asarray(model.predict_proba(dataset.pairs.iloc[plan.score], dataset.products), np.float32)
    partial = one.file.with_suffix(f".{os.getpid()}.npy")
    np.save(partial, answers)
    partial.replace(one.file)
    return f"{one.file.stem}, {time.monotonic() - began:.0f} s"


@lru_cache(maxsize=1)
def _loaded(data: Path) -> Dataset:
    return load_esci(data)


@lru_cache(maxsize=2)
def split(data: Path, seed: int) -> Dataset:
    """Return the data with roles that the seed draws: every query has another key, which its roles follow from."""
    dataset = _loaded(data)
    keys = dataset.pairs["query_key"].to_numpy() ^ np.uint64(seed * _MIXER % 2**64)
    tested = salted_uniform(keys, "test") < TEST_SHARE
    pairs = dataset.pairs.assign(query_key=keys, split=pd.Categorical.from_codes(tested.astype(np.int8),
                                                                                ["train", "test"]))  # fmt: skip
    return replace(dataset, pairs=pairs)


def plans(data: Path, protocol: str, seed: int) -> dict[str, FitPlan]:
    """Return the plans of a split, by name."""
    dataset = split(data, seed)
    roles = assign_roles(dataset, protocol, BLEND_SHARE, VALIDATION_SHARE, FOLDS)  # type: ignore[arg-type]
    return {one.name: one for one in fit_plans(dataset, roles, protocol, VALIDATION_SHARE)}  # type: ignore[arg-type]


def columns(own: argparse.Namespace, seed: int, scores: Path) -> tuple[list[str], np.ndarray]:
    """Return the members' names, and their scores, float32 (pairs, members, 4), nan where there are none."""
    names, rows = [spec.name for spec in taking_part(own)], len(split(own.data, seed).pairs)
    found = np.full((rows, len(names), 4), np.nan, dtype=np.float32)
    by_plan = plans(own.data, own.protocol, seed)
    for one in fits_of(own, seed, scores):
        found[by_plan[one.plan].score, names.index(one.name)] = np.load(one.file)
    return names, found


def compare(own: argparse.Namespace, seeds: Sequence[int], scores: Path, folder: Path) -> Iterator[Figure]:
    """Yield how often, and by how much, the ensemble is ahead of the best member.

    Args:
        own: the options.
        seeds: of the splits.
        scores: folder of the members' scores.
        folder: scratch folder.
    """
    margins: dict[str, list[float]] = {metric: [] for metric in METRICS}
    gains: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for seed in seeds:
        ensemble, members = one_split(own, seed, scores, folder / f"challenge-{seed}")
        gained = gain_of_the_page(own, seed, scores)
        for metric in METRICS:
            gains[metric].append(gained[metric])
            margins[metric].append(ensemble[metric] - max(one[metric] for one in members.values()))
        say(f"seed {seed}: " + ", ".join(f"{metric} {ensemble[metric]:.4f} ({margins[metric][-1]:+.4f})"
                                         for metric in METRICS))  # fmt: skip
    total = len(seeds)
    ahead = np.array([[margin > 0 for margin in margins[metric]] for metric in METRICS])
    target = f">= {0.9 * total:g}"
    yield figure(f"{own.protocol}: ahead of every member on all three", ahead.all(axis=0).sum(), f"of {total}", target)
    for metric, won in zip(METRICS, ahead, strict=True):
        values = 100 * np.array(margins[metric])
        error = _standard_error(values)
        yield figure(f"{own.protocol}: ahead of every member on {metric}", won.sum(), f"of {total}")
        yield figure(f"{own.protocol}: margin over the best member on {metric}, mean", values.mean(), "points")
        yield figure(f"{own.protocol}: margin on {metric}, standard error over splits", error, "points")
        yield figure(f"{own.protocol}: margin on {metric}, least", values.min(), "points")
    for metric in METRICS:
        values = 100 * np.array(gains[metric])
        error = _standard_error(values)
        yield figure(f"{own.protocol}: gain of a column about the page on {metric}, mean", values.mean(), "points")
        yield figure(f"{own.protocol}: gain of a column about the page on {metric}, standard error", error, "points")


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def one_split(
    own: argparse.Namespace, seed: int, scores: Path, folder: Path
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Build the ensemble of one split as a tournament does, and return its metrics and every member's on test pairs."""
    from esci_tournament.registry.settings import read_settings
    from esci_tournament.tasks.ensemble.budget import Cost
    from esci_tournament.tasks.ensemble.challenge import Challenge, build_challenge
    from esci_tournament.tasks.ensemble.scores import MemberScores

    names, found = columns(own, seed, scores)
    pairs = split(own.data, seed).pairs
    tested = (pairs["split"] == "test").to_numpy()
    known = ~np.isnan(found).any(axis=(1, 2)) & ~tested
    example_id = pairs["example_id"].to_numpy()[known]
    members = [
        MemberScores(name, example_id, found[known, place], np.ones(len(example_id), dtype=bool))
        for place, name in enumerate(names)
    ]
    folder.mkdir(parents=True)
    build_challenge(folder, pairs[known], members, {name: Cost(1.0, 1.0) for name in names}, read_settings(home=folder))
    chosen = Challenge.load(folder)
    labels = pairs["label"].to_numpy()[tested]
    place = [names.index(name) for name in chosen.members]
    answers = chosen.aggregator.predict(np.ascontiguousarray(found[tested][:, place]))
    alone = f", answering as {chosen.aggregator.alone} alone" if chosen.aggregator.alone else ""
    kept = f"{len(place)} of {len(names)} members{alone}"
    say(f"seed {seed}: {known.sum()} pairs to learn from, {tested.sum()} to test, {kept}")
    singles = {name: metrics(labels, found[tested, number].argmax(axis=1)) for number, name in enumerate(names)}
    return metrics(labels, answers), singles


def gain_of_the_page(own: argparse.Namespace, seed: int, scores: Path) -> dict[str, float]:
    """Return how far metrics of all members together rise with a column about the other pairs of the query."""
    from benchmarks.aggregation.pages import with_page
    from esci_tournament.tasks.ensemble.fitting import fit_aggregator

    names, found = columns(own, seed, scores)
    pairs = split(own.data, seed).pairs
    labels, groups = pairs["label"].to_numpy(), pairs["query_key"].to_numpy()
    tested = (pairs["split"] == "test").to_numpy()
    known = ~np.isnan(found).any(axis=(1, 2)) & ~tested

    def answered(learnt: np.ndarray, asked: np.ndarray) -> dict[str, float]:
        members = [*names, "page"][: learnt.shape[1]]
        return metrics(labels[tested], fit_aggregator(learnt, labels[known], groups[known], members).predict(asked))

    plain = answered(found[known], found[tested])
    aware = answered(*(with_page(found[rows], groups[rows]) for rows in (known, tested)))
    return {metric: aware[metric] - plain[metric] for metric in METRICS}


def metrics(labels: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    """Return accuracy, macro F1 and weighted F1 of the classes that were chosen."""
    from sklearn.metrics import f1_score

    of = {
        name: float(f1_score(labels, chosen, average=name, labels=range(4), zero_division=0))
        for name in ("macro", "weighted")
    }
    return {"accuracy": float((labels == chosen).mean()), "macro_f1": of["macro"], "weighted_f1": of["weighted"]}


def _own_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_rows", add_help=False)
    parser.add_argument("--data", type=Path, required=True, help="folder with the official file names")
    parser.add_argument("--candidates", type=Path, required=True, help="TOML file of the members")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="candidates that are left out")
    parser.add_argument("--protocol", choices=("blend", "kfold"), default="blend")
    parser.add_argument("--seeds", type=int, help=f"number of splits (default: {SEEDS})")
    parser.add_argument("--scores", type=Path, help="folder that keeps the members' scores")
    parser.add_argument("--members-only", action="store_true", help="fit the members, and build no ensemble")
    parser.add_argument("--jobs", type=int, default=1, help="fits at once")
    parser.add_argument("--minutes", type=float, help="begin no fit after this time")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    return parser


if __name__ == "__main__":
    sys.exit(main())
