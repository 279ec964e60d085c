"""A process that was started by another ends with it: an orphan would compute for nobody."""

from __future__ import annotations

import os
import threading
import time

EXIT_CODE = 3


def end_with_parent(parent: int) -> None:
    """End this process within a second of the end of `parent`, kill -9 included.

    Args:
        parent: process id that this process was told by the one that started it. It is told, not read here, because a
            parent that is gone already would not be noticed.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(EXIT_CODE)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
