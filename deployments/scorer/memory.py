"""Gives memory that a large page has used back to the operating system."""

from __future__ import annotations

import ctypes
import threading
import time

LARGE_BYTES = 2**20  # a page of this size leaves memory behind that is worth giving back
_PAUSE_S = 1.0


def trim() -> bool:
    """Return the free pages of the C heap to the operating system, where the C library can (glibc).

    Blocks of many sizes lie between those that are in use, and glibc keeps the free ones for itself. It takes
    milliseconds, without Python's lock.

    Returns:
        Whether something was returned.
    """
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(give_back(0)) if give_back is not None else False


class Trimmer:
    """Calls :func:`trim` in a thread of its own a second after large pages, once for all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = False

    def after(self, size: int) -> None:
        """Give memory back soon.

        Args:
            size: of the page that was answered, bytes; smaller ones than :data:`LARGE_BYTES` are ignored.
        """
        with self._lock:
            if size < LARGE_BYTES or self._waiting:
                return
            self._waiting = True
        threading.Thread(target=self._trim, daemon=True, name="memory").start()

    def _trim(self) -> None:
        time.sleep(_PAUSE_S)
        with self._lock:
            self._waiting = False
        trim()
