"""A text classifier that `mlflow.transformers` has logged, asked about query-product pairs.

Its pyfunc takes strings, or dicts of one text and another, never a frame of pairs. So the pipeline itself is asked: the
query is the first text, what the spec names of the product the second, as a cross-encoder was trained.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from esci_tournament.registry.labels import CLASSES, classes_in
from esci_tournament.tasks.families.pyfunc.look import TASK, complaint_of_labels

BATCH = 32  # pairs at once
LONGEST = 512  # tokens of a pair where neither tokenizer nor model has a limit
_NO_LIMIT = 100_000  # tokenizers say 10**30 when they know of no limit


class TextClassifier:
    """A pipeline for text classification with one label a class.

    Args:
        pipeline: transformers' pipeline, loaded.
        columns: Columns of the product that its second text is made of, in this order.
        declared: Order of the classes that the spec declares, "" for none.

    Raises:
        ValueError: if it is a pipeline for another task, or its model has not four labels that exclude each other.
    """

    def __init__(self, pipeline: Any, columns: tuple[str, ...], declared: str = "") -> None:
        config = pipeline.model.config
        if pipeline.task != TASK:
            raise ValueError(f"it is a transformers pipeline for {pipeline.task}; needed is one for {TASK}")
        if complaint := complaint_of_labels(config.to_dict(), declared):
            raise ValueError(f"it {complaint}")
        self.labels = [config.id2label[number] for number in range(config.num_labels)]
        self._tokenizer, self._model, self._columns = pipeline.tokenizer, pipeline.model.eval(), columns
        self._device, self._longest = pipeline.device, _longest(pipeline.tokenizer, config)

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame | np.ndarray:
        """Return class probabilities.

        Args:
            frame: Columns query and those of the product, text.

        Returns:
            float32 (n, 4); with the model's labels as columns when they name classes, else an array in their order.
        """
        import torch

        texts = [" ".join(filter(None, row)) for row in frame[list(self._columns)].itertuples(index=False)]
        queries = frame["query"].tolist()
        # Pairs of about one length together: a batch is padded to its longest pair
        order = np.argsort([len(query) + len(text) for query, text in zip(queries, texts, strict=True)], kind="stable")
        answer = np.zeros((len(frame), CLASSES), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                batch = self._tokenizer(
                    [queries[row] for row in rows],
                    [texts[row] for row in rows],
                    truncation=True,
                    max_length=self._longest,
                    padding=True,
                    return_tensors="pt",
                ).to(self._device)
                answer[rows] = self._model(**batch).logits.float().softmax(-1).cpu().numpy()
        return answer if classes_in(self.labels) is None else pd.DataFrame(answer, columns=self.labels)


def _longest(tokenizer: Any, config: Any) -> int:
    """Return the number of tokens that a pair may have."""
    said = int(tokenizer.model_max_length or 0)
    if 0 < said < _NO_LIMIT:
        return said
    positions = getattr(config, "max_position_embeddings", None) or LONGEST
    # RoBERTa and its kin count positions from the padding's number on, two of them are never used
    return int(max(8, min(positions - 2, LONGEST)))
