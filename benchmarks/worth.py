"""What members are said to be worth, against what they are worth over many samples of the same world.

1. Shares: two generators make worlds of 16 samples of queries each. The worth of a member is its mean SHAP share over
   the samples' own fits. How often does the interval of one sample hold it? Beside it, the interval of the previous
   release: queries resampled, the fit left as it is. And how often is a member of noise told from the others?
2. Losses: the standard errors of drop-one and of v, against the spread of both over samples.
3. Copies: are near-copies at another temperature found, and are two models called interchangeable where they are
   copies, and not where they see different things?
4. The comparison with the package `shap`: how well the contributions agree, and what it costs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.aggregation.exercises import correlated
from benchmarks.harness import Figure, arguments, figure, in_processes, median_seconds, report
from benchmarks.worlds import make_world
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters, flatten, softmax
from esci_tournament.tasks.ensemble.attribution import attribute_rows, tabulate
from esci_tournament.tasks.ensemble.explanation import check_with_shap
from esci_tournament.tasks.ensemble.fitting import Choice, cross_validate, fit_aggregator
from esci_tournament.tasks.ensemble.interchange import interchangeable
from esci_tournament.tasks.ensemble.refits import refit
from esci_tournament.tasks.ensemble.similarity import NEAR_COPY_CORRELATION, compare_members
from esci_tournament.tasks.ensemble.value import Game
from esci_tournament.tasks.ensemble.worth import measure_worth

PARTS = ("shares", "losses", "copies", "shap")
SAMPLES, JUDGED = 16, 4  # samples of a world, and those whose intervals are looked at
WORLDS = {2_000: 8, 6_000: 3}  # pairs of a sample -> worlds of each generator
TEMPERATURES = (0.25, 0.5, 2.0, 4.0)
PARAMETERS = AggregatorParameters(threads=1)
QUICKER = AggregatorParameters(learning_rate=0.3, maximum_rounds=40, patience=3, folds=2, threads=1)


@dataclass(frozen=True)
class Sample:
    """Pairs of some queries of a world: float32 (n, k, 4), int8 (n,), uint64 (n,), and the names of its members."""

    columns: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    members: tuple[str, ...]

    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
        return self.columns, self.labels, self.groups, self.members


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1; a quick run only shows that it runs."""
    options = arguments("worth", __doc__, argv, PARTS)
    parts: dict[str, Callable[[], list[Figure]]] = {
        "shares": partial(share_figures, options.seed, options.quick),
        "losses": partial(loss_figures, options.seed, options.quick),
        "copies": partial(copy_figures, options.seed, options.quick),
        "shap": partial(shap_figures, options.seed, options.quick),
    }
    figures = [one for part, measure in parts.items() if part in options.only for one in measure()]
    report("worth", figures, options.json)
    return 0 if options.quick or all(each.met is not False for each in figures) else 1


def samples_of(generator: str, seed: int, pairs: int, samples: int) -> list[Sample]:
    """Return samples of one world, of other queries each.

    Args:
        generator: "worlds", see `benchmarks.worlds`, or "correlated", see `exercises.py`, with a member of noise added.
        seed: of the world.
        pairs: of a sample, about.
        samples: how many.
    """
    if generator == "worlds":
        world = make_world(seed, rows=pairs * samples, members=6)
        columns, labels, groups, members = world.columns, world.labels, world.groups, world.members
    else:
        made = correlated(seed, pairs * samples, 10, members=5)
        noise = softmax(np.random.default_rng([seed, 7]).normal(size=(len(made.labels), 1, 4)) * 0.8)
        columns = np.concatenate([made.columns, noise.astype(np.float32)], axis=1)
        labels, groups = made.labels, made.groups
        members = (*(f"plain-{place}" for place in range(5)), "useless-5")
    keys, query = np.unique(groups, return_inverse=True)
    sample = np.random.default_rng([seed, 5]).integers(samples, size=len(keys))[query]
    return [
        Sample(columns[rows], labels[rows], groups[rows], members) for rows in (sample == n for n in range(samples))
    ]


def share_figures(seed: int, quick: bool) -> list[Figure]:
    """Return how often intervals of shares hold the mean share over samples, and who is told from noise."""
    samples, judged = (4, 1) if quick else (SAMPLES, JUDGED)
    sizes = {500: 1} if quick else WORLDS
    tasks = [
        (generator, seed * 1_000_000 + 40_000 + number, pairs, samples, judged)
        for generator in ("worlds", "correlated")
        for pairs, worlds in sizes.items()
        for number in range(worlds)
    ]
    found = in_processes(shares_of_world, tasks, "worlds of shares")
    figures = []
    for generator in ("worlds", "correlated"):
        for pairs in sizes:
            here = [one for one, task in zip(found, tasks, strict=True) if task[0] == generator and task[2] == pairs]
            name = f"{generator}, {pairs:,} pairs"
            rows = np.concatenate([one["rows"] for one in here])  # held, held before, width, width before, spread
            figures += [
                figure(
                    f"{name}: intervals that hold the worth", rows[:, 0].mean(), "share", ">= 0.9", "one fit",
                    rows[:, 1].mean(),
                ),
                figure(f"{name}: width", rows[:, 2].mean(), "share", "", "one fit", rows[:, 3].mean()),
                figure(f"{name}: 3.92 deviations of the share over samples", 3.92 * rows[:, 4].mean(), "share"),
            ]  # fmt: skip
    useless = np.concatenate([one["useless"] for one in found])
    others = np.concatenate([one["others"] for one in found])
    return [
        *figures,
        figure("members of noise said to be no more than noise", 1 - useless.mean(), "share", ">= 0.9"),
        figure("the others said to be more than noise", others.mean(), "share"),
        figure("the same, of those worth twice the noise", _twice(found), "share", ">= 0.9"),
        figure("share of the noise beside the members", np.mean([one["noise"] for one in found]), "share"),
        figure("re-fits, seconds a tournament", float(np.mean([one["seconds"] for one in found])), "s"),
    ]


