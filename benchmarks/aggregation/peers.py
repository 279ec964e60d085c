"""The aggregator and its peers: each is fitted on the same pairs and answers the same fresh ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import lightgbm
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from benchmarks.aggregation.exercises import Exercise
from benchmarks.aggregation.previous import previous_release
from esci_tournament.registry.labels import CLASSES
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters, softmax
from esci_tournament.tasks.ensemble.counts import METRICS, confusion, metric_of, metrics_of
from esci_tournament.tasks.ensemble.fitting import fit_aggregator
from esci_tournament.tasks.ensemble.pool import centred_logs, fit_pool

OURS, BEST = "ours", "best member"
FIGURES = (*METRICS, "log_loss")
STEPS = 50  # of greedy ensemble selection
ROUNDS = 100  # of LightGBM with its defaults
PENALTIES = np.logspace(-3, 1, 5)  # inverse ones, as scikit-learn has them
PARAMETERS = AggregatorParameters(threads=1)


@dataclass(frozen=True)
class Answer:
    """What a method says about the fresh pairs: labels int (n,), probabilities float (n, 4).

    `alone` is whether it answers as one member does by itself.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    alone: bool = False

    @classmethod
    def most_probable(cls, probabilities: np.ndarray) -> Answer:
        return cls(probabilities.argmax(axis=1), probabilities)

    def figures(self, truth: np.ndarray) -> np.ndarray:
        """Return accuracy, macro F1, weighted F1 and log loss (nats a pair), float64 (4,)."""
        said = np.maximum(self.probabilities[np.arange(len(truth)), truth].astype(np.float64), 1e-5)
        found = metrics_of(confusion(truth, self.labels))
        return np.array([*(found[name] for name in METRICS), -np.log(said).mean()])


def ours(exercise: Exercise) -> Answer:
    """Fit the aggregator as a tournament does."""
    fitted = fit_aggregator(exercise.columns, exercise.labels, exercise.groups, exercise.members, PARAMETERS)
    probabilities = fitted.predict_proba(exercise.fresh_columns)
    return Answer(fitted.predict(exercise.fresh_columns), probabilities, fitted.alone is not None)


def before(exercise: Exercise) -> Answer:
    """Fit the aggregator of the previous release."""
    parts = exercise.columns, exercise.labels, exercise.groups, exercise.fresh_columns
    return Answer.most_probable(previous_release(*parts, PARAMETERS))


def logistic_regression(exercise: Exercise) -> Answer:
    """Fit a multinomial logistic regression on all log-probabilities, its penalty chosen by folds of queries."""
    learnt, fresh = (
        centred_logs(columns).reshape(len(columns), -1) for columns in (exercise.columns, exercise.fresh_columns)
    )
    scale = StandardScaler().fit(learnt)
    learnt, fresh, labels = scale.transform(learnt), scale.transform(fresh), exercise.labels.astype(np.int64)
    folds, rows = list(GroupKFold(5).split(learnt, labels, exercise.groups)), np.arange(len(labels))
    losses = []
    for penalty in PENALTIES:
        found = np.empty((len(labels), CLASSES))
        for fit, held in folds:
            found[held] = _regressed(learnt[fit], labels[fit], penalty, learnt[held])
        losses.append(-np.log(found[rows, labels] + 1e-15).mean())
    return Answer.most_probable(_regressed(learnt, labels, PENALTIES[int(np.argmin(losses))], fresh))


def _regressed(features: np.ndarray, labels: np.ndarray, penalty: float, asked: np.ndarray) -> np.ndarray:
    model = LogisticRegression(C=penalty, max_iter=300, tol=1e-3).fit(features, labels)
    probabilities = np.zeros((len(asked), CLASSES))
    probabilities[:, model.classes_] = model.predict_proba(asked)
    return probabilities


def pool(exercise: Exercise) -> Answer:
    """Fit a logarithmic opinion pool: a weight for each member and a number for each class."""
    found = fit_pool(centred_logs(exercise.columns), exercise.labels.astype(np.int64))
    return Answer.most_probable(softmax(found.raw_scores(exercise.fresh_columns)))


def mean(exercise: Exercise) -> Answer:
    return Answer.most_probable(exercise.fresh_columns.mean(axis=1))


def greedy_selection(exercise: Exercise) -> Answer:
    """Choose a bag of members by macro F1, with replacement.

    Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble Selection from Libraries of Models" (2004).
    """
    columns, members = exercise.columns.astype(np.float64), exercise.columns.shape[1]
    total, bag, best = np.zeros_like(columns[:, 0]), np.zeros(members), (-1.0, np.zeros(members))
    for _ in range(STEPS):
        values = [_macro_f1(exercise.labels, total + columns[:, member]) for member in range(members)]
        place = int(np.argmax(values))
        total, bag = total + columns[:, place], bag + np.eye(members)[place]
        if values[place] > best[0]:
            best = values[place], bag
    weights = best[1] / best[1].sum()
    return Answer.most_probable(np.einsum("nkc,k->nc", exercise.fresh_columns, weights))


def _macro_f1(labels: np.ndarray, scores: np.ndarray) -> float:
    return float(metric_of("macro_f1", confusion(labels, scores.argmax(axis=1))))


def lightgbm_defaults(exercise: Exercise) -> Answer:
    """Fit LightGBM with its defaults: 100 rounds at a learning rate of 0.1, 31 leaves."""
    settings = {"objective": "multiclass", "num_class": CLASSES, "num_threads": 1, "deterministic": True,
                "verbosity": -1}  # fmt: skip
    learnt, fresh = (
        columns.reshape(len(columns), -1).astype(np.float64) for columns in (exercise.columns, exercise.fresh_columns)
    )
    booster = lightgbm.train(settings, lightgbm.Dataset(learnt, exercise.labels), ROUNDS)
    return Answer.most_probable(np.asarray(booster.predict(fresh, num_threads=1)))


def best_member(exercise: Exercise) -> Answer:
    """Take the member with the best macro F1 on the pairs to learn from."""
    values = [_macro_f1(exercise.labels, one) for one in exercise.columns.transpose(1, 0, 2)]
    return member(int(np.argmax(values)), exercise)


def member(position: int, exercise: Exercise) -> Answer:
    """Take one member."""
    return Answer.most_probable(exercise.fresh_columns[:, position])


def each_member(exercise: Exercise) -> list[Answer]:
    return [member(position, exercise) for position in range(exercise.columns.shape[1])]


PEERS: dict[str, Callable[[Exercise], Answer]] = {
    "previous release": before,
    "logistic regression": logistic_regression,
    "pool": pool,
    "mean": mean,
    "greedy selection": greedy_selection,
    "LightGBM's defaults": lightgbm_defaults,
    BEST: best_member,
}
