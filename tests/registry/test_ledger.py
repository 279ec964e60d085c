import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from esci_tournament.registry import tables
from esci_tournament.registry.errors import BusyError, NotFoundError, StoreError, UsageError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.policies import record_policy
from esci_tournament.registry.policy import Policy
from esci_tournament.registry.proof import enrol
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.records import Judged, Promotion
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.validity import replay
from tests.registry.conftest import approved


def filled(ledger, tournament="t1"):
    ledger.record_data_version("data-1", {"pairs": 10})
    ledger.record_candidate("minilm/1", "digest-1", "language_model", {"spec": {"layers": 2}})
    ledger.start_tournament(tournament, "data-1", {"minilm/1": "newcomer"}, {"seed": 0})
    return tournament


def approval(ledger, tournament):
    return approved(ledger, "esci", tournament, 1)


def governed(ledger):
    """Tell the tables of the policy something."""
    record_policy(ledger, Policy.of(Settings()), "a test", 0)
    enrol(ledger, "ann")
    with ledger.writing() as rows:
        rows.append(tables.used_codes, {"person": "ann", "step": 1})


def queued(ledger, candidate="minilm/1"):
    queue = Queue(ledger)
    queue.arrive(candidate, "digest-1", "queued")
    dispatch = queue.dispatch("cpu", 1) or queue.dispatches()[0]
    queue.start(dispatch.last, "flow-run")
    queue.end(dispatch.last, "completed")


def counts(ledger):
    return {name: len(rows) for name, rows in ledger.export().items()}


def test_recording_the_same_things_again_adds_no_row(ledger):
    def tell():
        tournament = filled(ledger)
        queued(ledger)
        ledger.record_scores("minilm/1", "data-1", "recipe", "content")
        ledger.record_ranking(tournament, {"minilm/1": 1.0})
        ledger.record_selection(tournament, "shap", {"kept": ["minilm/1"]})
        ledger.record_look("split", tournament)
        decision = approval(ledger, tournament)
        ledger.record_approval(decision.verdict, "ann", "Ann", "it is better")
        ledger.record_review(decision.verdict, 1, {"flow_run": None})
        promotion = ledger.record_promotion("esci", "promote", 1, 0, "better", decision.id)
        for step in ("champion_moved", "previous_moved", "done"):
            ledger.record_step(promotion.id, step)
        ledger.finish_tournament(tournament)

    tell()
    governed(ledger)
    once = ledger.export()
    tell()
    assert ledger.export() == once
    assert min(counts(ledger).values()) == 1, "every table was told something"


@pytest.mark.parametrize("table", [table.name for table in tables.metadata.sorted_tables])
def test_no_row_can_be_changed_or_removed(ledger, table):
    decision = approval(ledger, filled(ledger))
    queued(ledger)
    ledger.record_review(decision.verdict, 1)
    ledger.record_approval(decision.verdict, "ann", "Ann", "it is better")
    promotion = ledger.record_promotion("esci", "promote", 1, 0, "better", decision.id)
    ledger.record_step(promotion.id, "done")
    ledger.record_event("stage_finished", "train", "t1")
    ledger.record_scores("minilm/1", "data-1", "recipe", "content")
    ledger.record_ranking("t1", {})
    ledger.record_selection("t1", "shap", {})
    ledger.record_look("split", "t1")
    governed(ledger)
    before = ledger.export()
    statements = [f"UPDATE {table} SET who = 'me'", f"DELETE FROM {table}"]
    if "postgresql" in ledger._database.place:
        statements.append(f"TRUNCATE {table} CASCADE")
    for statement in statements:
        with pytest.raises(StoreError, match="append-only"), ledger._database.writing() as connection:
            connection.execute(text(statement))
    assert ledger.export() == before