def _twice(found: Sequence[dict[str, Any]]) -> float:
    told = np.concatenate([one["others"][one["worth"] > 2 * one["noise"]] for one in found])
    return float(told.mean()) if len(told) else 1.0


def shares_of_world(task: tuple[str, int, int, int, int]) -> dict[str, Any]:
    """Return, for each judged sample and member, what held the worth, and who is said to be above noise."""
    generator, seed, pairs, samples, judged = task
    world = samples_of(generator, seed, pairs, samples)
    choices = [cross_validate(*one.parts()[:3], PARAMETERS).choice for one in world]
    fits = [fit_aggregator(*one.parts(), PARAMETERS, choice) for one, choice in zip(world, choices, strict=True)]
    credit = np.array([_credit(fit, one) for fit, one in zip(fits, world, strict=True)])
    worth, spread = credit.mean(axis=0), credit.std(axis=0, ddof=1)
    useless = np.array([name.startswith("useless") for name in world[0].members])
    rows, told, noise, seconds = [], [], [], []
    for one, choice, fit, share in list(zip(world, choices, fits, credit, strict=True))[:judged]:
        refits = None

        def again(one: Sample = one, choice: Choice = choice) -> None:
            nonlocal refits
            refits = refit(*one.parts(), PARAMETERS, choice)

        seconds.append(median_seconds(again, 1))
        found = measure_worth(fit, one.columns, one.groups, np.full(len(one.labels), "us"), refits=refits)
        by_name = {entry.member: entry for entry in found.members}
        before_low, before_high = queries_resampled(fit, one)
        for place, name in enumerate(one.members):
            entry = by_name[name]
            rows.append(
                (
                    entry.low <= worth[place] <= entry.high,
                    before_low[place] <= worth[place] <= before_high[place],
                    entry.high - entry.low,
                    before_high[place] - before_low[place],
                    spread[place],
                )
            )
        told.append([by_name[name].above_noise for name in one.members])
        noise.append(found.noise)
        assert np.allclose([by_name[name].utility for name in one.members], share)
    above = np.array(told, dtype=float).reshape(-1, len(useless))
    return {
        "rows": np.array(rows, dtype=float).reshape(-1, 5),
        "useless": above[:, useless].ravel(),
        "others": above[:, ~useless].ravel(),
        "worth": np.tile(worth[~useless], len(above)),
        "noise": float(np.mean(noise)) if noise else 0.0,
        "seconds": float(np.mean(seconds)) if seconds else 0.0,
    }


def _credit(aggregator, sample: Sample) -> np.ndarray:
    found = measure_worth(aggregator, sample.columns, sample.groups, np.full(len(sample.labels), "us")).utility()
    return np.array([found[name] for name in sample.members])


