"""Boost the trees of a model of pair features; the rounds with the least log loss on validation are kept."""

from __future__ import annotations

import lightgbm
import numpy as np

from esci_tournament.registry.labels import CLASSES
from esci_tournament.tasks.ensemble.counts import confusion, macro_f1
from esci_tournament.tasks.families.pair_features.spec import PairFeaturesRecipe
from esci_tournament.tasks.families.protocol import Progress

_PATIENCE = 50  # rounds without a lower log loss before boosting stops
_LEAF_HESSIAN = 3.0  # as of the aggregator: LightGBM's default lets a leaf of confident pairs diverge


def boost(
    fit: tuple[np.ndarray, np.ndarray, np.ndarray | None],
    validation: tuple[np.ndarray, np.ndarray],
    names: tuple[str, ...],
    recipe: PairFeaturesRecipe,
    seed: int,
    threads: int,
    progress: Progress,
) -> tuple[str, dict[str, list[float]]]:
    """Boost trees on pairs.

    Args:
        fit: features float64 (n, f), labels int (n,), and weights float32 (n,) or None.
        validation: features float64 (m, f) and labels int (m,).
        names: f names of the features.
        recipe: hyperparameters.
        seed: of the sampling of features and rows.
        threads: of LightGBM; they change no result.
        progress: called with the share done and what is being done.

    Returns:
        LightGBM's text of the model with the rounds that are kept, and after each round that was boosted `log_loss`
        (nats) and `macro_f1` on validation.
    """
    settings = {
        "objective": "multiclass", "num_class": CLASSES, "metric": "multi_logloss", "seed": seed,
        "learning_rate": recipe.learning_rate, "num_leaves": recipe.leaves, "min_data_in_leaf": recipe.leaf_rows,
        "min_sum_hessian_in_leaf": _LEAF_HESSIAN, "lambda_l2": recipe.l2, "feature_fraction": recipe.feature_share,
        "bagging_fraction": 0.8, "bagging_freq": 1, "max_bin": 127, "num_threads": threads, "deterministic": True,
        "force_row_wise": True, "verbosity": -1, "feature_pre_filter": False,
    }  # fmt: skip
    features, labels, weights = fit
    data = lightgbm.Dataset(features, labels, weight=weights, params=settings, feature_name=list(names))
    booster = lightgbm.Booster(settings, data)
    held_out = lightgbm.Dataset(validation[0], validation[1], reference=data, params=settings)
    booster.add_valid(held_out, "validation")
    curves: dict[str, list[float]] = {"log_loss": [], "macro_f1": []}
    best = 0
    for number in range(recipe.rounds):
        finished = booster.update()
        measured = {one[1]: float(one[2]) for one in booster.eval_valid(_macro_f1)}
        curves["log_loss"].append(measured["multi_logloss"])
        curves["macro_f1"].append(measured["macro_f1"])
        if curves["log_loss"][number] < curves["log_loss"][best]:
            best = number
        progress((number + 1) / recipe.rounds, f"round {number + 1} of at most {recipe.rounds}")
        if finished or number - best >= _PATIENCE:
            break
    return booster.model_to_string(num_iteration=best + 1), curves


def _macro_f1(scores: np.ndarray, data: lightgbm.Dataset) -> tuple[str, float, bool]:
    labels = np.asarray(data.get_label()).astype(np.int64)
    given = scores.reshape(len(labels), CLASSES).argmax(axis=1)
    return "macro_f1", float(macro_f1(confusion(labels, given))), True
