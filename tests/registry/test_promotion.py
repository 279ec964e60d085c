import json
import os
import shutil

import pytest

from registry.errors import BusyError, NotFoundError, StoreError, UsageError
from registry.ledger import Ledger
from registry.models import Models
from registry.promotion import drift, promote, reconcile, restore, rollback

# A process that kills itself before its n-th and after its n-th step of a promotion or a rollback. The modules are
# imported once and every victim is a fork with stores of its own, opened after the fork.
KILLED = """
    import os, shutil, signal, sys
    from pathlib import Path
    from registry.ledger import Ledger
    from registry.models import Models
    from registry.promotion import promote, rollback

    def victim(home, action, point):
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
        promote(ledger, models, version, decision, 1) if action == "promote" else rollback(ledger, models, "it is slow")

    template, action = Path(sys.argv[1]), sys.argv[2]
    for point in range(1, 100):
        home = template.with_name(f"killed-{point}")
        shutil.copytree(template, home)
        if (child := os.fork()) == 0:
            try:
                victim(home, action, point)
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
    from registry.errors import BusyError
    from registry.ledger import Ledger
    from registry.models import Models
    from registry.promotion import promote
    home, children = Path(sys.argv[1]), []
    ready, go = os.pipe()
    for number in range(4):
        if (child := os.fork()) == 0:
            os.close(go)
            ledger = Ledger.open(f"sqlite:///{home / 'ledger.db'}")
            models = Models(f"sqlite:///{home / 'mlflow.db'}", home)
            version, decision = models.ensemble(number % 2 + 1), ledger.decisions()[number]
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


@pytest.fixture
def opened(home, tmp_path):
    """A ledger with one approved tournament for each of four verdicts, and three registered ensembles."""
    folder = tmp_path / "ensemble"
    folder.mkdir()
    (folder / "a").write_text("x")
    ledger, models = stores(home)
    ledger.record_data_version("data-1")
    for number in range(1, 5):
        tournament = f"t{number}"
        ledger.start_tournament(tournament, "data-1")
        if number < 4:
            models.register_ensemble(folder, ["a/1"], tournament)
        verdict = ledger.record_verdict(tournament, "promote")
        ledger.record_decision(verdict.id, "approve", "ann", f"better {number}")
    yield ledger, models
    ledger.close()


def stores(home):
    return Ledger.open(f"sqlite:///{home / 'ledger.db'}"), Models(f"sqlite:///{home / 'mlflow.db'}", home)


def install(opened, *versions):
    ledger, models = opened
    for version in versions:
        decision = ledger.decisions()[version - 1]
        promote(ledger, models, models.ensemble(version), decision, ledger.standing("esci-ensemble").sequence)


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
@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_kill_at_any_step_is_finished_by_the_next_start(opened, home, run_script, action):
    install(opened, 1) if action == "promote" else install(opened, 1, 3)
    before = (1, None) if action == "promote" else (3, 1)
    after = (2, 1) if action == "promote" else (1, None)
    opened[0].close()
    template = home.with_name("template")
    shutil.copytree(home, template)
    run_script(KILLED, template, action)
    victims = sorted(home.parent.glob("killed-*"), key=lambda folder: int(folder.name.partition("-")[2]))
    assert len(victims) == 13, "record_promotion, two aliases and three steps, before and after each, and one alive"
    for point, victim in enumerate(victims, 1):
        ledger, models = stores(victim)
        with ledger:
            finished = reconcile(ledger, models)
            assert len(finished) == (2 <= point <= 11)
            assert aliases(models) == (before if point == 1 else after)
            if action == "promote":
                promote(ledger, models, models.ensemble(2), ledger.decisions()[-1], 1)
            elif point == 1:
                rollback(ledger, models, "it is slow")
            assert aliases(models) == after
            assert drift(ledger, models) == []
            assert len(ledger.history("esci-ensemble")) == (2 if action == "promote" else 3)
            assert len(ledger.export()["promotion_steps"]) == (6 if action == "promote" else 9)


def test_a_killed_rollback_is_finished_and_not_taken_twice(opened, monkeypatch):
    ledger, models = opened
    install(opened, 1, 2, 3)
    with monkeypatch.context() as crash:
        crash.setattr("registry.promotion._project", lambda *arguments: os.fspath(None))
        with pytest.raises(TypeError):
            rollback(ledger, models, "slow")
    rollback(ledger, models, "slow")
    assert aliases(models) == (2, 1)


@pytest.mark.slow
def test_of_promoters_at_once_exactly_one_wins(opened, home, run_script):
    ledger, models = opened
    outcomes = json.loads(run_script(RACE, home).stdout)
    assert sorted(outcomes) == [0, 9, 9, 9]
    winner = outcomes.index(0) % 2 + 1
    assert aliases(models) == (winner, None)
    assert len(ledger.history("esci-ensemble")) == 1
    assert ledger.pending("esci-ensemble") == []