def test_sqlite_replaces_no_row_by_its_natural_key(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        filled(ledger)
        replace = text(
            "INSERT OR REPLACE INTO data_versions (digest, at, who, payload) VALUES ('data-1', 'x', 'x', '{}')"
        )
        with pytest.raises(StoreError, match="append-only"), ledger._database.writing() as connection:
            connection.execute(replace)


def test_rows_say_who_and_when_in_utc(ledger_url):
    with Ledger.open(ledger_url, who="ann@host") as ledger:
        version = ledger.record_data_version("data-1")
    assert version.who == "ann@host"
    assert version.at.utcoffset().total_seconds() == 0
    assert Ledger.open(ledger_url).who.count("@") == 1


def test_a_payload_comes_back_and_knows_no_nan(ledger):
    payload = {"labels": ["E", "名"], "gain": float("nan"), "deep": {"n": 1}}
    assert ledger.record_data_version("d", payload) == ledger.record_data_version("d")
    assert ledger.record_data_version("d").payload == {"labels": ["E", "名"], "gain": None, "deep": {"n": 1}}


def test_what_is_unknown_cannot_be_referred_to(ledger):
    with pytest.raises(StoreError, match=r"(?i)foreign key"):
        ledger.start_tournament("t1", "no such data")
    assert ledger.tournaments() == []


def test_a_contradiction_is_refused(ledger):
    filled(ledger)
    with pytest.raises(StoreError, match=r"digest 'digest-1' for candidate minilm/1, not 'other'"):
        ledger.record_candidate("minilm/1", "other", "language_model")


def test_a_tournament_fails_continues_and_finishes(ledger):
    states = []
    tournament = filled(ledger)
    states.append(ledger.tournament_state(tournament))
    ledger.fail_tournament(tournament, "disk full")
    states.append(ledger.tournament_state(tournament))
    filled(ledger)
    states.append(ledger.tournament_state(tournament))
    ledger.finish_tournament(tournament)
    states.append(ledger.tournament_state(tournament))
    assert states == ["running", "failed", "running", "finished"]
    assert [event.kind for event in ledger.events(tournament)] == ["failed", "continued", "finished"]
    assert ledger.events(tournament, "failed")[0].payload == {"reason": "disk full"}


def test_a_tournament_nobody_started_is_not_found(ledger):
    with pytest.raises(NotFoundError, match="t9"):
        ledger.tournament_state("t9")


def test_looks_are_numbered_within_their_split(ledger):
    for name in ("t1", "t2"):
        filled(ledger, name)
    told = [("a", "t1", 0), ("a", "t2", 0), ("b", "t1", 0), ("a", "t1", 1), ("a", "t2", 0)]
    assert [ledger.record_look(*look).number for look in told] == [1, 2, 1, 3, 2]
    assert [(look.number, look.tournament) for look in ledger.looks("a")] == [(1, "t1"), (2, "t2"), (3, "t1")]


def test_a_verdict_is_decided_once(ledger):
    verdict = ledger.record_verdict(filled(ledger), "promote")
    first = ledger.record_decision(verdict.id, "refuse", "ann", "too dear")
    assert ledger.record_decision(verdict.id, "refuse", "bob", "twice") == first
    with pytest.raises(BusyError, match="decided already: refuse by ann"):
        ledger.record_decision(verdict.id, "approve", "bob", "I like it")


@pytest.mark.parametrize(("outcome", "reason"), [("maybe", "a reason"), ("approve", " ")])
def test_a_decision_needs_a_known_outcome_and_a_reason(ledger, outcome, reason):
    verdict = ledger.record_verdict(filled(ledger), "promote")
    with pytest.raises(UsageError, match="decision"):
        ledger.record_decision(verdict.id, outcome, "ann", reason)


def test_the_second_of_two_promotions_from_one_standing_loses(ledger):
    ledger.record_promotion("esci", "promote", 1, 0, "first", approval(ledger, filled(ledger)).id)
    with pytest.raises(BusyError, match="it is version 1 now"):
        ledger.record_promotion("esci", "promote", 2, 0, "second")
    assert ledger.champion("esci").version == 1
    assert ledger.standing("other").sequence == 0


def test_one_decision_promotes_once(ledger):
    decision = approval(ledger, filled(ledger))
    first = ledger.record_promotion("esci", "promote", 1, 0, "better", decision.id)
    assert ledger.record_promotion("esci", "promote", 1, 0, "better", decision.id) == first


def test_history_tells_who_what_when_and_why(ledger):
    decision = approval(ledger, filled(ledger))
    promotion = ledger.record_promotion("esci", "promote", 1, 0, "better", decision.id)
    assert ledger.pending("esci") == [promotion]
    ledger.record_step(promotion.id, "done")
    assert ledger.pending("esci") == []
    (chapter,) = ledger.history("esci")
    assert (chapter.promotion, chapter.decision) == (promotion, decision)
    assert chapter.verdict.payload == {"gain": 0.01}
    assert chapter.done_at >= promotion.at


def test_export_is_json(ledger):
    filled(ledger)
    exported = json.loads(json.dumps(ledger.export()))
    assert exported["candidates"][0]["payload"] == {"spec": {"layers": 2}}


@given(st.lists(st.booleans(), max_size=30))
def test_replay_is_a_stack_of_reigns(promotes):
    """The champion after any history of promotions and rollbacks is the top of a stack."""
    reign, history = [], []
    for number, is_promotion in enumerate(promotes, 1):
        if not is_promotion and len(reign) < 2:
            continue
        if is_promotion:
            reign.append(number)
        else:
            reign.pop()
        kind = "promote" if is_promotion else "rollback"
        history.append(
            Promotion(
                id=number,
                at=None,
                who="",
                payload={},
                ensemble="e",
                sequence=len(history) + 1,
                kind=kind,
                version=reign[-1],
                decision=None,
                reason="",
            )
        )
    standing = replay("e", [Judged(one, "") for one in history])
    assert standing.sequence == len(history)
    assert (standing.champion.version if standing.champion else None) == (reign[-1] if reign else None)
    assert (standing.previous.version if standing.previous else None) == (reign[-2] if len(reign) > 1 else None)


def test_a_newer_schema_is_refused_in_words(ledger_url, monkeypatch):
    known = tables.SCHEMA_VERSION
    with monkeypatch.context() as later:
        later.setattr(tables, "SCHEMA_VERSION", tables.SCHEMA_VERSION + 1)
        Ledger.open(ledger_url).close()
    said = rf"has schema {known + 1}, this version of esci-tournament knows {known}; upgrade"
    with pytest.raises(StoreError, match=said):
        Ledger.open(ledger_url)


def test_an_older_schema_gets_what_is_new_and_keeps_its_rows(ledger_url, monkeypatch):
    with Ledger.open(ledger_url) as ledger:
        filled(ledger)
    monkeypatch.setattr(tables, "SCHEMA_VERSION", tables.SCHEMA_VERSION + 1)
    with Ledger.open(ledger_url) as ledger:
        known = tables.SCHEMA_VERSION
        assert [row["version"] for row in ledger.export()["schema_versions"]] == [known - 1, known]
        assert len(ledger.tournaments()) == 1


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "ledger.db").write_text("not a database, but long enough to look like one" * 10)
    with pytest.raises(StoreError, match=r"ledger\.db: file is not a database"):
        Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_an_address_that_holds_no_ledger_is_refused(url):
    with pytest.raises(UsageError, match="ledger_url"):
        Ledger.open(url)


