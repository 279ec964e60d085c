"""Fine-tune a pair network on tokenised pairs: the loss, the validation, and the key of the run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from torch.nn import functional

from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.ensemble.counts import confusion, macro_f1
from esci_tournament.tasks.families.language_model.batching import PairTokens, epoch_batches
from esci_tournament.tasks.families.language_model.pair_network import parameter_groups
from esci_tournament.tasks.families.language_model.pair_scorer import PairScorer
from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec
from esci_tournament.tasks.families.language_model.team import ALONE, Team
from esci_tournament.tasks.families.language_model.train_loop import Plan, TrainingState, train
from esci_tournament.tasks.families.losses import class_weights
from esci_tournament.tasks.families.protocol import Progress


@dataclass(frozen=True)
class Lesson:
    """The training data of a run.

    Attributes:
        tokens: the pairs to fit on, then those that choose the epoch.
        labels: int64 (n,), their labels.
        fitted: how many of them, from the first, are to be fitted on.
        seed: decides the order of the batches; torch is seeded by the caller.
    """

    tokens: PairTokens
    labels: np.ndarray
    fitted: int
    seed: int


def fine_tune(
    scorer: PairScorer,
    spec: LanguageModelSpec,
    lesson: Lesson,
    work: Path,
    progress: Progress,
    checkpoint_seconds: float,
    team: Team = ALONE,
) -> TrainingState:
    """Train the scorer's network in place by the spec's recipe and leave it at the epoch with the best macro F1.

    The head starts at the class shares that the weighted loss would settle on. A run that is killed goes on from the
    checkpoint in `work`, with the same result.

    Args:
        scorer: the network and its device; the network is moved there.
        spec: its recipe is followed.
        lesson: the training data.
        work: folder of checkpoints.
        progress: called with the share of steps done, 0 to 1, and what is being done.
        checkpoint_seconds: seconds between checkpoints within an epoch.
        team: the processes that train together.

    Returns:
        The finished state, with the history of losses and scores.

    Raises:
        CandidateError: if the loss is not finite or memory runs out.
    """
    recipe, tokens, labels, device = spec.recipe, lesson.tokens, lesson.labels, scorer.device
    by_class = class_weights(labels[: lesson.fitted], recipe.class_weights)
    weights = None if by_class is None else torch.from_numpy(by_class)
    scorer.network.start_at(_shares(labels[: lesson.fitted], weights))
    scorer.network.to(device)
    weights = None if weights is None else weights.to(device)
    targets, lengths = torch.tensor(labels, device=device), tokens.lengths()
    vectors = scorer.frozen_vectors(tokens)

    def loss(rows: np.ndarray) -> torch.Tensor:
        return functional.cross_entropy(
            scorer.logits(tokens, rows, vectors), targets[rows], weight=weights,
            label_smoothing=recipe.label_smoothing, reduction="sum",
        )  # fmt: skip

    def validate() -> float | None:
        rows = np.arange(lesson.fitted, len(tokens))
        if not len(rows):
            return None
        mine = team.share(np.arange(len(rows)))
        chosen = np.zeros(len(rows), dtype=np.int64)
        chosen[mine] = scorer.probabilities(tokens, rows[mine], vectors).argmax(1)
        chosen = team.total_array(chosen).astype(np.int64)
        return float(macro_f1(confusion(labels[rows], chosen)))

    plan = Plan(
        epochs=recipe.epochs, accumulation=recipe.accumulation, warmup_share=recipe.warmup_share,
        precision=scorer.dtype, patience=recipe.patience, checkpoint_seconds=checkpoint_seconds,
        key=_identity(spec, lesson, device),
    )  # fmt: skip
    return train(
        scorer.network, parameter_groups(scorer.network, recipe), plan, loss=loss, validate=validate, folder=work,
        batches=lambda epoch: epoch_batches(lengths[: lesson.fitted], recipe.batch_size, lesson.seed, epoch),
        device=device, progress=progress, team=team,
    )  # fmt: skip


def _shares(labels: np.ndarray, weights: torch.Tensor | None) -> torch.Tensor:
    each = None if weights is None else weights.numpy()[labels]
    shares = np.bincount(labels, weights=each, minlength=len(LABELS))
    return torch.tensor(shares / shares.sum(), dtype=torch.float32)


def _identity(spec: LanguageModelSpec, lesson: Lesson, device: torch.device) -> str:
    digest, tokens = hashlib.sha256(), lesson.tokens
    told = (spec.digest(), lesson.seed, lesson.fitted, device.type, torch.__version__, transformers.__version__)
    digest.update(json.dumps(told).encode())
    for array in (lesson.labels, tokens.query, tokens.product, tokens.queries.offsets, tokens.queries.values,
                  tokens.products.offsets, tokens.products.values):  # fmt: skip
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