def queries_resampled(aggregator, sample: Sample, resamples: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval of the previous release: percentiles over resampled queries, of one fit."""
    values = attribute_rows(tabulate(aggregator), flatten(sample.columns, sample.members))
    keys, query = np.unique(sample.groups, return_inverse=True)
    totals = np.abs(values).sum(axis=1)
    by_query = np.stack([np.bincount(query, weights=column, minlength=len(keys)) for column in totals.T], axis=1)
    weights = np.random.default_rng(0).multinomial(len(keys), np.full(len(keys), 1 / len(keys)), size=resamples)
    drawn = weights @ by_query
    shares = drawn / drawn.sum(axis=1, keepdims=True)
    return np.quantile(shares, 0.025, axis=0), np.quantile(shares, 0.975, axis=0)


def loss_figures(seed: int, quick: bool) -> list[Figure]:
    """Return how far values and losses of samples are from their mean, in their own standard errors."""
    pairs, samples, worlds = (500, 3, 1) if quick else (2_000, 16, 6)
    tasks = [(seed * 1_000_000 + 50_000 + number, pairs, samples) for number in range(worlds)]
    found = in_processes(losses_of_world, tasks, "worlds of losses")
    value, loss = (np.concatenate([one[place] for one in found]) for place in range(2))
    return [
        figure("v within 1.96 standard errors of its mean", (np.abs(value) <= 1.96).mean(), "share", ">= 0.9"),
        figure("drop-one within 1.96 standard errors of its mean", (np.abs(loss) <= 1.96).mean(), "share", ">= 0.9"),
        figure("deviation of drop-one over samples, in its standard errors", loss.std(), "times"),
    ]


def losses_of_world(task: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return how far v and drop-one of each sample are from their means, in standard errors."""
    seed, pairs, samples = task
    values, losses = [], []
    for one in samples_of("worlds", seed, pairs, samples):
        game = Game(*one.parts(), PARAMETERS)
        values.append((game.value(one.members), game.error()))
        lost, errors = game.drop_one(), game.drop_one_errors()
        losses.append([(lost[name], errors[name]) for name in one.members])
    return tuple((each[..., 0] - each[..., 0].mean(axis=0)).ravel() / np.maximum(each[..., 1], 1e-9).ravel()
                 for each in (np.array(values), np.array(losses)))  # fmt: skip


def copy_figures(seed: int, quick: bool) -> list[Figure]:
    """Return how many copies are found, and how many models that are none are said to be alike or interchangeable."""
    worlds = 2 if quick else 24
    found = in_processes(
        copies_of_world, [seed * 1_000_000 + 60_000 + number for number in range(worlds)], "worlds of copies"
    )
    copies, before, others, called, wrongly = (np.array(column, dtype=float) for column in zip(*found, strict=True))
    return [
        figure(
            "copies at another temperature named near-copies", copies.mean(), "share", ">= 0.95", "uncalibrated",
            before.mean(),
        ),
        figure("models of other factors named near-copies", others.mean(), "share", "<= 0.01"),
        figure("copies called interchangeable, where one of them is needed", np.nanmean(called), "share", ">= 0.8"),
        figure("models of other factors called interchangeable", np.nanmean(wrongly), "share", "<= 0.05"),
    ]  # fmt: skip


def copies_of_world(seed: int) -> tuple[float, float, float, float, float]:
    """Return shares of pairs of one world: copies found now and before, others named; and those interchangeable.

    The world has a copy of the first member at another temperature, with a little noise of its own, and two members
    that see two factors each that nobody else sees.
    """
    random = np.random.default_rng([seed, 1])
    rows, queries = 3_000, 150
    query = np.sort(random.integers(queries, size=rows))
    groups = random.integers(0, 2**63, size=queries, dtype=np.uint64)[query]
    latent = random.normal(size=(rows, 6))
    directions = random.normal(size=(6, 4)) * random.uniform(0.8, 1.4, size=(6, 1))
    prior = np.log([0.5, 0.25, 0.1, 0.15])
    labels = (latent @ directions + prior + random.gumbel(size=(rows, 4)) * 0.8).argmax(axis=1).astype(np.int8)
    signals = [
        latent[:, part : part + 2] @ directions[part : part + 2] + random.normal(size=(rows, 4)) * 0.5
        for part in (0, 2, 4)
    ]
    temperature = TEMPERATURES[seed % len(TEMPERATURES)]
    copy = (signals[0] + prior + random.normal(size=(rows, 4)) * 0.1) / temperature
    columns = np.stack([*(softmax(one + prior) for one in signals), softmax(copy)], axis=1).astype(np.float32)
    names = ("first", "second", "third", "copy")
    likeness = compare_members(columns, labels, names)
    named = {frozenset((one.first, one.second)): one.near_copy for one in likeness}
    raw = columns[:, [0, 3]].astype(np.float64)
    for label in np.unique(labels):
        raw[labels == label] -= raw[labels == label].mean(axis=0)
    correlation = np.corrcoef(raw[:, 0].ravel(), raw[:, 1].ravel())[0, 1]
    game = Game(columns, labels, groups, names, QUICKER)
    both = {frozenset((one.first, one.second)) for one in interchangeable(game, names, likeness)}
    others = [pair for pair in named if pair != {"first", "copy"}]
    lost, error = game.contrast([(1.0, names), (-1.0, ("second", "third"))])
    needed = lost > 2 * error
    return (
        float(named[frozenset(("first", "copy"))]),
        float(correlation >= NEAR_COPY_CORRELATION),
        float(np.mean([named[pair] for pair in others])),
        float(frozenset(("first", "copy")) in both) if needed else float("nan"),
        float(np.mean([pair in both for pair in others])),
    )


def shap_figures(seed: int, quick: bool) -> list[Figure]:
    """Return how well the contributions agree with the package's own, and what the comparison takes."""
    rows, rounds = (1_000, 10) if quick else (20_000, 200)
    world = make_world(seed + 71, rows=rows, members=6)
    parts = world.columns, world.labels, world.groups, world.members
    aggregator = fit_aggregator(*parts, PARAMETERS, Choice(rounds))
    found = check_with_shap(aggregator, world.columns)
    seconds = median_seconds(lambda: check_with_shap(aggregator, world.columns), 3)
    return [
        figure("pairs compared with shap in a tournament", found.rows, "pairs", ">= 200"),
        figure("largest difference, share of the largest value", found.gap, "share", "<= 1e-6"),
        figure(f"the comparison, {4 * rounds} trees", seconds, "s"),
    ]


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main())
