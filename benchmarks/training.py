"""Pairs a second and macro F1 of our training loop, compared with Hugging Face's Trainer with its defaults.

Both fine-tune the same checkpoint on the same pairs and texts with the same seed, batch size (8, the Trainer's
default), peak learning rate (5e-5), optimiser steps and maximum length (256). Time runs from text to trained model:
tokenising, opening the checkpoint, training. Ours also scores validation pairs after each epoch within that time, to
keep the best one; the Trainer, by default, scores none and keeps the last. Processor time is reported as well as wall
time, because other work on the machine affects it less.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import f1_score
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed

from benchmarks.harness import Figure, arguments, figure, report, say
from benchmarks.worlds import lengthened, some_queries
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.candidates.device import seeded
from esci_tournament.tasks.data.dataset import salted_uniform
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.synthesize import synthesize
from esci_tournament.tasks.families.checkpoint import quiet
from esci_tournament.tasks.families.language_model.encoder import new_encoder
from esci_tournament.tasks.families.language_model.model import LanguageModel
from esci_tournament.tasks.families.language_model.pair_texts import PairTexts
from esci_tournament.tasks.families.language_model.spec import LanguageModelRecipe, LanguageModelSpec
from esci_tournament.tasks.families.language_model.tokenizer import train_tokenizer, wrap
from esci_tournament.tasks.families.protocol import FitData

MAX_LENGTH, BATCH, RATE = 256, 8, 5e-5
SPEED_UP, VALIDATION_SHARE = 1.5, 0.1


@dataclass(frozen=True)
class Exercise:
    """What both learn from: columns of `Dataset.pairs`, one catalogue, a checkpoint folder, epochs, a seed."""

    fit: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    products: pd.DataFrame
    checkpoint: Path
    epochs: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Seconds from text to model, of wall and of processor; seconds in the loop alone; steps; test macro F1."""

    seconds: float
    processor_seconds: float
    loop_seconds: float
    steps: int
    macro_f1: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1."""
    own, rest = _own_options().parse_known_args(sys.argv[1:] if argv is None else argv)
    options = arguments("training", f"{__doc__}\n{_own_options().format_usage()}", rest)
    torch.set_num_threads(own.threads)
    pairs = own.pairs or (160 if options.quick else 2500)
    epochs = own.epochs or (1 if options.quick else 2)
    with tempfile.TemporaryDirectory(prefix="training-") as name, quiet():
        exercise = prepare(Path(name), own.data, own.checkpoint, pairs, epochs, options.seed)
        say(f"{len(exercise.fit)} pairs, {epochs} epochs; Hugging Face's Trainer")
        peer = train_peer(exercise, Path(name, "peer"))
        say(f"{peer}\nour loop")
        ours = train_ours(exercise, Path(name, "ours"), "auto")
        say(f"{ours}\nour loop in float32, as the Trainer's default")
        plain = train_ours(exercise, Path(name, "plain"), "float32")
    figures = compare(exercise, ours, plain, peer)
    report("training", figures, options.json)
    return 0 if all(each.met is not False for each in figures) else 1


def prepare(folder: Path, data: Path | None, checkpoint: Path | None, pairs: int, epochs: int, seed: int) -> Exercise:
    """Return the exercise: `pairs` train pairs of whole queries, a tenth as many to validate, as many to test."""
    if data is None:
        dataset = load_esci(synthesize(folder / "world", queries=max(60, pairs // 4), seed=seed, behaviour=False))
        dataset = replace(dataset, products=lengthened(dataset.products, seed))
    else:
        dataset = load_esci(data)
    train, test = (dataset.pairs[dataset.pairs["split"] == split] for split in ("train", "test"))
    chosen = some_queries(train, round(pairs * (1 + VALIDATION_SHARE)), seed)
    held = salted_uniform(chosen["query_key"].to_numpy(), "validation") < VALIDATION_SHARE
    fit, validation = chosen[~held], chosen[held]
    if checkpoint is None:
        checkpoint = new_checkpoint(folder / "checkpoint", fit, dataset.products, seed)
    return Exercise(
        fit.reset_index(drop=True), validation.reset_index(drop=True),
        some_queries(test, pairs, seed).reset_index(drop=True), dataset.products, checkpoint, epochs, seed,
    )  # fmt: skip


def new_checkpoint(folder: Path, pairs: pd.DataFrame, products: pd.DataFrame, seed: int) -> Path:
    """Write a BERT with random weights (2 layers, 128 wide) and a tokenizer of the pairs' text."""
    recipe = LanguageModelRecipe(max_length=MAX_LENGTH, hidden_size=128, layers=2)
    texts = PairTexts.of(pairs, products, recipe)
    tokenizer = wrap(Tokenizer.from_str(train_tokenizer(texts.all(), recipe.vocabulary).to_str()))
    spec = LanguageModelSpec(name="new", architecture="bert", recipe=recipe)
    with seeded(seed):
        encoder = new_encoder(spec, len(tokenizer), tokenizer.pad_token_id)
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train_ours(exercise: Exercise, work: Path, precision: str) -> Outcome:
    """Fit a language model of ours, a cross-encoder with the recipe that the Trainer's defaults amount to."""
    recipe = LanguageModelRecipe(
        max_length=MAX_LENGTH, epochs=exercise.epochs, batch_size=BATCH, learning_rate=RATE, precision=precision
    )
    spec = LanguageModelSpec(name="ours", checkpoint=str(exercise.checkpoint), recipe=recipe)
    data = FitData(
        exercise.fit, exercise.validation, exercise.products, None, exercise.seed, "auto", work,
        _heartbeat(),
    )  # fmt: skip
    start, processor = time.perf_counter(), time.process_time()
    model = LanguageModel(spec).fit(data)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    assert model.training is not None
    chosen = model.predict_proba(exercise.test, exercise.products).argmax(1)
    return Outcome(seconds, processor, model.training.seconds, model.training.step, _macro_f1(exercise.test, chosen))