def test_a_server_that_does_not_answer_is_told_in_words():
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match=r"(?s)ledger postgresql\+psycopg://ann:\*\*\*@127.0.0.1:9"):
        Ledger.open("postgresql+psycopg://ann:secret@127.0.0.1:9/ledger")


def test_processes_that_open_and_write_at_once_lose_and_double_nothing(ledger_url, run_script):
    script = """
        import os, sys
        from esci_tournament.registry.ledger import Ledger
        children = []
        for number in range(6):
            if (child := os.fork()) == 0:
                try:
                    with Ledger.open(sys.argv[1]) as ledger:
                        ledger.record_data_version("data-1")
                        for each in range(5):
                            ledger.start_tournament(f"{number}-{each}", "data-1")
                            ledger.record_look("split", f"{number}-{each}")
                except BaseException as error:
                    print(repr(error), file=sys.stderr)
                    os._exit(1)
                os._exit(0)
            children.append(child)
        sys.exit(any(os.waitpid(child, 0)[1] for child in children))
    """
    run_script(script, ledger_url)
    with Ledger.open(ledger_url) as ledger:
        assert [look.number for look in ledger.looks("split")] == list(range(1, 31))
        assert counts(ledger)["data_versions"] == 1
        assert counts(ledger)["schema_versions"] == 1


def test_a_writer_killed_in_a_transaction_leaves_no_row_and_no_lock(ledger_url, run_script):
    Ledger.open(ledger_url).close()
    script = """
        import os, signal, sys
        from esci_tournament.registry.ledger import Ledger
        from esci_tournament.registry.rows import Rows
        ledger = Ledger.open(sys.argv[1])
        with ledger.exclusive("promotion"):
            insert = Rows.insert
            def killed(*arguments):
                insert(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            Rows.insert = killed
            ledger.record_data_version("half")
    """
    assert run_script(script, ledger_url).returncode == -9
    with Ledger.open(ledger_url) as ledger, ledger.exclusive("promotion", seconds=5):
        ledger.record_data_version("whole")
        assert [row["digest"] for row in ledger.export()["data_versions"]] == ["whole"]


def test_an_exclusive_lock_has_one_holder(ledger_url):
    with Ledger.open(ledger_url) as one, Ledger.open(ledger_url) as two, one.exclusive("promotion"):
        with two.exclusive("something else", seconds=0):
            pass
        with pytest.raises(BusyError, match="promotion: another process"), two.exclusive("promotion", seconds=0.1):
            pytest.fail("two holders")
