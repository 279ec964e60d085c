"""Scores of members, and the checks that only distributions from out-of-sample models reach the aggregator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esci_tournament.registry.errors import CandidateError, LeakError, UsageError
from esci_tournament.registry.labels import CLASSES

_SUM_TOLERANCE = 1e-3  # float16 inference sums to one within this


@dataclass(frozen=True)
class MemberScores:
    """Class probabilities of one member.

    Attributes:
        member: name of the member.
        example_id: int64 (n,), unique, any order.
        probabilities: float32 (n, 4), order E, S, C, I.
        out_of_sample: bool (n,), True where the model that scored the pair was not trained on the pair's query.

    Raises:
        UsageError: if shapes do not fit.
    """

    member: str
    example_id: np.ndarray
    probabilities: np.ndarray
    out_of_sample: np.ndarray

    def __post_init__(self) -> None:
        rows = len(self.example_id)
        if self.probabilities.shape != (rows, CLASSES) or self.out_of_sample.shape != (rows,):
            raise UsageError(
                f"scores of {self.member}: {rows} ids, probabilities {self.probabilities.shape}, provenance "
                f"{self.out_of_sample.shape}; pass (n,), (n, {CLASSES}) and (n,)"
            )


def check_distributions(member: str, probabilities: np.ndarray, example_id: np.ndarray) -> None:
    """Check that every row is finite, not negative and sums to one within 0.001.

    Args:
        member: name of the member, for the message.
        probabilities: float (n, 4).
        example_id: int (n,), id of each row.

    Raises:
        CandidateError: naming the first offending pair and how many there are; a member like that loses.
    """
    finite = np.isfinite(probabilities).all(axis=1)
    bad = ~finite | (probabilities < 0).any(axis=1)
    with np.errstate(invalid="ignore"):
        bad |= np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1) > _SUM_TOLERANCE
    if bad.any():
        first = int(np.argmax(bad))
        values = ", ".join(f"{value:.4g}" for value in probabilities[first])
        raise CandidateError(
            f"scores of {member} are no probabilities at {int(bad.sum())} of {len(bad)} pairs "
            f"({int((~finite).sum())} not finite); first: example_id {int(example_id[first])} -> ({values}); "
            "the candidate loses: look for an overflow or a missing softmax, then register it again"
        )


def stack(members: Sequence[MemberScores], example_id: np.ndarray) -> np.ndarray:
    """Return the members' scores of some pairs.

    Args:
        members: k members.
        example_id: int64 (n,), the pairs wanted.

    Returns:
        float32 (n, k, 4), in the order of both arguments.

    Raises:
        LeakError: if a wanted pair is missing or was scored by a model that learnt from its query.
        CandidateError: if a wanted row is not finite or not a distribution.
        UsageError: if there is no member, or one repeats an id.

    Example:
        >>> scores = MemberScores("a", np.array([7, 5]), np.eye(4, dtype=np.float32)[:2], np.ones(2, bool))
        >>> stack([scores], np.array([5])).tolist()
        [[[0.0, 1.0, 0.0, 0.0]]]
    """
    if not members:
        raise UsageError("no member to stack: name at least one")
    wanted = np.asarray(example_id, dtype=np.int64)
    columns = np.empty((len(wanted), len(members), CLASSES), dtype=np.float32)
    for position, scores in enumerate(members):
        columns[:, position] = _rows_of(scores, wanted)
    return columns


def _rows_of(scores: MemberScores, wanted: np.ndarray) -> np.ndarray:
    order = np.argsort(scores.example_id, kind="stable")
    ids = scores.example_id[order]
    if (ids[1:] == ids[:-1]).any():
        raise UsageError(f"scores of {scores.member} hold an example_id twice; score each pair once")
    place = np.searchsorted(ids, wanted)
    found = (
        (place < len(ids)) & (ids[np.minimum(place, len(ids) - 1)] == wanted)
        if len(ids)
        else np.zeros(len(wanted), bool)
    )
    if not found.all():
        raise LeakError(
            f"scores of {scores.member} lack {int((~found).sum())} of {len(wanted)} pairs (first: example_id "
            f"{int(wanted[~found][0])}); score them with a model that did not learn from their queries"
        )
    rows = order[place]
    leaked = ~scores.out_of_sample[rows]
    if leaked.any():
        raise LeakError(
            f"scores of {scores.member} are in-sample for {int(leaked.sum())} of {len(wanted)} pairs (first: "
            f"example_id {int(wanted[leaked][0])}); the aggregator learns only from pairs whose query no model saw"
        )
    chosen = scores.probabilities[rows]
    check_distributions(scores.member, chosen, wanted)
    return chosen
