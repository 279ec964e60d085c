"""How the program ends when it is told to: by SIGTERM, SIGHUP or SIGINT, within a few seconds, whatever it does.

The signal is raised as an exception in the main thread, so that files, locks and leases are let go in order. Where the
main thread waits for other threads, as a flow does for its tasks, this would take until a model is fitted. So a thread
of its own hears of the signal too, ends the processes that fit models, and ends this one when the time is up. What is
stored is whole at every moment, kernel and database free the locks of a process that has ended, and all that it has
started ends with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

GRACE_S = 5.0  # from the first signal to the end, of a command that says nothing else
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Ended(BaseException):
    """Raised in the main thread when the process was told to end by SIGTERM or SIGHUP."""


class Ending:
    """Hears the signals that end this process, once :meth:`watch` was called.

    Libraries replace the handlers of signals while they run, Prefect for one. The file descriptor that Python writes
    the numbers of signals to stays, so the thread behind it hears them all.

    Attributes:
        grace_s: Seconds from the first signal to the end; a command that needs longer sets it.
    """

    def __init__(self) -> None:
        self.grace_s = GRACE_S
        self._number: int | None = None
        self._raised = False
        self._told = threading.Event()

    @property
    def name(self) -> str:
        """Name of the signal that ends this process, "" when there was none."""
        return "" if self._number is None else signal.Signals(self._number).name

    @property
    def exit_code(self) -> int | None:
        """128 and the number of the signal, as a shell has it; None when there was none."""
        return None if self._number is None else 128 + self._number

    def was_told(self, seconds: float) -> bool:
        """Return whether a signal was heard, also by the thread alone, which may be some moments behind.

        Args:
            seconds: How long it is waited for.
        """
        return self._told.wait(seconds) or self._number is not None

    def watch(self) -> None:
        """Hear signals from now on; called in the main thread, once for a process."""
        heard, told = os.pipe()
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._raise)
        threading.Thread(target=self._listen, args=(heard,), daemon=True, name="signals").start()

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        self._number = self._number or number
        if self._raised:  # what lets go of things is not disturbed; the thread decides when it has taken too long
            return
        self._raised = True
        raise KeyboardInterrupt if number == signal.SIGINT else Ended

    def _listen(self, heard: int) -> None:
        told = False
        while content := os.read(heard, 64):
            for number in content:
                if number not in SIGNALS or signal.getsignal(number) == signal.SIG_IGN:
                    continue
                if told and number == signal.SIGINT:
                    self._end()
                if not told:
                    told, self._number = True, number
                    self._told.set()
                    self._begin()

    def _begin(self) -> None:
        timer = threading.Timer(self.grace_s, self._end)
        timer.daemon = True
        timer.start()
        supervise = sys.modules.get("esci_tournament.tasks.candidates.supervise")
        if supervise is not None:
            supervise.end_workers()

    def _end(self) -> None:
        os.write(2, f"error: ended by {self.name}; the same command continues where it stopped\n".encode())
        os._exit(128 + (self._number or signal.SIGTERM))


ending = Ending()
