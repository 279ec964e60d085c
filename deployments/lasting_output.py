"""Standard output and standard error that a program outlives: a full disk under its log does not end it.

The log of a service is its standard output. On a full disk, or when the terminal is gone, `print` and whatever else
writes to it raise OSError in the middle of something that matters. Prefect's runner, which passes on what its flow runs
say, would report a run as crashed that has completed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast


class LastingStream:
    """A text stream whose errors are dropped; once it takes text again, it says first that some is missing.

    Everything but writing is the stream's own.

    Args:
        stream: What is written to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._trouble = ""

    def write(self, text: str) -> int:
        """Write text, or drop it when that fails; return how many characters it has."""
        try:
            if self._trouble:
                self._stream.flush()  # what the stream itself still held
                self._stream.write(f"(some output is missing: {self._trouble})\n")
                self._trouble = ""
            self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self._trouble = str(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what is buffered, if that can be done now."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._trouble = str(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def outlast_output() -> None:
    """Replace `sys.stdout` and `sys.stderr` with streams that never raise when they are written to."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, LastingStream):
            setattr(sys, name, cast(TextIO, LastingStream(stream)))
