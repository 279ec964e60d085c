"""Text classifiers of mlflow.transformers: pairs are built here, labels decide by name, others are refused in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, pipeline

from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.families.pyfunc.look import complaint_of_labels
from esci_tournament.tasks.families.pyfunc.text_classifier import TextClassifier
from esci_tournament.tasks.families.pyfunc.worker import as_array

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "lamp", "kettle", "desk", "norvik", "zentro"]
SHUFFLED = {0: "complement", 1: "irrelevant", 2: "exact", 3: "substitute"}
ROWS = pd.DataFrame(
    {
        "query": ["red lamp", "kettle", "blue desk lamp", "red " * 200, ""],
        "product_title": ["norvik red lamp", "zentro desk", "lamp " * 300, "blue kettle", ""],
        "product_brand": ["norvik", "", "zentro", "norvik", ""],
    }
)


def classifier(labels: dict[int, str], **config: Any) -> Any:
    """Return a real pipeline over a tiny model with random weights, large enough that its answers differ."""
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    about = BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=64, id2label=labels, initializer_range=1.0, **sizes, **config
    )
    return pipeline("text-classification", model=BertForSequenceClassification(about), tokenizer=tokenizer)


def test_a_pair_gets_what_the_pipeline_itself_says_of_it_under_the_names_of_its_labels():
    pipe = classifier(SHUFFLED)
    answer = as_array(TextClassifier(pipe, ("product_title", "product_brand")).predict(ROWS))
    assert answer.shape == (len(ROWS), 4)
    np.testing.assert_allclose(answer.sum(1), 1, atol=1e-6)
    for row in (0, 1):  # the others are longer than the model reads, which the pipeline itself cannot bear
        one = ROWS.iloc[row]
        text = f"{one['product_title']} {one['product_brand']}".strip()
        said = pipe({"text": one["query"], "text_pair": text}, top_k=None)
        expected = {label["label"][0].upper(): label["score"] for label in said}
        np.testing.assert_allclose(answer[row], [expected[letter] for letter in LABELS], atol=1e-5)
    assert np.ptp(answer, axis=0).max() > 0.05


def test_rows_are_answered_in_their_order_whatever_the_batches(monkeypatch):
    model = TextClassifier(classifier(SHUFFLED), ("product_title",))
    together = as_array(model.predict(ROWS))
    monkeypatch.setattr("esci_tournament.tasks.families.pyfunc.text_classifier.BATCH", 1)
    np.testing.assert_allclose(as_array(model.predict(ROWS)), together, atol=1e-5)
    turned = ROWS.iloc[::-1].reset_index(drop=True)
    np.testing.assert_allclose(as_array(model.predict(turned))[::-1], together, atol=1e-5)


def test_labels_without_names_need_a_declared_order():
    nameless = {number: f"LABEL_{number}" for number in range(4)}
    with pytest.raises(ValueError, match=r"name no classes.*classes ="):
        TextClassifier(classifier(nameless), ("product_title",))
    model = TextClassifier(classifier(nameless), ("product_title",), "CIES")
    named = TextClassifier(classifier(dict(enumerate("CIES"))), ("product_title",))
    np.testing.assert_allclose(as_array(model.predict(ROWS), "CIES"), as_array(named.predict(ROWS)), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"id2label": {"0": "E", "1": "S", "2": "I"}}, "has the labels 'E', 'S', 'I'; needed is one label a class"),
        ({"id2label": {"0": "E", "1": "E", "2": "C", "3": "I"}}, "name no classes"),
        ({"id2label": dict(enumerate("ESCI")), "problem_type": "multi_label_classification"}, "several labels at once"),
        ({}, "'LABEL_0', 'LABEL_1'"),
        ([], "LABEL_0"),
    ],
)
def test_labels_that_are_not_the_four_classes_are_named(config, complaint):
    assert complaint in complaint_of_labels(config)


def test_a_pipeline_for_another_task_is_refused():
    pipe = classifier(SHUFFLED)
    pipe.task = "feature-extraction"
    with pytest.raises(ValueError, match=r"feature-extraction; needed is one for text-classification"):
        TextClassifier(pipe, ("product_title",))
