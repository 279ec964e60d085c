"""Progress goes to whoever listens, and to nobody when nobody does."""

from __future__ import annotations

from contextlib import suppress

from esci_tournament.flows.progress_reporting import current, report_progress, stage, to

Heard = list[tuple[str, float, str]]


def test_a_stage_tells_its_begin_and_its_end() -> None:
    heard: Heard = []
    with to(lambda *said: heard.append(said)), stage("load"):
        report_progress("load", 0.5, "half of it")
    assert heard == [("load", 0.0, ""), ("load", 0.5, "half of it"), ("load", 1.0, "done")]


def test_a_stage_that_fails_is_not_told_to_be_done() -> None:
    heard: Heard = []
    with to(lambda *said: heard.append(said)), suppress(KeyError), stage("load"):
        raise KeyError
    assert heard == [("load", 0.0, "")]


def test_the_newest_listener_hears_and_the_one_before_hears_again_whatever_happens() -> None:
    first: Heard = []
    second: Heard = []
    with to(lambda *said: first.append(said)):
        with suppress(KeyError), to(lambda *said: second.append(said)):
            report_progress("a", 0.1)
            raise KeyError
        report_progress("b", 0.2)
    assert (first, second) == ([("b", 0.2, "")], [("a", 0.1, "")])


def test_without_a_listener_nothing_is_heard_and_nothing_fails() -> None:
    assert current() is None
    with to(lambda *said: None):
        assert current() is not None
    assert current() is None
    report_progress("load", 0.5)