def train_peer(exercise: Exercise, work: Path) -> Outcome:
    """Fine-tune with the Trainer, its arguments at their defaults but epochs, seed, and that nothing is written."""
    start, processor = time.perf_counter(), time.process_time()
    set_seed(exercise.seed)
    tokenizer = AutoTokenizer.from_pretrained(exercise.checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(exercise.checkpoint, num_labels=len(LABELS))
    settings = TrainingArguments(
        output_dir=str(work), num_train_epochs=exercise.epochs, seed=exercise.seed, save_strategy="no",
        logging_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    if settings.per_device_train_batch_size != BATCH or settings.learning_rate != RATE:
        raise RuntimeError(f"the Trainer's defaults have changed: {settings}; change BATCH and RATE with them")
    rows = _encoded(tokenizer, exercise.fit, exercise.products)
    trainer = Trainer(model=model, args=settings, train_dataset=rows, processing_class=tokenizer)
    trained = trainer.train()
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    logits = trainer.predict(_encoded(tokenizer, exercise.test, exercise.products)).predictions
    score = _macro_f1(exercise.test, np.asarray(logits).argmax(1))
    return Outcome(seconds, processor, trained.metrics["train_runtime"], trained.global_step, score)


def compare(exercise: Exercise, ours: Outcome, plain: Outcome, peer: Outcome) -> list[Figure]:
    """Return the figures of one run."""
    if not ours.steps == plain.steps == peer.steps:
        raise RuntimeError(f"not the same optimiser steps: {ours.steps}, {plain.steps} and {peer.steps}")
    seen, trainer = len(exercise.fit) * exercise.epochs, "transformers.Trainer"
    mine, theirs = seen / ours.seconds, seen / peer.seconds
    return [
        figure("pairs a second, from text to model", mine, "1/s", f">= {SPEED_UP * theirs:.4g}", trainer, theirs),
        figure("times the Trainer's pairs a second", mine / theirs, "times", f">= {SPEED_UP}", trainer, 1.0),
        figure("macro F1 on test pairs", ours.macro_f1, "", f">= {peer.macro_f1!r}", trainer, peer.macro_f1),
        figure("pairs a second, training loop alone", seen / ours.loop_seconds, "1/s", "", trainer,
               seen / peer.loop_seconds),
        figure("times the Trainer's pairs a processor second", peer.processor_seconds / ours.processor_seconds,
               "times", "", trainer, 1.0),
        figure("times the Trainer's pairs a processor second, ours in float32",
               peer.processor_seconds / plain.processor_seconds, "times", "", trainer, 1.0),
        figure("times the Trainer's pairs a second, ours in float32", seen / plain.seconds / theirs, "times", "",
               trainer, 1.0),
        figure("macro F1 on test pairs, ours in float32", plain.macro_f1, "", "", trainer, peer.macro_f1),
        figure("pairs seen", seen, "pairs"),
        figure("optimiser steps", ours.steps, "steps", "", trainer, peer.steps),
        figure("test pairs", len(exercise.test), "pairs"),
    ]  # fmt: skip


class _Rows(torch.utils.data.Dataset):
    """Tokenised pairs, not padded: the Trainer pads each batch to its longest pair."""

    def __init__(self, encodings: dict[str, list[list[int]]], labels: np.ndarray) -> None:
        self.encodings, self.labels = encodings, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, object]:
        return {name: values[row] for name, values in self.encodings.items()} | {"label": int(self.labels[row])}


def _encoded(tokenizer: Callable, pairs: pd.DataFrame, products: pd.DataFrame) -> _Rows:
    texts = PairTexts.of(pairs, products, LanguageModelRecipe(max_length=MAX_LENGTH))
    each = [" ".join(filter(None, fields)) for fields in zip(*texts.fields.values(), strict=True)]
    queries, described = [texts.queries[row] for row in texts.query], [each[row] for row in texts.product]
    return _Rows(dict(tokenizer(queries, described, truncation=True, max_length=MAX_LENGTH)), _labels(pairs))


def _labels(pairs: pd.DataFrame) -> np.ndarray:
    return pairs["label"].to_numpy(dtype=np.int64)


def _macro_f1(pairs: pd.DataFrame, chosen: np.ndarray) -> float:
    return float(f1_score(_labels(pairs), chosen, labels=range(len(LABELS)), average="macro", zero_division=0))


def _heartbeat() -> Callable[[float, str], None]:
    said = [0.0]

    def progress(share: float, doing: str) -> None:
        if share >= said[0] + 0.25:
            said[0] = share
            say(f"  {share:.0%} {doing}")

    return progress


def _own_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", add_help=False)
    parser.add_argument("--data", type=Path, help="folder with the official file names; default: a generated world")
    parser.add_argument("--checkpoint", type=Path, help="Hugging Face folder; default: a new BERT")
    parser.add_argument("--pairs", type=int, help="pairs to fit on")
    parser.add_argument("--epochs", type=int, help="passes over them")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch, on a CPU")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
