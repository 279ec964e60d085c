"""The aggregator: it combines the members' out-of-sample class probabilities; see `fitting`.

The raw score of a class is a log-linear pool of the members (`pool.py`) plus gradient-boosted trees (LightGBM) that
start from it. The probabilities are its softmax. The label is the class whose log-probability plus offset is largest
(`rule.py`). Where no combination is ahead of the best member, the aggregator answers as that member does alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from esci_tournament.registry.errors import StoreError, UsageError
from esci_tournament.registry.files import write_atomically
from esci_tournament.registry.foreign import read_bounded, read_json_file
from esci_tournament.registry.labels import CLASSES
from esci_tournament.registry.processes import usable_cores
from esci_tournament.tasks.ensemble.booster import open_booster, try_files
from esci_tournament.tasks.ensemble.model_text import LONGEST, read_model
from esci_tournament.tasks.ensemble.pool import Pool
from esci_tournament.tasks.ensemble.trees import FlatTrees, Tree

if TYPE_CHECKING:
    import lightgbm

_MODEL, _CARD = "aggregator.txt", "aggregator.json"
_ROWS_WORTH_THREADS = 20_000
_NOT_READ = ("threads", "balance", "start")  # threads are this machine's; the others are of earlier releases
_TINY = 1e-12  # keeps the logarithm of a probability finite
_ROWS_WALKED = 1000  # up to here `FlatTrees` is faster than LightGBM


@dataclass(frozen=True)
class AggregatorParameters:
    """The hyperparameters of the aggregator.

    Attributes:
        learning_rate: shrinkage of a tree.
        maximum_rounds: boosting rounds (four trees each) at most.
        patience: rounds without a better cross-validated log loss before boosting stops.
        leaves: leaves of a tree at most.
        depth: depth of a tree at most; at most 12, the exact attribution tabulates 2**depth patterns a leaf.
        leaf_rows: rows of a leaf at least.
        leaf_hessian: summed hessian of a leaf at least. LightGBM's default of 0.001 lets a leaf of confident rows
            divide by next to nothing: multiclass scores then diverge.
        l2: ridge penalty on leaf values.
        column_share: share of the columns that a tree sees, 0 to 1.
        row_share: share of the rows that a round sees, 0 to 1.
        folds: folds of the cross-validation that chooses the number of rounds.
        threads: LightGBM threads, which change no result and are not saved; below 20,000 pairs one is used, because
            several would spend more time waiting for each other than working.
        seed: seed of all sampling.
        metric: name of the primary metric, which the decision rule is tuned for.

    Raises:
        UsageError: if depth is not 1 to 12, or there are fewer than 2 folds or 1 round.
    """

    learning_rate: float = 0.1
    maximum_rounds: int = 300
    patience: int = 15
    leaves: int = 8
    depth: int = 4
    leaf_rows: int = 20
    leaf_hessian: float = 3.0
    l2: float = 3.0
    column_share: float = 0.8
    row_share: float = 0.8
    folds: int = 5
    threads: int = field(default_factory=usable_cores, compare=False)
    seed: int = 0
    metric: str = "macro_f1"

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= 12:
            raise UsageError(f"depth of the aggregator's trees is {self.depth}; choose 1 to 12")
        if self.folds < 2 or self.maximum_rounds < 1:
            raise UsageError(
                f"the aggregator needs 2 folds and 1 round at least, got {self.folds}, {self.maximum_rounds}"
            )

    def threads_for(self, rows: int) -> int:
        """Return the number of threads to use for `rows` pairs: one below 20,000."""
        return self.threads if rows >= _ROWS_WORTH_THREADS else 1

    def lightgbm(self, rows: int) -> dict[str, Any]:
        """Return the parameters under LightGBM's names.

        Args:
            rows: number of pairs that are fitted on, which decides the threads.

        Returns:
            What `lightgbm.Booster` takes as `params`.
        """
        return {
            "objective": "multiclass",
            "num_class": CLASSES,
            "metric": "multi_logloss",
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "max_depth": self.depth,
            "min_data_in_leaf": self.leaf_rows,
            "min_sum_hessian_in_leaf": self.leaf_hessian,
            "lambda_l2": self.l2,
            "feature_fraction": self.column_share,
            "bagging_fraction": self.row_share,
            "bagging_freq": 1,
            "max_bin": 127,
            "num_threads": self.threads_for(rows),
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }


@dataclass(frozen=True)
class Aggregator:
    """A fitted aggregator.

    Its trees are read by :func:`read_model`. LightGBM gets their text only for more than 1,000 pairs at once, and the
    text of a file only after a child process has survived it.

    Attributes:
        members: k names, the order of the columns.
        text: LightGBM's text of a model over 4 k columns, member by member, E, S, C, I within each.
        rounds: boosting rounds; 0 where the pool alone is best.
        parameters: what it was fitted with.
        pool: what the trees start from; None for nothing, as earlier releases fitted it.
        offsets: of the four classes, nats: what is added to a log-probability when the label is decided.
        alone: the member whose answer is given as it is; None where the members are combined.
        file: where the text was read from; None for one that this process has fitted.
    """

    members: tuple[str, ...]
    text: str = field(repr=False)
    rounds: int
    parameters: AggregatorParameters = field(default_factory=AggregatorParameters)
    pool: Pool | None = None
    offsets: tuple[float, ...] = (0.0,) * CLASSES
    alone: str | None = None
    file: Path | None = field(default=None, compare=False)

    @cached_property
    def booster(self) -> lightgbm.Booster:
        """LightGBM's model.

        Raises:
            StoreError: if the text comes from a file and LightGBM cannot read it.
        """
        if self.file is not None:
            try_files([self.file])
        return open_booster(self.text)

    @cached_property
    def trees(self) -> list[Tree]:
        """The trees in their order; tree i belongs to class i modulo 4.

        Raises:
            StoreError: if the text is not as LightGBM writes it.
        """
        try:
            return read_model(self.text, CLASSES * len(self.members))
        except ValueError as error:
            raise StoreError(f"the aggregator's trees cannot be read: {error}; fit it again") from error

    def raw_scores(self, columns: np.ndarray) -> np.ndarray:
        """Return the scores before the softmax.

        Args:
            columns: float32 (n, k, 4), member scores in the order of `members`.

        Returns:
            float64 (n, 4), order E, S, C, I.

        Raises:
            UsageError: if there are not four columns for each member.
        """
        features = flatten(columns, self.members)
        if not len(features):
            return np.zeros((0, CLASSES))
        scores = self._tree_scores(features)
        return scores if self.pool is None else scores + self.pool.raw_scores(columns)

    def _tree_scores(self, features: np.ndarray) -> np.ndarray:
        if len(features) <= _ROWS_WALKED and np.isfinite(features).all():
            return self._trees.raw_scores(features)
        threads = self.parameters.threads_for(len(features))
        scores = self.booster.predict(features, raw_score=True, num_threads=threads)
        return np.asarray(scores).reshape(-1, CLASSES)

    def digest(self) -> str:
        """Return a SHA-256 of all that the scores follow from, 64 hex digits."""
        content = self._text() + json.dumps(self.pool.to_json() if self.pool else None)
        if any(self.offsets):  # those of earlier releases had none, and keep their digest
            content += json.dumps(list(self.offsets))
        return hashlib.sha256(content.encode()).hexdigest()

    def _text(self) -> str:
        """Return LightGBM's text of the trees, with 1 for the number of threads: it is the same on any machine."""
        return re.sub(r"\[num_threads: \d+\]", "[num_threads: 1]", self.text)

    def prepared(self) -> Aggregator:
        """Read the trees now, which takes some 80 ms, so that the first request need not wait for it.

        Returns:
            The aggregator itself.
        """
        _ = self._trees
        return self

    @cached_property
    def _trees(self) -> FlatTrees:
        return FlatTrees.joined(self.trees)

    def predict_proba(self, columns: np.ndarray) -> np.ndarray:
        """Return class probabilities.

        Args:
            columns: float32 (n, k, 4), member scores in the order of `members`.

        Returns:
            float32 (n, 4), order E, S, C, I.

        Raises:
            UsageError: if there are not four columns for each member.
        """
        return softmax(self.raw_scores(columns)).astype(np.float32)

    def predict(self, columns: np.ndarray) -> np.ndarray:
        """Return the label, int8 (n,), index into `LABELS`, of member scores float32 (n, k, 4)."""
        return self.labels(self.predict_proba(columns))

    def labels(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the label of each pair: not always the most probable class, see `rule.py`.

        Args:
            probabilities: float (n, 4), as :meth:`predict_proba` returns them.

        Returns:
            int8 (n,), index into `LABELS`.
        """
        return self.decision_scores(probabilities).argmax(axis=1).astype(np.int8)

    def decision_scores(self, probabilities: np.ndarray) -> np.ndarray:
        """Return log-probability plus offset of each class, of which the largest is the label.

        Args:
            probabilities: float (n, 4), as :meth:`predict_proba` returns them.

        Returns:
            float64 (n, 4), nats.
        """
        return np.log(np.maximum(np.asarray(probabilities, np.float64), _TINY)) + np.array(self.offsets)

    def save(self, folder: Path) -> None:
        """Write `aggregator.txt` (LightGBM's text format) and `aggregator.json` into `folder`.

        Args:
            folder: made if need be.

        Raises:
            StoreError: if the folder cannot be written.
        """
        parameters = {name: value for name, value in asdict(self.parameters).items() if name != "threads"}
        card: dict[str, Any] = {"members": list(self.members), "rounds": self.rounds, "parameters": parameters}
        card["pool"] = self.pool.to_json() if self.pool else None
        card |= {"offsets": list(self.offsets), "alone": self.alone}
        text = self._text()
        card["digest"] = _digest(text)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / _MODEL, text)
            _write(folder / _CARD, json.dumps(card, indent=2) + "\n")
        except OSError as error:
            raise StoreError(
                f"aggregator cannot be written to {folder}: {error.strerror or error}; free space there"
            ) from error

    @classmethod
    def load(cls, folder: Path) -> Aggregator:
        """Return the aggregator that `save` wrote.

        Nothing in the files is believed: the text has to have the digest that the card names (cards of earlier releases
        name none) and to be a whole model, before anything is computed with it.

        Args:
            folder: where `save` wrote.

        Returns:
            An aggregator with the same scores; its threads are those of this machine.

        Raises:
            StoreError: if a file is missing, damaged or of another shape than its card says.
        """
        try:
            card = read_json_file(folder / _CARD)
            text = read_bounded(folder / _MODEL, LONGEST)
            members, pool, rounds, offsets, alone = _facts(card)
            saved = {name: value for name, value in card["parameters"].items() if name not in _NOT_READ}
            parameters = _typed(AggregatorParameters(**saved))
            _compare(text, card)
            aggregator = cls(members, text, rounds, parameters, pool, offsets, alone, folder / _MODEL)
            aggregator.__dict__["trees"] = read_model(text, CLASSES * len(members))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, UsageError) as error:
            raise StoreError(f"aggregator in {folder} cannot be read: {error}; fit it again") from error
        return aggregator


def _facts(card: dict[str, Any]) -> tuple[tuple[str, ...], Pool | None, int, tuple[float, ...], str | None]:
    """Return members, pool, rounds, offsets and who answers alone, or raise ValueError, KeyError or TypeError."""
    members = tuple(card["members"])
    if not members or not all(isinstance(name, str) for name in members) or len(set(members)) != len(members):
        raise ValueError("its card names no members, or one twice")
    pool = Pool.from_json(card["pool"]) if card.get("pool") else None  # a card may lack the key
    if pool is not None:
        if len(pool.weights) != len(members):
            raise ValueError(f"its pool is about {len(pool.weights)} members, its card names {len(members)}")
        if not all(np.isfinite(part).all() for part in (pool.weights, pool.bias, pool.average)):
            raise ValueError("its pool has a number that is not finite")
    offsets = tuple(float(one) for one in card.get("offsets", (0.0,) * CLASSES))  # earlier releases had none
    if len(offsets) != CLASSES or not np.isfinite(offsets).all():
        raise ValueError(f"its offsets {offsets!r:.100} are not {CLASSES} finite numbers")
    alone = card.get("alone")
    if alone is not None and alone not in members:
        raise ValueError("its card says that a model answers alone which is no member")
    return members, pool, int(card["rounds"]), offsets, alone


def _typed(parameters: AggregatorParameters) -> AggregatorParameters:
    """Return parameters whose values are of the types of the defaults, or raise TypeError."""
    for name, value in asdict(AggregatorParameters(threads=1)).items():
        found = getattr(parameters, name)
        if isinstance(found, bool) or not isinstance(found, (int, float) if isinstance(value, float) else type(value)):
            raise TypeError(f"its parameter {name} is {found!r:.100}")
    return parameters


def _compare(text: str, card: dict[str, Any]) -> None:
    if card.get("digest", _digest(text)) != _digest(text):
        raise ValueError(f"{_MODEL} is not what was saved, its digest is another")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(columns: np.ndarray, members: Sequence[str]) -> np.ndarray:
    """Return member scores in the columns that LightGBM reads.

    Args:
        columns: float (n, k, 4), member scores.
        members: k names.

    Returns:
        float64 (n, 4 k), member by member.

    Raises:
        UsageError: if there are not four columns for each member.
    """
    if columns.ndim != 3 or columns.shape[1:] != (len(members), CLASSES):
        raise UsageError(f"member scores have shape {columns.shape}; pass (n, {len(members)}, {CLASSES})")
    return np.ascontiguousarray(columns.reshape(len(columns), len(members) * CLASSES), dtype=np.float64)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis, of the same shape.

    Example:
        >>> softmax(np.array([0.0, 0.0])).tolist()
        [0.5, 0.5]
    """
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def check_shapes(
    columns: np.ndarray, labels: np.ndarray, groups: np.ndarray, members: Sequence[str] | None = None
) -> None:
    """Check that rows, members and classes agree.

    Args:
        columns: has to be (n, k, 4).
        labels: has to be (n,), with n at least 1.
        groups: has to be (n,).
        members: k names; None skips their check.

    Raises:
        UsageError: naming the shapes seen.
    """
    rows = len(labels)
    good = columns.ndim == 3 and columns.shape[2] == CLASSES and len(columns) == rows == len(groups) and rows > 0
    if not good or columns.shape[1] == 0 or (members is not None and columns.shape[1] != len(members)):
        raise UsageError(
            f"member scores {columns.shape}, labels {labels.shape}, groups {groups.shape}"
            + (f", {len(members)} members" if members is not None else "")
            + f" do not fit; pass (n, k, {CLASSES}), (n,), (n,) and k names"
        )


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())
