"""The errors of the product, one class for each kind of failure, with the exit code of its command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from esci_tournament.registry.addresses import without_password


class TournamentError(Exception):
    """Base of our own errors: the message says what failed, the value seen, and what to do next.

    Passwords of addresses in the message are masked, because errors are printed, logged, tagged and sent.

    Args:
        *content: The message.

    Attributes:
        exit_code: What the command line exits with when this error ends it.
        complaints: Each thing that is wrong with values that somebody wrote, see
            :class:`esci_tournament.registry.complaints.Complaint`; () for other errors.
    """

    exit_code = 1
    complaints: Sequence[object] = ()

    def __init__(self, *content: object) -> None:
        super().__init__(*(without_password(one) if isinstance(one, str) else one for one in content))


class UsageError(TournamentError):
    """Raised when a command or a function is called with arguments that make no sense."""

    exit_code = 2


class DataError(TournamentError):
    """Raised when input data cannot be used.

    Args:
        problem: What is wrong, in one sentence.
        file: The offending file, if one can be named.
        column: The offending column, if one can be named.
        rows: The first offending rows (a row number or an id each); the message shows at most five.
        count: How many rows offend in all.
        advice: What to do next.

    Example:
        >>> print(DataError("prices are negative", column="price", rows=[3, 9], count=2, advice="remove them"))
        prices are negative; column: price; first rows: 3, 9 (2 in all); remove them
    """

    exit_code = 3

    def __init__(
        self,
        problem: str,
        *,
        file: Path | str | None = None,
        column: str | None = None,
        rows: Sequence[object] = (),
        count: int | None = None,
        advice: str = "",
    ) -> None:
        self.problem, self.file, self.column, self.rows, self.count = problem, file, column, list(rows), count
        self.advice = advice
        parts = [problem]
        if file is not None:
            parts.append(f"file: {file}")
        if column is not None:
            parts.append(f"column: {column}")
        if self.rows:
            shown = ", ".join(map(str, self.rows[:5]))
            parts.append(f"first rows: {shown}" + (f" ({count} in all)" if count is not None else ""))
        elif count is not None:
            parts.append(f"rows: {count}")
        if advice:
            parts.append(advice)
        super().__init__("; ".join(parts))


class SpecError(TournamentError):
    """Raised when a candidate's spec has an unknown key, a wrong value or a checkpoint that is not one."""

    exit_code = 4


class LeakError(TournamentError):
    """Raised when data that a model learnt from would be used as held-out data."""

    exit_code = 5


class CandidateError(TournamentError):
    """Raised when a candidate cannot be trained or scored; it is marked as failed, and the tournament goes on."""

    exit_code = 6


class BudgetError(TournamentError):
    """Raised when no ensemble, not even a single member, fits the budget."""

    exit_code = 7


class StoreError(TournamentError):
    """Raised when the ledger, the score store or MLflow cannot be read or written (a full disk, a foreign schema)."""

    exit_code = 8


class BusyError(TournamentError):
    """Raised when another process holds something exclusive, such as a running tournament, or changed it first."""

    exit_code = 9


class NotFoundError(TournamentError):
    """Raised when something is asked for by name and does not exist: a champion, a candidate, a tournament."""

    exit_code = 10


class PolicyError(TournamentError):
    """Raised when something is asked for that the policy in the ledger does not allow, whoever asks."""

    exit_code = 12


class IntegrityError(TournamentError):
    """Raised when files differ from the record of what was approved; they are not parsed, and nothing serves them."""

    exit_code = 13


class ChainError(IntegrityError):
    """Raised when the ledger is not as it was written: its hash chain, a row or a trigger differs."""

    exit_code = 14


class StoppedError(TournamentError):
    """Raised in a tournament that somebody cancelled; the message says who and why."""

    exit_code = 15


class ServiceError(TournamentError):
    """Raised when a server of the stack does not come up or does not answer; the message names its log."""

    exit_code = 11
