"""Models that people have logged with MLflow: for each row of the table, one that was logged, small and real.

A row is looked at as registration does; what passes answers for two pairs, or is opened as a checkpoint.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast, pipeline

from esci_tournament.registry.errors import SpecError, StoreError
from esci_tournament.registry.models import Models
from esci_tournament.registry.pyfuncs import open_pipeline, open_pyfunc
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.versions import read_spec_tag
from esci_tournament.tasks.families.checkpoint import open_encoder, open_tokenizer
from esci_tournament.tasks.families.pyfunc.look import check_model
from esci_tournament.tasks.families.pyfunc.spec import PyfuncSpec
from esci_tournament.tasks.families.pyfunc.text_classifier import TextClassifier
from esci_tournament.tasks.families.pyfunc.worker import as_array
from esci_tournament.tasks.families.registered_checkpoint import lay_out

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "lamp", "kettle"]
ROWS_ASKED = pd.DataFrame({"query": ["red lamp", "kettle"], "product_title": ["blue lamp", "red kettle"]})
LETTERS = dict(enumerate("ESCI"))
IN_WORDS = {0: "irrelevant", 1: "exact", 2: "complement", 3: "substitute"}


class Named(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A model whose answer has columns named by classes, in alphabetical order."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> pd.DataFrame:
        return pd.DataFrame(
            [[0.1, 0.6, 0.2, 0.1]] * len(model_input), columns=["complement", "exact", "irrelevant", "substitute"]
        )


class Array(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A model whose answer has no names."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> np.ndarray:
        return np.array([[0.1, 0.6, 0.2, 0.1]] * len(model_input))


@contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]", cls_token="[CLS]"
    )


def config(labels: dict[int, str]) -> BertConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return BertConfig(vocab_size=len(WORDS), id2label=labels, max_position_embeddings=128, **sizes)


def classifier(labels: dict[int, str]) -> Any:
    """Return a pipeline for text classification."""
    return pipeline("text-classification", model=BertForSequenceClassification(config(labels)), tokenizer=tokenizer())


def _classifier(folder: Path, labels: dict[int, str]) -> Path:
    import mlflow.transformers

    with _quiet():
        mlflow.transformers.save_model(classifier(labels), str(folder / "model"), pip_requirements=["transformers"])
    return folder / "model"


def _features(folder: Path) -> Path:
    import mlflow.transformers

    pipe = pipeline("feature-extraction", model=BertModel(config(LETTERS)), tokenizer=tokenizer())
    with _quiet():
        mlflow.transformers.save_model(pipe, str(folder / "model"), pip_requirements=["transformers"])
    return folder / "model"


def sklearn_model() -> Any:
    """Return a fitted classifier of queries and titles."""
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = ColumnTransformer([("query", CountVectorizer(), "query"), ("title", CountVectorizer(), "product_title")])
    return make_pipeline(words, LogisticRegression()).fit(pd.concat([ROWS_ASKED] * 2), list("ESCI"))


def _sklearn(folder: Path, method: str | None) -> Path:
    import mlflow.sklearn

    how = {"pyfunc_predict_fn": method} if method else {}
    with _quiet():
        mlflow.sklearn.save_model(sklearn_model(), str(folder / "model"), pip_requirements=["scikit-learn"], **how)
    return folder / "model"


def _python(folder: Path, model: mlflow.pyfunc.PythonModel) -> Path:
    with _quiet():
        mlflow.pyfunc.save_model(str(folder / "model"), python_model=model, pip_requirements=["pandas"])
    return folder / "model"


def _as_pyfunc(model: Path | str, **keys: Any) -> str:
    """Return what becomes of a model that is entered as it is."""
    told = {"trained_on": "other_queries", "provenance": "made in a test"}
    try:
        spec = parse_spec({"family": "pyfunc", "name": "guest", "model": str(model), **told, **keys})
        assert isinstance(spec, PyfuncSpec)
        check_model(spec, Settings())
        with _quiet():
            pipe = open_pipeline(Path(model))
            opened = open_pyfunc(Path(model)) if pipe is None else TextClassifier(pipe, ("product_title",), spec.order)
            answer = as_array(opened.predict(ROWS_ASKED), spec.order)
    except (SpecError, TypeError, ValueError) as error:
        return f"refused: {_reason(str(error), model)}"
    assert answer.shape == (2, 4)
    np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)
    return f"works with `{', '.join(keys)}`" if keys else "works"


def _as_checkpoint(version: Path) -> str:
    """Return what becomes of a version whose weights are fine-tuned here."""
    try:
        lay_out(version, version.parent / "made", "models:/x/1")
        open_encoder(version.parent / "made")
        open_tokenizer(version.parent / "made")
    except SpecError as error:
        return f"refused: {_reason(str(error), version)}"
    return "works"


def _reason(text: str, place: Path | str) -> str:
    """Return the first words of a message, without what differs from run to run."""
    text = text.splitlines()[0].replace(str(place), "it")
    for beginning in ("pyfunc guest: ", "checkpoint models:/x/1: ", "spec: "):
        text = text.removeprefix(beginning)
    return re.split(r"[;(]|, so nothing", text)[0].strip()


def _reference(folder: Path) -> str:
    version = folder / "version"
    version.mkdir()
    flavor = {"task": "text-classification", "source_model_name": "team/cross-encoder"}
    about = {"flavors": {"transformers": flavor, "python_function": {"loader_module": "mlflow.transformers"}}}
    (version / "MLmodel").write_text(json.dumps(about), encoding="utf-8")  # JSON is YAML
    return _as_checkpoint(version)


def _sentence_transformer(folder: Path) -> str:
    place = folder / "version" / "model.sentence_transformer"
    BertModel(config(LETTERS)).save_pretrained(place)
    tokenizer().save_pretrained(place)
    (place / "modules.json").write_text("[]", encoding="utf-8")
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    return _as_checkpoint(folder / "version")


def _plain(folder: Path) -> str:
    BertModel(config(LETTERS)).save_pretrained(folder / "version")
    tokenizer().save_pretrained(folder / "version")
    return _as_checkpoint(folder / "version")


def _names(folder: Path) -> str:
    for name in ("BERT", "ESCI Cross-Encoder v2", "O'Brien's model", "日本語モデル (v2) [prod]"):
        parse_spec({"name": name, "family": "graph_network", "architecture": "gcn"})
    return "works"


def _tag(folder: Path) -> str:
    wanted = {"family": "language_model", "architecture": "bert", "recipe": {"epochs": 2}}
    lines = 'family = "language_model"\narchitecture = "bert"\nrecipe = { epochs = 2 }'
    for text in (json.dumps(wanted), lines, f"[[candidate]]\n{lines}"):
        assert read_spec_tag(text) == wanted
    return "works"


def _file_store(folder: Path) -> str:
    try:
        assert Models(str(folder / "mlruns"), folder / "home").champion() is None
    except StoreError as error:
        return f"refused: {_reason(str(error).partition('cannot be opened: ')[2], './mlruns')}"
    return "works"


ROWS: dict[str, Callable[[Path], str]] = {
    "`mlflow.transformers`, a text classifier with the labels E, S, C, I, as it is": lambda folder: _as_pyfunc(
        _classifier(folder, LETTERS)
    ),
    "`mlflow.transformers`, labels in words and in any order, as it is": lambda folder: _as_pyfunc(
        _classifier(folder, IN_WORDS)
    ),
    "`mlflow.transformers`, labels LABEL_0 to LABEL_3, as it is": lambda folder: _as_pyfunc(
        _classifier(folder, {number: f"LABEL_{number}" for number in range(4)}), classes=tuple("ESCI")
    ),
    "`mlflow.transformers`, two labels, as it is": lambda folder: _as_pyfunc(_classifier(folder, {0: "no", 1: "yes"})),
    "`mlflow.transformers`, a pipeline for another task, as it is": lambda folder: _as_pyfunc(_features(folder)),
    "`mlflow.transformers`, fine-tuned here": lambda folder: _as_checkpoint(_classifier(folder, LETTERS)),
    "`mlflow.transformers`, logged as a reference to the hub, fine-tuned here": _reference,
    "`mlflow.sentence_transformers`, fine-tuned here": _sentence_transformer,
    "a Hugging Face folder logged as artifacts, fine-tuned here": _plain,
    '`mlflow.sklearn` with `pyfunc_predict_fn="predict_proba"`': lambda folder: _as_pyfunc(
        _sklearn(folder, "predict_proba"), classes=tuple("CEIS")
    ),
    "`mlflow.sklearn` without it": lambda folder: _as_pyfunc(_sklearn(folder, None)),
    "`mlflow.pyfunc`, an answer with named columns": lambda folder: _as_pyfunc(_python(folder, Named())),
    "`mlflow.pyfunc`, an array": lambda folder: _as_pyfunc(_python(folder, Array()), classes=tuple("CEIS")),
    "`mlflow.pyfunc`, an array whose order nobody declares": lambda folder: _as_pyfunc(_python(folder, Array())),
    "an alias, such as `models:/NAME@production`, in a spec": lambda folder: _as_pyfunc("models:/NAME@production"),
    "registered names with capitals, spaces, quotes and other alphabets": _names,
    "`tournament.spec` as JSON or TOML": _tag,
    "MLflow's file store (`./mlruns`)": _file_store,
}
NOTES: dict[str, str] = {
    "`mlflow.transformers`, a text classifier with the labels E, S, C, I, as it is": "The query and the title are its "
    "two texts; `fields` names others.",
    "`mlflow.transformers`, labels in words and in any order, as it is": "Names decide.",
    "`mlflow.transformers`, labels LABEL_0 to LABEL_3, as it is": "",
    "`mlflow.transformers`, two labels, as it is": "Fine-tune it here.",
    "`mlflow.transformers`, a pipeline for another task, as it is": "Fine-tune it here.",
    "`mlflow.transformers`, fine-tuned here": '`checkpoint = "models:/NAME/VERSION"`; its head is made anew.',
    "`mlflow.transformers`, logged as a reference to the hub, fine-tuned here": "Name the model on the hub.",
    "`mlflow.sentence_transformers`, fine-tuned here": "",
    "a Hugging Face folder logged as artifacts, fine-tuned here": "",
    '`mlflow.sklearn` with `pyfunc_predict_fn="predict_proba"`': "Its classes are in alphabetical order.",
    "`mlflow.sklearn` without it": "Log it again with `predict_proba`.",
    "`mlflow.pyfunc`, an answer with named columns": "Letters or words, in any order.",
    "`mlflow.pyfunc`, an array": "",
    "`mlflow.pyfunc`, an array whose order nobody declares": "",
    "an alias, such as `models:/NAME@production`, in a spec": "`tournament register models:/NAME@production` writes "
    "the version that it names now.",
    "registered names with capitals, spaces, quotes and other alphabets": "One line, without / and :, and not both "
    "kinds of quotation marks.",
    "`tournament.spec` as JSON or TOML": "",
    "MLflow's file store (`./mlruns`)": "MLflow itself asks for a database.",
}
