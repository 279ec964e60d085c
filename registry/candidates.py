"""What an engineer does with a candidate: find it by name, withdraw it, cancel its training, have it tried again."""

from __future__ import annotations

from contextlib import suppress

from esci_tournament.registry.errors import NotFoundError, UsageError
from esci_tournament.registry.spelling import nearest
from esci_tournament.registry.states import CandidateState, states, tags_of
from esci_tournament.registry.versions import FLOW_RUN_TAG
from esci_tournament.registry.withdrawals import Withdrawal, reinstate, stop_tournament, withdraw, withdrawals
from esci_tournament.registry.workspace import Workspace

AGAIN = ("withdrawn", "failed")  # states from which a candidate is put back into the running


def find_candidate(workspace: Workspace, name: str) -> str:
    """Return the id of a candidate.

    Args:
        workspace: The home.
        name: `name/version`, or a name alone for its newest version.

    Returns:
        The id, `name/version`.

    Raises:
        NotFoundError: If there is none of this name; the message has the names that are most alike.
    """
    known = {one.id: one.version for one in workspace.roll.candidates(with_metrics=False)}
    if name in known:
        return name
    if versions := [one for one in known.values() if one.name == name]:
        return max(versions, key=lambda one: one.version).id
    alike = nearest(name, [*known, *dict.fromkeys(one.name for one in known.values())])
    own = [id for id, one in known.items() if one.name == name.rpartition("/")[0]]
    hint = ", ".join(own[-5:] or alike)
    advice = f"did you mean {hint}?" if hint else "tournament candidates lists all of them"
    raise NotFoundError(f"there is no candidate {name!r}; {advice}")


def withdraw_candidate(workspace: Workspace, candidate: str, reason: str) -> tuple[Withdrawal, bool]:
    """Withdraw a candidate: it does not compete until it is registered again or put back by `retry`.

    Args:
        workspace: The home.
        candidate: Its id.
        reason: Why; it is recorded.

    Returns:
        The withdrawal that stands, and whether it is new.

    Raises:
        UsageError: If the reason is blank, or the candidate is a member, in review, or in a tournament that runs.
    """
    _needs(reason)
    state = _state(workspace, candidate)
    if state.state == "member":
        raise UsageError(
            f"{candidate} is a member of the champion and serves, so it cannot be withdrawn. Go back to a champion "
            "without it (tournament champion rollback --reason, or champion set VERSION --reason), or hold a "
            f'tournament that leaves it out (setting must_drop = ["{candidate}"])'
        )
    if state.state in ("training", "judged"):
        raise UsageError(
            f"{candidate} is in tournament {state.tournament}, which runs; stop its training with: tournament "
            f"candidates cancel {candidate} --reason"
        )
    if state.state == "in review":
        raise UsageError(
            f"{candidate} is in an ensemble that waits for a review; refuse that: tournament review refuse "
            f"{state.tournament} --reason"
        )
    return _withdraw(workspace, candidate, reason)


def cancel_candidate(workspace: Workspace, candidate: str, reason: str) -> tuple[Withdrawal, bool]:
    """Stop the training of a candidate; its tournament goes on without it, and it is withdrawn.

    Args:
        workspace: The home.
        candidate: Its id.
        reason: Why; it is recorded.

    Returns:
        The withdrawal that stands, and whether it is new.

    Raises:
        UsageError: If the reason is blank, or it is not in training.
    """
    _needs(reason)
    state = _state(workspace, candidate)
    if state.state == "withdrawn":
        return withdrawals(workspace.ledger, [candidate])[candidate], False
    if state.state == "judged":
        raise UsageError(
            f"{candidate} has been trained, and its tournament is being judged; cancel that: tournament candidates "
            f"cancel {state.tournament} --reason"
        )
    if state.state != "training":
        advice = "" if state.state in ("member", "in review") else f": tournament candidates withdraw {candidate}"
        raise UsageError(f"{candidate} is {state.state}, and no process trains it; there is nothing to cancel{advice}")
    if workspace.ledger.selected(state.tournament):
        raise UsageError(
            f"{candidate} has been trained, and the members of {state.tournament} are chosen; cancel the tournament: "
            f"tournament candidates cancel {state.tournament} --reason"
        )
    return _withdraw(workspace, candidate, reason, state.tournament)


def cancel_tournament(workspace: Workspace, tournament: str, reason: str) -> None:
    """End a tournament that runs; what it has finished is stored, and the same command would continue it.

    Args:
        workspace: The home.
        tournament: Its id.
        reason: Why; it is recorded.

    Raises:
        UsageError: If the reason is blank, or no process works on it.
        NotFoundError: If there is no such tournament.
    """
    _needs(reason)
    state = workspace.ledger.tournament_state(tournament)
    if not workspace.ledger.is_worked_on(tournament):
        said = "interrupted" if state == "running" else state
        raise UsageError(f"tournament {tournament} is {said}, and no process works on it; there is nothing to cancel")
    stop_tournament(workspace.ledger, tournament, reason)


def put_back(workspace: Workspace, candidate: str) -> bool:
    """Put a candidate that was withdrawn or has failed back into the running: the next tournament tries it.

    Args:
        workspace: The home.
        candidate: Its id.

    Returns:
        Whether it was put back; False for one that was neither withdrawn nor has failed.
    """
    state = _state(workspace, candidate)
    if state.state not in AGAIN:
        return False
    done = reinstate(workspace.ledger, candidate, failed=state.state == "failed")
    _show(workspace, candidate)
    return done


def _needs(reason: str) -> None:
    if not reason.strip():
        raise UsageError("it needs a reason, which is kept in the candidate's history")


def _state(workspace: Workspace, candidate: str) -> CandidateState:
    return states(workspace.ledger, workspace.settings.ensemble_name).get(candidate, CandidateState())


def _withdraw(workspace: Workspace, candidate: str, reason: str, tournament: str = "") -> tuple[Withdrawal, bool]:
    made = withdraw(workspace.ledger, candidate, reason, tournament)
    _show(workspace, candidate)
    return made


def _show(workspace: Workspace, candidate: str) -> None:
    """Set the tags in the model registry at once, where no watcher does."""
    with suppress(NotFoundError):  # its version was deleted
        there = workspace.models.tags(candidate)
        wanted = tags_of(_state(workspace, candidate), there.get(FLOW_RUN_TAG, ""))
        workspace.models.set_tags(candidate, {key: value for key, value in wanted.items() if there.get(key) != value})
