"""Somebody who reads all that a tournament publishes learns no test number of a challenger that was refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.flows import compared, conclusion, renewal
from esci_tournament.flows.context import recall
from esci_tournament.registry.chronicle import chronicle
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.plans import read_roles
from esci_tournament.tasks.data.store import open_dataset
from esci_tournament.tasks.report.comparison import compare
from esci_tournament.tasks.report.examples import TITLE_LENGTH, shortened
from esci_tournament.tasks.report.renewal import as_markdown
from esci_tournament.tasks.report.story import story
from tests.flows.conftest import Held, say
from tests.tasks.report.test_sealing import PUBLISHING, secrets, told_of

pytestmark = pytest.mark.slow  # it holds three tournaments, with scores from files

KEPT = ("ledger.db", "stages", "scores")  # whole verdicts and scores: what the product itself goes on from


@pytest.fixture
def refused(champion: Any) -> Held:
    """A tournament whose challenger is worse than the champion."""
    say(champion, champion.challenge("t-best", ["weak", "best"]))
    held: Held = champion.hold("t-good", ["weak", "good"])
    assert champion.workspace.ledger.verdicts("t-good")[0].outcome == "refuse"
    return held


def in_home(home: Path) -> str:
    """Return the content of every file in a home but of those that keep the whole; of databases, all their rows."""
    texts = []
    for path in home.rglob("*"):
        if not path.is_file() or path.relative_to(home).parts[0].startswith(KEPT):
            continue
        if path.suffix == ".db":
            with sqlite3.connect(path) as database:
                texts += database.iterdump()
        else:
            texts.append(path.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(texts)


def assert_no_test_pair_is_an_example(held: Held) -> None:
    """Check that every example has the query, the title and the label of a pair that the aggregator learns from."""
    data, roles = open_dataset(held.context.source.folder), read_roles(held.context.roles.folder)["role"]
    titles = data.products["title"].iloc[data.pairs["product"]].map(lambda title: shortened(title, TITLE_LENGTH))
    known = data.pairs.assign(title=titles.to_numpy(), letter=[LABELS[label] for label in data.pairs["label"]])
    learnt, tested = (
        set(known.loc[roles == role, ["query", "title", "locale", "letter"]].itertuples(index=False, name=None))
        for role in ("blend", "test")
    )
    found = held.summary.examples
    shown = [one for part in (found["changed"], *found["errors"].values()) for one in part["shown"]]
    told = {(one["query"], one["title"], one["locale"], one["label"]) for one in shown}
    assert {"good/1", "weak/1"} == set(found["errors"])
    assert found["changed"]["against"] == held.context.champion.version
    assert told <= learnt
    assert not told & tested
    assert len(told) > 10


def test_nothing_that_is_published_has_a_test_number_of_a_refused_challenger(
    champion: Any, refused: Held, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    work, context = champion.workspace, refused.context
    messages: list[str] = []
    monkeypatch.setattr(conclusion, "announce", lambda *said: messages.append(str(said)))
    outcome = conclusion.finish.fn(work, context, refused.summary, None, None, None)
    before = renewal.champion_before.fn(work, context)
    weekly = renewal.record.fn(work, context, outcome, before, {}, False)
    compared.log_candidates.fn(work, context, refused.summary)
    again = recall(work, "t-good")
    published = {name: publish(again.summary) for name, publish in PUBLISHING.items()}
    published |= {
        "home": in_home(work.settings.home),
        "messages": "".join(messages),
        "logs": caplog.text,
        "history": str(chronicle(work)),
        "stories": str([story(work, one.candidate) for one in work.ledger.candidates()]),
        "compared": str(compare(work, 1, 2)),
        "weekly": f"{weekly.facts} {as_markdown(weekly.facts)}",
        "events": str([event.payload for event in work.ledger.events("t-good")]),
    }
    assert messages
    [whole], [told] = ([one.payload for one in work.ledger.verdicts(name)] for name in ("t-good", "t-best"))
    assert len(secrets(whole) - secrets(told)) > 100
    found = {name: told_of(whole, text) - secrets(told) for name, text in published.items()}
    assert found == {name: set() for name in published}
    out_of_fold = f"{refused.summary.out_of_fold.macro_f1:.3f}"
    assert all(out_of_fold in published[name] for name in (*PUBLISHING, "home", "weekly") if name != "message")
    assert told_of(told, published["home"]), "the numbers of what may serve are told"
    assert all(model.temperature and model.calibration_error is None for model in refused.summary.models)
    assert before["tournament"] == "t-best"
    assert_no_test_pair_is_an_example(refused)
    assert (weekly.facts["sealed"], weekly.facts["champion_before"], weekly.facts["champion_after"]) == (True, {}, {})
    assert weekly.facts["challenger"] == refused.summary.out_of_fold.by_name()
