"""The process in which a pyfunc runs: `python -m esci_tournament.tasks.families.pyfunc.worker FOLDER BYTES`.

Only here is anything of it unpickled or executed. One JSON document a line: requests name a frame and a place for the
answer, both files in a folder of the parent's; what the model prints goes to standard error.
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

from esci_tournament.registry.children import end_with_parent
from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.pyfuncs import open_pyfunc
from esci_tournament.tasks.data.store import read_frame


def main(folder: str, limit: str) -> int:
    """Open the model, say so, and answer requests until standard input ends."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    end_with_parent()

    def say(**message: object) -> None:
        channel.write(json.dumps(message) + "\n")

    resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        model = open_pyfunc(Path(folder))
    except BaseException as error:  # whatever its code raises, SystemExit too
        say(failed=in_words(error))
        return 1
    say(ready=True)
    for line in requests:
        request = json.loads(line)
        try:
            answer = as_array(model.predict(read_frame(Path(request["frame"]))))
            np.save(request["answer"], answer, allow_pickle=False)
        except BaseException as error:
            say(failed=in_words(error))
        else:
            say(done=True)
    return 0


def as_array(answer: Any) -> np.ndarray:
    """Return a model's answer as float32 (n, k): a frame with columns E, S, C, I in any order, or an array.

    Raises:
        TypeError: if it is neither.
    """
    if isinstance(answer, pd.DataFrame) and set(LABELS) <= set(answer.columns):
        answer = answer[list(LABELS)]
    values = np.asarray(answer)
    if values.dtype == object:
        values = np.asarray(values.tolist(), dtype=np.float64)
    if not np.issubdtype(values.dtype, np.number):
        raise TypeError(f"its answer is {values.dtype}; four probabilities a row were asked for")
    return values.astype(np.float32)


def in_words(error: BaseException) -> str:
    """Return what a model raised, in one line."""
    said = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, MemoryError) or "allocate memory" in said:
        return "out of memory: it wanted more than the setting pyfunc_memory_gib gives it"
    return f"{type(error).__name__}: {said}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
