import json
import os
import shutil

import pytest

from esci_tournament.registry.errors import BusyError, NotFoundError, StoreError, UsageError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.models import Models
from esci_tournament.registry.promotion import drift, promote, reconcile, restore, rollback, set_champion, undo

# What is above the ledger is the same on every database; the ledger itself is tested on both.
pytestmark = pytest.mark.databases("sqlite")

# A process that kills itself before its n-th and after its n-th step of a promotion. The modules are
# imported once and every victim is a fork with stores of its own, opened after the fork.
KILLED = """
    import os, shutil, signal, sys
    from pathlib import Path
    from esci_tournament.registry.ledger import Ledger
    from esci_tournament.registry.models import Models
    from esci_tournament.registry.promotion import promote

    def victim(home, point):
        ledger, models = Ledger.open(f"sqlite:///{home / 'ledger.db'}"), Models(f"sqlite:///{home / 'mlflow.db'}", home)
        passed = 0

        def step():
            nonlocal passed
            passed += 1
            if passed == point:
                os.kill(os.getpid(), signal.SIGKILL)

        def wrap(owner, name):
            whole = getattr(owner, name)
            def wrapped(*arguments, **named):
                step()
                result = whole(*arguments, **named)
                step()
                return result
            setattr(owner, name, wrapped)

        version, decision = models.ensemble(2), ledger.decisions()[-1]
        for owner, name in ((ledger, "record_promotion"), (models, "set_alias"), (ledger, "record_step")):
            wrap(owner, name)
        promote(ledger, models, version, decision, 1)

    template = Path(sys.argv[1])
    for point in range(1, 100):
        home = template.with_name(f"killed-{point}")
        shutil.copytree(template, home)
        if (child := os.fork()) == 0:
            try:
                victim(home, point)
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                os._exit(1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            continue
        sys.exit(os.waitstatus_to_exitcode(status))
"""

