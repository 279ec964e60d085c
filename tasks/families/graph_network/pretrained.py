"""A frozen Hugging Face encoder of texts; apart from the other encoders, which do without transformers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from esci_tournament.tasks.families.checkpoint import open_checkpoint, quiet
from esci_tournament.tasks.families.checkpoint_model import embeddings, in_table
from esci_tournament.tasks.families.japanese import words_of
from esci_tournament.tasks.families.lexicon import unit_rows


class Pretrained:
    """The mean of a frozen Hugging Face encoder's last hidden states.

    Args:
        source: folder of a checkpoint, or hub id.
        device: where to compute.
        max_length: tokens read of a text.
        batch_size: texts encoded at a time.

    Attributes:
        dimensions: length of the vectors, the encoder's hidden size.

    Raises:
        SpecError: if `source` is no encoder with safetensors weights.
    """

    def __init__(self, source: str | Path, device: torch.device, max_length: int = 64, batch_size: int = 64) -> None:
        self.device, self.max_length, self.batch_size = device, max_length, batch_size
        model, self.tokenizer = open_checkpoint(str(source), decoders=True)
        # transformers wraps Module.to, which hides from mypy that it is a method
        self.model = model.to(device).eval().requires_grad_(False)  # type: ignore[arg-type]
        self.dimensions = int(model.config.hidden_size)
        self._takes = set(inspect.signature(model.forward).parameters)
        self._words = words_of(self.tokenizer)
        self._spare = in_table(self.tokenizer, len(embeddings(model).weight))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return the mean state over the tokens of each text, float32 (len(texts), dimensions), rows of length 1."""
        result = np.empty((len(texts), self.dimensions), dtype=np.float32)
        by_length = np.argsort([-len(text) for text in texts], kind="stable")
        if self._words is not None:
            texts = [self._words(text) for text in texts]
        for start in range(0, len(texts), self.batch_size):
            rows = by_length[start : start + self.batch_size]
            batch = self.tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            ).to(self.device)
            if self._spare is not None:
                rows_of, spare = self._spare
                batch["input_ids"] = batch["input_ids"].masked_fill(batch["input_ids"] >= rows_of, spare)
            with torch.inference_mode():
                told = {name: value for name, value in batch.items() if name in self._takes}
                states = self.model(**told).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
            result[rows] = ((states * mask).sum(1) / mask.sum(1).clamp_min(1)).float().cpu().numpy()
        return unit_rows(result)

    def save(self, folder: Path) -> None:
        """Write model and tokenizer to `encoder/` of a folder, and encoder.json beside it."""
        with quiet():
            self.model.save_pretrained(folder / "encoder")
        self.tokenizer.save_pretrained(folder / "encoder")
        (folder / "encoder.json").write_text(
            json.dumps({"kind": "pretrained", "max_length": self.max_length}), encoding="utf-8"
        )

    def parameters(self) -> int:
        """Return the number of parameters of the encoder."""
        return sum(parameter.numel() for parameter in self.model.parameters())
