"""The language-model family: a Hugging Face encoder as cross-encoder or bi-encoder over query and product text."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd
import torch
import transformers
from safetensors.torch import load_file, save_file
from sklearn.metrics import f1_score
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from registry.errors import CandidateError, SpecError
from registry.specs import LanguageModelSpec, parse_spec
from tasks.candidates.batching import (
    PairTokens,
    Ragged,
    Template,
    encode,
    epoch_batches,
    join_fields,
    kept,
    length_batches,
    read_template,
)
from tasks.candidates.checkpoint import (
    check_checkpoint,
    fetch_checkpoint,
    new_encoder,
    open_encoder,
    open_tokenizer,
    quiet,
)
from tasks.candidates.device import autocast, memory_guard, resolve_device, resolve_precision, seeded
from tasks.candidates.losses import class_weights
from tasks.candidates.pair_network import PairNetwork, freeze, parameter_groups
from tasks.candidates.protocol import FitData
from tasks.candidates.text import digest_texts, field_texts, query_texts
from tasks.candidates.tokenizer import train_tokenizer, wrap
from tasks.candidates.train_loop import Plan, TrainingState, train
from tasks.data.dataset import LABELS

_SCORING_PAIRS = 256
# Padded tokens a scoring batch may hold: few on a CPU, where the caches are the limit, many on a GPU.
_SCORING_TOKENS = {"cpu": 4096, "cuda": 131_072}


class LanguageModel:
    """A language model that tells the class of a query-product pair.

    With `checkpoint` it is fine-tuned; with `architecture` it starts from random weights and a tokenizer that is
    trained on the pairs' own text. A model that starts from nothing wants another recipe than the defaults, which are
    meant for fine-tuning: learning_rate 3e-3, batch_size 32, 5 epochs or more, no class weights at first, hidden_size
    64 and 2 layers, and only the fields that say something (title, brand, color). Until the third epoch such a model
    tells little more than whether the query's words stand in the product; which types of product belong together
    comes after that.
    """

    checkpoint_seconds: ClassVar[float] = 60.0

    def __init__(self, spec: LanguageModelSpec) -> None:
        self.spec = spec
        self.training: TrainingState | None = None
        self._network: PairNetwork | None = None
        self._tokenizer: PreTrainedTokenizerFast | None = None
        self._plain: tuple[PreTrainedTokenizerFast, Tokenizer, Template] | None = None
        self._device = torch.device("cpu")

    def fit(self, data: FitData) -> Self:
        """Learn from `data.pairs`, keep the epoch with the best macro F1 on `data.validation`, and return self.

        Raises:
            SpecError: if the checkpoint or the recipe cannot be used.
            CandidateError: if there is nothing to learn from, the loss is not finite, or memory runs out.
        """
        check_checkpoint(self.spec)
        if data.pairs.empty:
            raise CandidateError(f"candidate {self.spec.name}: there is no pair to fit on")
        self._device = device = resolve_device(data.device)
        seed = data.seed if self.spec.seed is None else self.spec.seed
        data.work.mkdir(parents=True, exist_ok=True)
        pairs = pd.concat([data.pairs, data.validation], ignore_index=True)
        with seeded(seed, device), memory_guard("preparing the model"):
            data.progress(0.0, "reading text")
            texts = _Texts.of(pairs, data.products, self.spec)
            self._tokenizer, encoder = self._open(texts, data.work)
            tokens = texts.tokens(*self._plain_tokenizer(), self.spec, data.work)
            freeze(encoder, self.spec.recipe)
            if self.spec.recipe.gradient_checkpointing:
                _checkpoint_activations(encoder)
            self._network = self._pair_network(encoder)
            labels = pairs["label"].to_numpy(dtype=np.int64)
            fit_labels = labels[: len(data.pairs)]
            weights = class_weights(fit_labels, self.spec.recipe.class_weights)
            shares = np.bincount(
                fit_labels, weights=None if weights is None else weights.numpy()[fit_labels], minlength=len(LABELS)
            )
            self._network.start_at(torch.tensor(shares / shares.sum(), dtype=torch.float32))
            self._network.to(device)
            self.training = self._train(data, tokens, labels, weights, seed)
        return self

    def predict_proba(self, pairs: pd.DataFrame, products: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, float32 (len(pairs), 4), order E, S, C, I.

        Args:
            pairs: columns query and product (row in `products`). products: columns of `Dataset.products`.

        Raises:
            CandidateError: if the model is not fitted, yields a number that is not finite, or memory runs out.
        """
        if self._network is None:
            raise CandidateError(f"candidate {self.spec.name} is not fitted; call fit or load first")
        if pairs.empty:
            return np.zeros((0, len(LABELS)), dtype=np.float32)
        tokens = _Texts.of(pairs, products, self.spec).tokens(*self._plain_tokenizer(), self.spec, None)
        return self._probabilities(tokens, np.arange(len(tokens)))

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder (encoder and tokenizer) with the head, the spec and the training's record."""
        if self._network is None or self._tokenizer is None:
            raise CandidateError(f"candidate {self.spec.name} is not fitted; there is nothing to save")
        folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            self._network.encoder.save_pretrained(folder, safe_serialization=True)
            self._tokenizer.save_pretrained(folder)
        head = {name: value.contiguous().cpu() for name, value in self._head().items()}
        save_file(head, folder / "head.safetensors")
        record = {} if self.training is None else {
            "history": self.training.history, "best_epoch": self.training.best_epoch, "steps": self.training.step,
            "seconds": round(self.training.seconds, 3),
        }  # fmt: skip
        _write_json(folder / "training.json", record)
        _write_json(folder / "spec.json", self.spec.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Return the model that :meth:`save` wrote, on `device`.

        Raises:
            SpecError: if a file is missing or does not fit the others.
        """
        try:
            content = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
            spec = parse_spec(content, str(folder / "spec.json"))
            head = load_file(folder / "head.safetensors")
        except (OSError, ValueError) as error:
            raise SpecError(f"{folder} holds no saved language model: {error}") from error
        model = cls(spec)  # type: ignore[arg-type]
        model._device = resolve_device(device)
        with quiet():
            model._tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        model._network = model._pair_network(open_encoder(folder))
        model._network.load_state_dict(
            head | {f"encoder.{k}": v for k, v in model._network.encoder.state_dict().items()}
        )
        model._network.to(model._device).eval()
        return model

    def parameters(self) -> int:
        """Return the number of parameters that serving needs."""
        if self._network is None:
            raise CandidateError(f"candidate {self.spec.name} is not fitted; its parameters are not known yet")
        return sum(parameter.numel() for parameter in self._network.parameters())

    def _open(self, texts: _Texts, work: Path) -> tuple[PreTrainedTokenizerFast, transformers.PreTrainedModel]:
        recipe = self.spec.recipe
        if self.spec.checkpoint is None:
            kept_at = work / f"tokenizer-{texts.digest()}-{recipe.vocabulary}.json"
            if not kept_at.is_file():
                scratch = kept_at.with_name(f".{kept_at.name}")
                train_tokenizer(texts.all(), recipe.vocabulary).save(str(scratch))
                scratch.replace(kept_at)
            tokenizer = wrap(Tokenizer.from_file(str(kept_at)))
            return tokenizer, new_encoder(self.spec, len(tokenizer), tokenizer.pad_token_id)
        folder = fetch_checkpoint(self.spec.checkpoint)
        encoder = open_encoder(folder)
        _check_length(self.spec, encoder.config)
        return open_tokenizer(folder), encoder

    def _pair_network(self, encoder: transformers.PreTrainedModel) -> PairNetwork:
        return PairNetwork(encoder, self.spec.recipe.style, pretrained=self.spec.checkpoint is not None)

    def _plain_tokenizer(self) -> tuple[Tokenizer, Template]:
        assert self._tokenizer is not None
        wrapped = self._tokenizer
        if self._plain is None or self._plain[0] is not wrapped:  # a large vocabulary takes a second to copy
            plain = Tokenizer.from_str(wrapped.backend_tokenizer.to_str())
            plain.no_padding()
            plain.no_truncation()
            separator = wrapped.sep_token_id if wrapped.sep_token_id is not None else wrapped.eos_token_id
            if separator is None:
                raise SpecError(f"candidate {self.spec.name}: its tokenizer has no separator token; name an encoder")
            self._plain = wrapped, plain, read_template(plain, wrapped.pad_token_id, separator)
        return self._plain[1:]

    def _train(
        self, data: FitData, tokens: PairTokens, labels: np.ndarray, weights: torch.Tensor | None, seed: int
    ) -> TrainingState:
        recipe, network, device = self.spec.recipe, self._network, self._device
        assert network is not None
        fitted = len(data.pairs)
        targets = torch.from_numpy(labels).to(device)
        weights = None if weights is None else weights.to(device)
        lengths = tokens.lengths()
        vectors = self._frozen_vectors(tokens)

        def loss(rows: np.ndarray) -> torch.Tensor:
            logits = self._logits(tokens, rows, vectors)
            return functional.cross_entropy(
                logits, targets[rows], weight=weights, label_smoothing=recipe.label_smoothing, reduction="sum"
            )

        def validate() -> float | None:
            rows = np.arange(fitted, len(tokens))
            if not len(rows):
                return None
            chosen = self._probabilities(tokens, rows, vectors).argmax(1)
            return float(f1_score(labels[rows], chosen, labels=range(len(LABELS)), average="macro", zero_division=0))

        plan = Plan(
            epochs=recipe.epochs, accumulation=recipe.accumulation, warmup_share=recipe.warmup_share,
            precision=self._dtype(), patience=recipe.patience,
            checkpoint_seconds=self.checkpoint_seconds, key=self._key(tokens, labels, fitted, seed),
        )  # fmt: skip
        return train(
            network, parameter_groups(network, recipe), plan, loss=loss, validate=validate, folder=data.work,
            batches=lambda epoch: epoch_batches(lengths[:fitted], recipe.batch_size, seed, epoch),
            device=device, progress=data.progress,
        )  # fmt: skip

    def _logits(self, tokens: PairTokens, rows: np.ndarray, vectors: _Vectors | None = None) -> torch.Tensor:
        assert self._network is not None
        if self._network.cross:
            return self._network(tokens.pairs(rows).to(self._device))
        if vectors is not None:
            return self._network.compare(vectors[0][tokens.query[rows]], vectors[1][tokens.product[rows]])
        sides = []
        for table, numbers in ((tokens.queries, tokens.query[rows]), (tokens.products, tokens.product[rows])):
            unique, inverse = np.unique(numbers, return_inverse=True)
            sides.append(self._network.embed(tokens.texts(table, unique).to(self._device))[inverse])
        return self._network.compare(*sides)

    def _frozen_vectors(self, tokens: PairTokens) -> _Vectors | None:
        """Return the vectors of all texts when the encoder of a bi-encoder learns nothing: each is computed once."""
        assert self._network is not None
        if self._network.cross or any(parameter.requires_grad for parameter in self._network.encoder.parameters()):
            return None
        self._network.eval()
        return self._embed(tokens, tokens.queries), self._embed(tokens, tokens.products)

    def _embed(self, tokens: PairTokens, table: Ragged) -> torch.Tensor:
        assert self._network is not None
        vectors = torch.zeros(len(table), self._network.encoder.config.hidden_size, device=self._device)
        lengths = np.minimum(table.lengths(), tokens.max_length) + tokens.template.single_overhead
        with torch.no_grad(), self._precision():
            for rows in length_batches(lengths, _SCORING_PAIRS, _SCORING_TOKENS[self._device.type]):
                vectors[torch.from_numpy(rows)] = self._network.embed(
                    tokens.texts(table, rows).to(self._device)
                ).float()
        return vectors

    def _probabilities(self, tokens: PairTokens, rows: np.ndarray, vectors: _Vectors | None = None) -> np.ndarray:
        assert self._network is not None
        result = np.zeros((len(rows), len(LABELS)), dtype=np.float32)
        with memory_guard("scoring"), torch.no_grad(), self._precision():
            if not self._network.cross and vectors is None:
                vectors = self._embed(tokens, tokens.queries), self._embed(tokens, tokens.products)
            for part in length_batches(tokens.lengths()[rows], _SCORING_PAIRS, _SCORING_TOKENS[self._device.type]):
                logits = self._logits(tokens, rows[part], vectors)
                result[part] = torch.softmax(logits.float(), dim=1).cpu().numpy()
        if not np.isfinite(result).all():
            bad = int((~np.isfinite(result)).any(1).sum())
            raise CandidateError(
                f"candidate {self.spec.name} yields scores that are not finite for {bad} of {len(result)} pairs; "
                "lower learning_rate or use precision float32"
            )
        return result

    def _precision(self) -> AbstractContextManager[object]:
        return autocast(self._device, self._dtype())

    def _dtype(self) -> torch.dtype | None:
        assert self._network is not None
        width = self._network.encoder.config.hidden_size
        return resolve_precision(self.spec.recipe.precision, self._device, width)

    def _head(self) -> dict[str, torch.Tensor]:
        assert self._network is not None
        return {name: value for name, value in self._network.state_dict().items() if not name.startswith("encoder.")}

    def _key(self, tokens: PairTokens, labels: np.ndarray, fitted: int, seed: int) -> str:
        digest = hashlib.sha256()
        told = (self.spec.digest(), seed, fitted, self._device.type, torch.__version__, transformers.__version__)
        digest.update(json.dumps(told).encode())
        for array in (labels, tokens.query, tokens.product, tokens.queries.offsets, tokens.queries.values,
                      tokens.products.offsets, tokens.products.values):  # fmt: skip
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


_Vectors = tuple[torch.Tensor, torch.Tensor]


class _Texts:
    """The distinct queries and products of some pairs, as text, and where each pair finds its own."""

    def __init__(
        self, queries: list[str], query: np.ndarray, fields: dict[str, list[str]], product: np.ndarray
    ) -> None:
        self.queries, self.query, self.fields, self.product = queries, query, fields, product

    @classmethod
    def of(cls, pairs: pd.DataFrame, products: pd.DataFrame, spec: LanguageModelSpec) -> _Texts:
        query, queries = pd.factorize(pd.Series(query_texts(pairs["query"]), dtype=object))
        rows, product = np.unique(pairs["product"].to_numpy(dtype=np.int64), return_inverse=True)
        fields = field_texts(products, rows, spec.recipe.fields, spec.recipe.max_length)
        return cls(list(queries), query.astype(np.int64), fields, product.astype(np.int64))

    def all(self) -> list[str]:
        return [*self.queries, *(text for texts in self.fields.values() for text in texts)]

    def digest(self) -> str:
        return digest_texts([*self.fields, *self.all()])

    def tokens(
        self, tokenizer: Tokenizer, template: Template, spec: LanguageModelSpec, work: Path | None
    ) -> PairTokens:
        recipe = spec.recipe
        budgets = [recipe.field_tokens.get(name, recipe.max_length) for name in recipe.fields]

        def queries() -> Ragged:
            return Ragged.of(encode(tokenizer, self.queries, recipe.max_length))

        def products() -> Ragged:
            ids = [encode(tokenizer, texts, recipe.max_length) for texts in self.fields.values()]
            return join_fields(ids, budgets, template.separator, recipe.max_length)

        if work is None:
            made = queries(), products()
        else:
            told = [tokenizer.to_str(), json.dumps([recipe.max_length, recipe.fields, budgets, template.separator])]
            key = digest_texts([*told, self.digest()])
            made = kept(work, f"queries-{key}", queries), kept(work, f"products-{key}", products)
        return PairTokens(*made, self.query, self.product, template, recipe.max_length)


def _checkpoint_activations(encoder: transformers.PreTrainedModel) -> None:
    # the method was renamed in the course of transformers 5
    enable = getattr(encoder, "activation_checkpointing_enable", None) or encoder.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise SpecError(
            f"gradient_checkpointing: {encoder.config.model_type} has no such thing; switch it off"
        ) from error


def _check_length(spec: LanguageModelSpec, config: transformers.PretrainedConfig) -> None:
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or getattr(config, "relative_attention", False):
        return
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= 2  # these count positions from two
    if spec.recipe.max_length > positions:
        raise SpecError(
            f"candidate {spec.name}: max_length is {spec.recipe.max_length}; checkpoint "
            f"{spec.checkpoint} reads {positions} tokens"
        )


def _write_json(file: Path, content: object) -> None:
    scratch = file.with_name(f".{file.name}")
    scratch.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False), encoding="utf-8")
    scratch.replace(file)