RACE = """
    import os, sys
    from pathlib import Path
    from esci_tournament.registry.errors import BusyError
    from esci_tournament.registry.ledger import Ledger
    from esci_tournament.registry.models import Models
    from esci_tournament.registry.promotion import promote
    home, ledger_url, children = Path(sys.argv[1]), sys.argv[2], []
    ready, go = os.pipe()
    for number in range(4):
        if (child := os.fork()) == 0:
            os.close(go)
            ledger = Ledger.open(ledger_url)
            models = Models(f"sqlite:///{home / 'mlflow.db'}", home)
            version, decision = models.ensemble(number + 1), ledger.decisions()[number]
            os.read(ready, 1)
            try:
                promote(ledger, models, version, decision, 0)
            except BusyError:
                os._exit(9)
            os._exit(0)
        children.append(child)
    os.close(go)
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


@pytest.fixture(scope="module")
def four_ensembles(mlflow_template, tmp_path_factory):
    """An MLflow database with four registered ensembles, made once."""
    home = tmp_path_factory.mktemp("four-ensembles")
    shutil.copy(mlflow_template, home / "mlflow.db")
    (home / "folder").mkdir()
    (home / "folder" / "a").write_text("x")
    models = Models(f"sqlite:///{home / 'mlflow.db'}", home)
    for number in range(1, 5):
        models.register_ensemble(home / "folder", ["a/1"], f"t{number}")
    return home / "mlflow.db"


@pytest.fixture
def opened(home, four_ensembles, ledger_url):
    """A ledger with four approved verdicts, and a registry with four ensembles."""
    shutil.copy(four_ensembles, home / "mlflow.db")
    ledger, models = stores(home, ledger_url)
    ledger.record_data_version("data-1")
    for number in range(1, 5):
        ledger.start_tournament(f"t{number}", "data-1")
        ledger.record_ensemble(f"t{number}", "esci-ensemble", number)
        decided(ledger, number, against=0)
    yield ledger, models
    ledger.close()


def stores(home, ledger_url=None):
    return Ledger.open(ledger_url or f"sqlite:///{home / 'ledger.db'}"), Models(f"sqlite:///{home / 'mlflow.db'}", home)


def decided(ledger, number, against):
    """Record that a version is to follow whoever is champion after the change `against`."""
    verdict = ledger.record_verdict(f"t{number}", "promote", against=against)
    return ledger.record_decision(verdict.id, "approve", "ann", f"better {number}")


def install(opened, *versions):
    ledger, models = opened
    for version in versions:
        sequence = ledger.standing("esci-ensemble").sequence
        promote(ledger, models, models.ensemble(version), decided(ledger, version, sequence), sequence)


def aliases(models):
    return models.alias("champion"), models.alias("previous")


def test_promotion_moves_both_aliases_and_is_on_record(opened):
    ledger, models = opened
    install(opened, 1, 2)
    assert aliases(models) == (2, 1)
    assert ledger.champion("esci-ensemble").version == 2
    assert ledger.pending("esci-ensemble") == []
    assert [(each.promotion.reason, each.done_at is not None) for each in ledger.history("esci-ensemble")] == [
        ("better 1", True),
        ("better 2", True),
    ]


def test_one_decision_promotes_once(opened):
    ledger, models = opened
    install(opened, 1)
    before = ledger.export()
    promote(ledger, models, models.ensemble(1), ledger.decisions()[0], 0)
    assert ledger.export() == before


def test_only_an_approval_promotes(opened):
    ledger, models = opened
    ledger.start_tournament("t9", "data-1")
    refusal = ledger.record_decision(ledger.record_verdict("t9", "promote").id, "refuse", "ann", "too dear")
    with pytest.raises(UsageError, match="only an approval promotes"):
        promote(ledger, models, models.ensemble(1), refusal, 0)
    assert ledger.champion("esci-ensemble") is None


def test_a_champion_that_changed_since_the_verdict_is_not_replaced(opened):
    ledger, models = opened
    install(opened, 1)
    with pytest.raises(BusyError, match="changed meanwhile"):
        promote(ledger, models, models.ensemble(2), ledger.decisions()[1], 0)
    assert aliases(models) == (1, None)


def test_rollback_goes_back_one_step_at_a_time(opened):
    ledger, models = opened
    install(opened, 1, 2, 3)
    rollback(ledger, models, "slow")
    assert aliases(models) == (2, 1)
    rollback(ledger, models, "still slow")
    assert aliases(models) == (1, None)
    with pytest.raises(NotFoundError, match="nothing to go back to"):
        rollback(ledger, models, "and again")
    assert [each.promotion.kind for each in ledger.history("esci-ensemble")] == ["promote"] * 3 + ["rollback"] * 2


def test_undo_takes_back_whatever_came_last_and_two_of_them_are_a_redo(opened):
    ledger, models = opened
    install(opened, 1, 2, 3)
    rollback(ledger, models, "slow", to=1)
    assert aliases(models) == (1, None)
    undo(ledger, models, "it was not")
    assert aliases(models) == (3, 2)
    undo(ledger, models, "it was")
    assert aliases(models) == (1, None)
    set_champion(ledger, models, 2, "the middle")
    assert aliases(models) == (2, 1)
    rollback(ledger, models, "back")
    assert aliases(models) == (1, None)
    assert ledger.standing("esci-ensemble").replaced == 2


def test_the_first_promotion_cannot_be_undone(opened):
    ledger, models = opened
    for installed in (False, True):
        with pytest.raises(NotFoundError, match="nothing to go back to"):
            undo(ledger, models, "no")
        if not installed:
            install(opened, 1)


def test_a_killed_undo_and_a_killed_set_are_finished_and_not_made_twice(opened, monkeypatch):
    ledger, models = opened
    install(opened, 1, 2)
    for change, expected in (
        (lambda: undo(ledger, models, "slow"), (1, None)),
        (lambda: set_champion(ledger, models, 3, "x"), (3, 1)),
    ):
        with monkeypatch.context() as crash:
            crash.setattr("esci_tournament.registry.promotion._project", lambda *arguments: os.fspath(None))
            with pytest.raises(TypeError):
                change()
        change()
        assert aliases(models) == expected


def test_rollback_needs_a_reason_and_the_standing_that_was_seen(opened):
    ledger, models = opened
    install(opened, 1, 2)
    with pytest.raises(UsageError, match="needs a reason"):
        rollback(ledger, models, "  ")
    with pytest.raises(BusyError, match="changed meanwhile"):
        rollback(ledger, models, "slow", expected=1)
    assert aliases(models) == (2, 1)


def test_an_alias_moved_by_hand_is_noticed_left_alone_and_restored_on_demand(opened):
    ledger, models = opened
    install(opened, 1, 2)
    assert drift(ledger, models) == []
    models.set_alias("champion", 3)
    models.set_alias("previous", None)
    assert reconcile(ledger, models) == []
    found = drift(ledger, models)
    assert [(each.alias, each.ledger, each.mlflow) for each in found] == [("champion", 2, 3), ("previous", 1, None)]
    assert "moved by hand" in str(found[0])
    assert "restore" in str(found[0])
    assert restore(ledger, models) == found
    assert aliases(models) == (2, 1)
    assert restore(ledger, models) == []
    assert [event.kind for event in ledger.events()] == ["aliases_restored"]


def test_an_mlflow_that_fails_leaves_an_intent_that_is_finished_later(opened, monkeypatch):
    ledger, models = opened
    install(opened, 1)

    def broken(alias, version):
        raise StoreError("MLflow is away")

    with monkeypatch.context() as away:
        away.setattr(models, "set_alias", broken)
        with pytest.raises(StoreError, match="away"):
            install(opened, 2)
    assert ledger.champion("esci-ensemble").version == 2
    assert aliases(models) == (1, None)
    assert drift(ledger, models) == [], "an open promotion is no drift"
    assert [each.version for each in reconcile(ledger, models)] == [2]
    assert aliases(models) == (2, 1)


@pytest.mark.slow
def test_a_kill_at_any_step_is_finished_by_the_next_start(opened, home, tmp_path, run_script):
    install(opened, 1)
    decided(opened[0], 2, against=1)
    opened[0].close()
    template = tmp_path / "template"
    shutil.copytree(home, template)
    for part in tmp_path.glob("ledger.db*"):
        shutil.copy(part, template)
    run_script(KILLED, template)
    victims = sorted(tmp_path.glob("killed-*"), key=lambda folder: int(folder.name.partition("-")[2]))
    assert len(victims) == 13, "record_promotion, two aliases and three steps, before and after each, and one alive"
    for point, victim in enumerate(victims, 1):
        ledger, models = stores(victim)
        with ledger:
            finished = reconcile(ledger, models)
            assert len(finished) == (2 <= point <= 11), "open between the intent and the last step"
            assert aliases(models) == ((1, None) if point == 1 else (2, 1))
            promote(ledger, models, models.ensemble(2), ledger.decisions()[-1], 1)
            assert aliases(models) == (2, 1)
            assert drift(ledger, models) == []
            assert len(ledger.history("esci-ensemble")) == 2
            assert len(ledger.export()["promotion_steps"]) == 6


def test_a_killed_rollback_is_finished_and_not_taken_twice(opened, monkeypatch):
    ledger, models = opened
    install(opened, 1, 2, 3)
    with monkeypatch.context() as crash:
        crash.setattr("esci_tournament.registry.promotion._project", lambda *arguments: os.fspath(None))
        with pytest.raises(TypeError):
            rollback(ledger, models, "slow")
    rollback(ledger, models, "slow")
    assert aliases(models) == (2, 1)


@pytest.mark.slow
@pytest.mark.databases("sqlite", "postgresql")
def test_of_promoters_at_once_exactly_one_wins(opened, home, ledger_url, run_script):
    ledger, models = opened
    outcomes = json.loads(run_script(RACE, home, ledger_url).stdout)
    assert sorted(outcomes) == [0, 9, 9, 9]
    winner = outcomes.index(0) + 1
    assert aliases(models) == (winner, None)
    assert len(ledger.history("esci-ensemble")) == 1
    assert ledger.pending("esci-ensemble") == []
