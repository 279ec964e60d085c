"""Errors: one class for each thing that a caller may want to do about them. All are a :class:`ScorerError`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field of a request.

    Attributes:
        field: where, such as "products.3.title", counted from 0; "" is the request itself.
        message: a sentence for people.
    """

    field: str
    message: str


class ScorerError(Exception):
    """Raised when there is no answer to a request; the base of all errors of this package.

    Attributes:
        status: HTTP status, 0 when there was none.
        code: the scorer's code for programs, such as "too_many_requests"; "" when there was none.
        fields: what is wrong with which field.
        retry_after_s: seconds after which the scorer wants to be asked again, None when it did not say.
    """

    def __init__(
        self,
        message: str,
        status: int = 0,
        code: str = "",
        fields: Sequence[FieldProblem] = (),
        retry_after_s: float | None = None,
    ) -> None:
        # All of them are the exception's arguments, so that it survives pickling
        super().__init__(message, status, code, tuple(fields), retry_after_s)
        self.status, self.code, self.fields, self.retry_after_s = status, code, tuple(fields), retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


class RequestError(ScorerError):
    """The request is wrong, and would be refused again (413, 415, 422, 431); `fields` says where."""


class AuthError(ScorerError):
    """A good API key is needed (401), or the scorer may not be asked from here or under this name (403)."""


class BusyError(ScorerError):
    """Too much waits, or this key asks too often (429)."""


class UnavailableError(ScorerError):
    """Nothing can be answered now (503): no champion serves yet, or the scorer is out of room."""


class MembersError(ScorerError):
    """Every member of the champion failed on this page (502)."""


class DeadlineError(ScorerError):
    """No member answered before the deadline (504); a later request may find the labels in the cache."""


class NoAnswerError(ScorerError):
    """The scorer cannot be reached, or the connection broke before there was an answer."""


class AnswerTimeoutError(NoAnswerError):
    """The scorer did not answer within `timeout_s`."""


class AnswerError(ScorerError):
    """What came is no answer of a scorer: it failed (500), or something else listens at this address."""


OF_STATUS: dict[int, type[ScorerError]] = {
    **dict.fromkeys((408, 413, 415, 422, 431), RequestError),
    **dict.fromkeys((401, 403), AuthError),
    429: BusyError,
    502: MembersError,
    503: UnavailableError,
    504: DeadlineError,
}
