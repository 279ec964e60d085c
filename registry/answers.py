"""What MLflow's database answered, kept in the home until the file changes.

MLflow's client takes two seconds of processor time to be imported and opened. A command that only shows what is there
asks the file's size and times first, and reads the answer that was kept where nothing was written since.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from esci_tournament.registry.files import write_atomically

FOLDER = ".mlflow-answers"
# A write within the same tick of a disk's clock leaves the times of a file as they are; some tick every 2 s
_SETTLED_S = 2.5
_BESIDE = ("", "-wal", "-journal")  # the files in which SQLite keeps a database


class Answers:
    """The answers of one database, each under its question.

    Args:
        home: The home; they are kept in a folder of it.
        database: MLflow's SQLite file. It is never opened here: closing it would end the locks that SQLite holds on it
            elsewhere in this process.
    """

    def __init__(self, home: Path, database: Path) -> None:
        self._folder, self._database = home / FOLDER, database

    def recall(self, question: list[str], ask: Callable[[], Any]) -> Any:
        """Return the answer to a question: the one that was kept if the database is as it was then, else a new one.

        Args:
            question: Texts that say what is asked.
            ask: Asks MLflow; returns JSON-able content.

        Returns:
            The content.
        """
        place = self._folder / f"{hashlib.sha256(json.dumps(question).encode()).hexdigest()[:32]}.json"
        before = self._state()
        with suppress(OSError, ValueError, TypeError, KeyError):
            kept = json.loads(place.read_bytes())
            if before is not None and (kept["question"], kept["state"]) == (question, before):
                return kept["answer"]
        answer = ask()
        # The state of before the question: what is written from then on makes it another one
        state = before if before is not None and _settled(before) else None
        if state is not None:
            with suppress(OSError):  # a home that cannot be written to is read as fast as MLflow is
                content = {"question": question, "state": state, "answer": answer}
                write_atomically(place, json.dumps(content).encode())
        return answer

    def _state(self) -> list[Any] | None:
        """Return what changes with every write; None when there is no database."""
        state: list[Any] = [str(self._database)]  # a home that was moved has its artifacts at other addresses
        for suffix in _BESIDE:
            try:
                found = Path(f"{self._database}{suffix}").stat()
            except OSError:
                if not suffix:
                    return None
                state.append(None)
            else:
                # SQLite sets the owner of the others whenever it opens them, which is no write
                changed = 0 if suffix else found.st_ctime_ns
                state.append([found.st_ino, found.st_size, found.st_mtime_ns, changed])
        return state


def _settled(state: list[Any]) -> bool:
    newest = max(each for file in state[1:] if file for each in file[2:])
    return bool(newest < (time.time() - _SETTLED_S) * 1e9)
