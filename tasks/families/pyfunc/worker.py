"""The process in which a pyfunc runs: `python -m esci_tournament.tasks.families.pyfunc.worker FOLDER BYTES ...`.

Only this process unpickles or executes anything of the model. Messages are one JSON document a line: requests on
standard input name a frame file and an answer file, both in a folder of the parent process. What the model prints goes
to standard error.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from esci_tournament.registry.border_child import no_new_privileges
from esci_tournament.registry.children import end_with_parent
from esci_tournament.registry.labels import CLASSES, LABELS, classes_in
from esci_tournament.registry.pyfuncs import open_pipeline, open_pyfunc
from esci_tournament.tasks.data.store import read_frame
from esci_tournament.tasks.families.pyfunc.text_classifier import TextClassifier

BY_POSITION = "by position"  # how releases before `classes` read every answer but one with columns E, S, C, I


def main(folder: str, limit: str, classes: str = "", columns: str = "product_title") -> int:
    """Open the model, report that it is ready, and answer requests until standard input ends.

    Args:
        folder: of the MLflow model.
        limit: data memory that the process may use, in bytes, as text.
        classes: as for :func:`as_array`.
        columns: of the product, joined by commas; what a text classifier reads beside the query.

    Returns:
        The exit status: 1 when the model cannot be opened, else 0.
    """
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    end_with_parent()

    def say(**message: object) -> None:
        channel.write(json.dumps(message) + "\n")

    resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    no_new_privileges()
    try:
        pipeline = open_pipeline(Path(folder))
        if pipeline is None:
            model = open_pyfunc(Path(folder))
        else:
            model = TextClassifier(pipeline, tuple(columns.split(",")), classes)
    except BaseException as error:  # whatever its code raises, SystemExit too
        say(failed=in_words(error))
        return 1
    say(ready=True)
    for line in requests:
        request = json.loads(line)
        try:
            answer = as_array(model.predict(read_frame(Path(request["frame"]))), classes)
            np.save(request["answer"], np.ascontiguousarray(answer), allow_pickle=False)
        except BaseException as error:
            say(failed=in_words(error))
        else:
            say(done=True)
    return 0


def as_array(answer: Any, classes: str = "") -> np.ndarray:
    """Return a model's answer as an array whose columns are E, S, C, I.

    The names of its columns decide, where it has names of classes; else the declared order. Without either an answer
    is refused: scikit-learn and most label encoders keep classes in alphabetical order, and nothing else tells.

    Args:
        answer: a frame or a list of dicts with a column or key for each class (letters, words, as
            :func:`~esci_tournament.registry.labels.class_of` reads them) in any order, or anything that numpy makes a
            numeric array of.
        classes: the declared order, such as "CEIS"; "" when none is declared. With :data:`BY_POSITION` a model that was
            judged so answers as it did then.

    Returns:
        float32 (n, 4), columns E, S, C, I; an answer of another shape as it is.

    Raises:
        TypeError: if its values are not numbers, or nothing tells which column is which class.

    Example:
        >>> as_array(pd.DataFrame({"complement": [0], "exact": [0], "irrelevant": [0], "substitute": [1]})).tolist()
        [[0.0, 1.0, 0.0, 0.0]]
        >>> as_array(np.array([[0.125, 0.75, 0.0, 0.125]]), "CEIS").tolist()
        [[0.75, 0.125, 0.125, 0.0]]
    """
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        answer = pd.DataFrame(answer)
    names = list(answer.columns) if isinstance(answer, pd.DataFrame) else []
    if classes == BY_POSITION:
        classes = "".join(LABELS)
        places = [names.index(label) for label in LABELS] if set(LABELS) <= set(names) else None
    else:
        places = classes_in(names)
    if places is not None:
        return _numbers(answer.iloc[:, places])
    values = _numbers(answer)
    if values.ndim != 2 or values.shape[1] != CLASSES:
        return values
    if not classes:
        called = f"its columns are called {', '.join(map(str, names))[:200]}" if names else "its columns have no names"
        raise TypeError(
            f"{called}, so nothing tells which is which class; answer with columns {', '.join(LABELS)}, or declare the "
            'order in the spec, such as classes = ["C", "E", "I", "S"] for the alphabetical one'
        )
    return values[:, [classes.index(letter) for letter in LABELS]]


def _numbers(answer: Any) -> np.ndarray:
    values = np.asarray(answer)
    if values.dtype == object:
        values = np.asarray(values.tolist(), dtype=np.float64)
    if not np.issubdtype(values.dtype, np.number):
        told = f"labels such as {str(values.flat[0])[:50]!r}" if values.size else str(values.dtype)
        raise TypeError(
            f"it answers with {told}, and not with four probabilities a row; a model of scikit-learn is logged with "
            'pyfunc_predict_fn="predict_proba"'
        )
    return values.astype(np.float32)


def in_words(error: BaseException) -> str:
    """Return an exception of a model as one line.

    Args:
        error: what the model raised.

    Returns:
        Its type and the first line of its message; an advice on the memory setting when it ran out of memory.

    Example:
        >>> in_words(ValueError("no column named price"))
        'ValueError: no column named price'
    """
    said = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, MemoryError) or "allocate memory" in said:
        return "out of memory: it wanted more than the setting pyfunc_memory_gib gives it"
    return f"{type(error).__name__}: {said}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
