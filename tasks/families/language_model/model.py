"""The language-model family: a Hugging Face encoder as cross-encoder or bi-encoder over query and product text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.registry.files import publish, write_atomically
from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.specs import CandidateSpec, parse_spec
from esci_tournament.tasks.candidates.device import memory_guard, resolve_device, resolve_precision, seeded
from esci_tournament.tasks.families.checkpoint import (
    open_checkpoint,
    open_encoder,
    open_tokenizer,
    permit_checkpoint,
    quiet,
)
from esci_tournament.tasks.families.checkpoint_model import embeddings, positions, widen_embeddings
from esci_tournament.tasks.families.language_model.encoder import check_length, check_origin, new_encoder
from esci_tournament.tasks.families.language_model.fine_tune import Lesson, fine_tune
from esci_tournament.tasks.families.language_model.keywords import Keywords
from esci_tournament.tasks.families.language_model.locales import class_shares, of_locales, shares_of
from esci_tournament.tasks.families.language_model.lora import add_lora
from esci_tournament.tasks.families.language_model.pair_network import TextPairNetwork, checkpoint_activations, freeze
from esci_tournament.tasks.families.language_model.pair_scorer import PairScorer
from esci_tournament.tasks.families.language_model.pair_texts import PairTexts, PairTokenizer
from esci_tournament.tasks.families.language_model.product_vectors import ProductVectors, text_keys
from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec
from esci_tournament.tasks.families.language_model.team import ALONE, Team
from esci_tournament.tasks.families.language_model.together import fitted_together
from esci_tournament.tasks.families.language_model.tokenizer import train_tokenizer, wrap
from esci_tournament.tasks.families.language_model.train_loop import TrainingState
from esci_tournament.tasks.families.protocol import Candidate, FitData, Progress, silent, too_many

_PRODUCTS = 10_000  # products embedded at a time
_TRAINING, _SHARES = "training.json", "class_shares.json"


class LanguageModel(Candidate):
    """A language model that classifies query-product pairs.

    With `checkpoint` it is fine-tuned; with `architecture` it starts from random weights and a tokenizer that is
    trained on the pairs' own text. The recipe's defaults are meant for fine-tuning. For a model from random weights
    start with learning_rate 3e-3, batch_size 32, 5 epochs or more, no class weights, hidden_size 64 and 2 layers, and
    only the most informative fields (title, brand, color). Until the third epoch such a model learns little more than
    whether the query's words stand in the product; which types of product belong together comes after that.

    Attributes:
        spec: checkpoint or architecture, and recipe.
        training: the record of the training; None before `fit`.
        checkpoint_seconds: seconds between checkpoints within an epoch.
    """

    forkable = True
    imports = ("transformers.models.auto",)
    checkpoint_seconds: ClassVar[float] = 60.0

    spec: LanguageModelSpec

    def __init__(self, spec: LanguageModelSpec) -> None:
        self.spec = spec
        self.training: TrainingState | None = None
        self._network: TextPairNetwork | None = None
        self._tokenizer: PairTokenizer | None = None
        self._keywords: Keywords | None = None
        self._ahead: ProductVectors | None = None
        self._shares: dict[str, list[float]] = {}
        self._new_tokens = 0
        self._device = torch.device("cpu")

    @classmethod
    def check(cls, spec: CandidateSpec) -> None:
        """Refuse a checkpoint that cannot be trained.

        Raises:
            SpecError: as :func:`check_origin`.
        """
        assert isinstance(spec, LanguageModelSpec)
        check_origin(spec)

    @classmethod
    def permit(cls, spec: CandidateSpec, settings: Settings) -> None:
        """Refuse a checkpoint that the operator does not allow, or a model with too many parameters.

        Raises:
            SpecError: if so; the message names the setting.
        """
        assert isinstance(spec, LanguageModelSpec)
        if spec.checkpoint is not None:
            permit_checkpoint(spec.checkpoint, settings)
        elif spec.parameters > settings.candidate_parameters:
            raise SpecError(too_many(spec.name, spec.parameters, settings))

    @classmethod
    def keys_of_version(cls, address: str, settings: Settings) -> dict[str, Any] | None:
        """Return the version as the checkpoint, when it holds the weights of an encoder; it is fine-tuned then."""
        from esci_tournament.tasks.families.registered_checkpoint import has_checkpoint  # MLflow takes a second

        return {"checkpoint": address} if has_checkpoint(address, settings) else None

    @classmethod
    def describe(cls, spec: CandidateSpec) -> str:
        """Return where the model starts from, and its style."""
        assert isinstance(spec, LanguageModelSpec)
        style = spec.recipe.style.replace("_", "-")
        origin = (
            f"{Path(spec.checkpoint).name}, fine-tuned" if spec.checkpoint else f"{spec.architecture}, from scratch"
        )
        return f"{origin}, {style}"

    def fit(self, data: FitData) -> Self:
        """Learn from `data.pairs` and keep the epoch with the best macro F1 on `data.validation`.

        Args:
            data: `edges` are not read. Checkpoints, tokens and a new tokenizer are kept in `work`.

        Returns:
            The candidate itself.

        Raises:
            SpecError: if the checkpoint or the recipe cannot be used.
            CandidateError: if there is nothing to learn from, the loss is not finite, or memory runs out.
        """
        check_origin(self.spec, deep=False)
        if data.pairs.empty:
            raise CandidateError(f"candidate {self.spec.name}: there is no pair to fit on")
        data.work.mkdir(parents=True, exist_ok=True)
        if self.spec.recipe.keywords:
            Keywords.of(data.products, tuple(self.spec.recipe.keywords)).save(data.work)
        if self.spec.recipe.locales:
            self._shares = class_shares(data.pairs)
            data = of_locales(data, self.spec)
        if self.spec.recipe.processes == 1:
            return self.fit_in_team(data, ALONE)
        with fitted_together(self.spec, data, self.checkpoint_seconds) as folder:
            self._adopt(self.load(folder, data.device))
        return self

    def fit_in_team(self, data: FitData, team: Team) -> Self:
        """Do what :meth:`fit` does, together with the other processes of the team, which call it too.

        Args:
            data: the same in all processes but for the device, already limited to the recipe's locales.
            team: the processes that train together.

        Returns:
            The candidate itself.

        Raises:
            SpecError: if the checkpoint or the recipe cannot be used.
            CandidateError: if the loss is not finite or memory runs out.
        """
        self._device = resolve_device(data.device)
        seed = data.seed if self.spec.seed is None else self.spec.seed
        if self.spec.recipe.keywords:
            self._keywords = Keywords.load(data.work)
        pairs = pd.concat([data.pairs, data.validation], ignore_index=True)
        with seeded(seed, self._device), memory_guard("preparing the model"):
            data.progress(0.0, "reading text")
            texts = PairTexts.of(pairs, data.products, self.spec.recipe, self._keywords)
            with team.first_come_main():
                wrapped, encoder = self._open(texts, data.work)
                self._tokenizer = PairTokenizer(wrapped, self.spec.recipe, len(embeddings(encoder).weight))
                tokens = self._tokenizer.tokens(texts, data.work)
            merge = add_lora(encoder, self.spec.recipe) if self.spec.recipe.lora_rank else None
            freeze(encoder, self.spec.recipe)
            if self.spec.recipe.gradient_checkpointing:
                checkpoint_activations(encoder)
            self._network = self._pair_network(encoder)
            lesson = Lesson(tokens, pairs["label"].to_numpy(dtype=np.int64), len(data.pairs), seed)
            self.training = fine_tune(
                self._scorer(), self.spec, lesson, data.work, data.progress, self.checkpoint_seconds, team
            )
            if merge:
                merge()
        return self

    def predict_proba(self, pairs: pd.DataFrame, products: pd.DataFrame) -> np.ndarray:
        """Return class probabilities.

        A model that is fitted on some locales only answers for pairs of others with the class shares that the pairs to
        fit on have in their locale, or have in all when there are none of it.

        Args:
            pairs: columns query and product (row in `products`), and locale when the recipe names locales.
            products: columns of `Dataset.products`.

        Returns:
            float32 (len(pairs), 4), order E, S, C, I.

        Raises:
            CandidateError: if the model is not fitted, yields a number that is not finite, or memory runs out.
        """
        scorer, tokenizer = self._scorer(), self._fitted_tokenizer()
        if pairs.empty:
            return np.zeros((0, len(LABELS)), dtype=np.float32)
        if not self.spec.recipe.locales:
            return self._score(pairs, products, scorer, tokenizer)
        result = shares_of(pairs["locale"], self._shares)
        own = pairs["locale"].isin(self.spec.recipe.locales).to_numpy()
        if own.any():
            result[own] = self._score(pairs[own], products, scorer, tokenizer)
        return result

    def _score(
        self, pairs: pd.DataFrame, products: pd.DataFrame, scorer: PairScorer, tokenizer: PairTokenizer
    ) -> np.ndarray:
        texts = PairTexts.of(pairs, products, self.spec.recipe, self._keywords)
        if self._ahead is None:
            tokens = tokenizer.tokens(texts)
            return scorer.probabilities(tokens, np.arange(len(tokens)))
        found = self._ahead.find(text_keys(texts.fields))
        new = np.flatnonzero(found < 0)
        vectors = torch.from_numpy(self._ahead.vectors[np.maximum(found, 0)])
        if len(new):
            unknown = tokenizer.tokens(texts.of_products(new))
            vectors[new] = scorer.embed(unknown, unknown.products).cpu()
        blank = {name: [""] * len(found) for name in texts.fields}
        tokens = tokenizer.tokens(replace(texts, fields=blank))
        both = scorer.embed(tokens, tokens.queries), vectors.to(self._device)
        return scorer.probabilities(tokens, np.arange(len(tokens)), both)

    def embed_products(self, products: pd.DataFrame, folder: Path, progress: Progress = silent) -> None:
        """Compute every product's vector ahead, into a folder, and use them from now on; for a bi-encoder only.

        A pair whose product has the same text as one of them then costs the query's encoding and the head. Others are
        encoded as before, so that the vectors need not be complete or new.

        Args:
            products: columns of `Dataset.products`.
            folder: where to write, made if need be; 4 * hidden size bytes a product.
            progress: called with the share of products done, 0 to 1, and what is being done.

        Raises:
            SpecError: if the model is a cross-encoder, which has no vector of a product alone.
            CandidateError: if the model is not fitted.
        """
        scorer, tokenizer, recipe = self._scorer(), self._fitted_tokenizer(), self.spec.recipe
        if scorer.network.cross:
            raise SpecError(f"candidate {self.spec.name} is a cross-encoder; only a bi_encoder has vectors of products")
        pairs = pd.DataFrame({"query": "", "product": np.arange(len(products))})

        def texts() -> Iterator[PairTexts]:
            for start in range(0, len(products), _PRODUCTS):
                yield PairTexts.of(pairs.iloc[start : start + _PRODUCTS], products, recipe, self._keywords)

        def vectors() -> Iterator[np.ndarray]:
            for number, part in enumerate(texts()):
                tokens = tokenizer.tokens(part)
                yield scorer.embed(tokens, tokens.products).cpu().numpy()
                progress(min(1.0, (number + 1) * _PRODUCTS / len(products)), "embedding products")

        keys = np.concatenate([np.zeros(0, np.uint64), *(text_keys(part.fields) for part in texts())])
        self._ahead = ProductVectors.write(folder, scorer.network.digest(), keys, scorer.network.width, vectors())

    @property
    def products_ahead(self) -> int:
        """The number of product vectors in use."""
        return 0 if self._ahead is None else len(self._ahead.keys)

    @property
    def embeds_products(self) -> bool:
        """Whether it is a bi-encoder; a cross-encoder has no vector of a product alone."""
        return self.spec.recipe.style == "bi_encoder"

    def use_products(self, folder: Path) -> None:
        """Use the vectors that :meth:`embed_products` of this very model wrote into a folder.

        Args:
            folder: where :meth:`embed_products` wrote.

        Raises:
            SpecError: if the folder holds none, or those of another model.
            CandidateError: if the model is not fitted.
        """
        self._ahead = ProductVectors.open(folder, self._fitted_network().digest())

    def learning_curves(self) -> dict[str, list[float | None]]:
        """Return the training loss a pair and the macro F1 on validation of each epoch."""
        epochs = [] if self.training is None else self.training.history
        named = {"train_loss": "loss", "validation_macro_f1": "score"}
        return {name: [one[key] for one in epochs] for name, key in named.items() if epochs}

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder (encoder and tokenizer) with the head, the spec and the training's record.

        Args:
            folder: made if need be; spec.json is written last.

        Raises:
            CandidateError: if the model is not fitted.
        """
        network, tokenizer = self._fitted_network(), self._fitted_tokenizer()
        folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            network.encoder.save_pretrained(folder, safe_serialization=True)
            tokenizer.wrapped.save_pretrained(folder)
        everything = network.state_dict().items()
        head = {name: value.contiguous().cpu() for name, value in everything if not name.startswith("encoder.")}
        save_file(head, folder / "head.safetensors")
        record = {} if self.training is None else {
            "history": self.training.history, "best_epoch": self.training.best_epoch, "steps": self.training.step,
            "seconds": round(self.training.seconds, 3),
        }  # fmt: skip
        if self._new_tokens:  # of the tokenizer, without a row in the checkpoint's embeddings
            record["new_tokens"] = self._new_tokens
        _write_json(folder / _TRAINING, record)
        if self._keywords is not None:
            self._keywords.save(folder)
        if self.spec.recipe.locales:
            _write_json(folder / _SHARES, self._shares)
        _write_json(folder / "spec.json", self.spec.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Return the model that :meth:`save` wrote, on `device`.

        Args:
            folder: where :meth:`save` wrote.
            device: torch device, such as "cpu", "cuda:0" or "auto".

        Returns:
            A fitted model in evaluation mode.

        Raises:
            SpecError: if a file is missing or does not fit the others.
        """
        try:
            content = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
            spec = parse_spec(content, str(folder / "spec.json"))
            head = load_file(folder / "head.safetensors")
        except (OSError, ValueError) as error:
            raise SpecError(f"{folder} holds no saved language model: {error}") from error
        if not isinstance(spec, LanguageModelSpec):
            raise SpecError(f"{folder} holds a model of family {spec.family}, not a language model")
        model = cls(spec)
        model._device = resolve_device(device)
        network = model._network = model._pair_network(open_encoder(folder))
        wrapped, rows = open_tokenizer(folder, PreTrainedTokenizerFast), len(embeddings(network.encoder).weight)
        model._tokenizer = PairTokenizer(wrapped, spec.recipe, rows)
        network.load_state_dict(head | {f"encoder.{k}": v for k, v in network.encoder.state_dict().items()})
        network.to(model._device).eval()
        if spec.recipe.keywords:
            model._keywords = Keywords.load(folder)
        if (folder / _SHARES).is_file():
            model._shares = json.loads((folder / _SHARES).read_text(encoding="utf-8"))
        model.training, model._new_tokens = _read_training(folder / _TRAINING)
        return model

    def parameters(self) -> int:
        """Return the number of parameters that serving needs.

        Raises:
            CandidateError: if the model is not fitted.
        """
        return sum(parameter.numel() for parameter in self._fitted_network().parameters())

    def _adopt(self, other: LanguageModel) -> None:
        """Take over the parts of a model that other processes have trained and saved."""
        self._network, self._tokenizer, self._device = other._network, other._tokenizer, other._device
        self.training, self._keywords, self._new_tokens = other.training, other._keywords, other._new_tokens

    def _open(self, texts: PairTexts, work: Path) -> tuple[PreTrainedTokenizerFast, transformers.PreTrainedModel]:
        recipe = self.spec.recipe
        if self.spec.checkpoint is None:
            kept_at = work / f"tokenizer-{texts.digest()}-{recipe.vocabulary}.json"
            if not kept_at.is_file():
                scratch = kept_at.with_name(f".{kept_at.name}")
                train_tokenizer(texts.all(), recipe.vocabulary).save(str(scratch))
                publish(scratch, kept_at)
            tokenizer = wrap(Tokenizer.from_file(str(kept_at)))
            return tokenizer, new_encoder(self.spec, len(tokenizer), tokenizer.pad_token_id)
        encoder, tokenizer = open_checkpoint(self.spec.checkpoint)
        check_length(self.spec, positions(encoder))
        self._new_tokens = widen_embeddings(encoder, tokenizer)
        return tokenizer, encoder

    def _pair_network(self, encoder: transformers.PreTrainedModel) -> TextPairNetwork:
        return TextPairNetwork(encoder, self.spec.recipe.style, pretrained=self.spec.checkpoint is not None)

    def _scorer(self) -> PairScorer:
        network = self._fitted_network()
        dtype = resolve_precision(self.spec.recipe.precision, self._device, network.width)
        return PairScorer(network, self._device, dtype, self.spec.name)

    def _fitted_network(self) -> TextPairNetwork:
        if self._network is None:
            raise CandidateError(f"candidate {self.spec.name} is not fitted; call fit or load first")
        return self._network

    def _fitted_tokenizer(self) -> PairTokenizer:
        if self._tokenizer is None:
            raise CandidateError(f"candidate {self.spec.name} is not fitted; call fit or load first")
        return self._tokenizer


def _read_training(file: Path) -> tuple[TrainingState | None, int]:
    """Return the training's record, None when there is none, and the number of tokens that it gave a row."""
    record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    if not record:
        return None, 0
    state = TrainingState(
        epoch=len(record["history"]), step=record["steps"], best_epoch=record["best_epoch"],
        best_score=record["history"][record["best_epoch"]]["score"], history=record["history"],
        seconds=record["seconds"], finished=True,
    )  # fmt: skip
    return state, int(record.get("new_tokens", 0))


def _write_json(file: Path, content: object) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    write_atomically(file, text.encode())
