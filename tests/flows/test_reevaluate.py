"""Re-evaluation: champion and bench on newer data, without re-fitting; nothing is done if nothing has changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.live_data import EVENT
from esci_tournament.registry.scores import ScoreStore
from esci_tournament.registry.stages import StageStore
from esci_tournament.tasks.candidates.provenance import Seen
from esci_tournament.tasks.data.load import load_esci
from tests.harness import clean_environment, new_home, warm

pytestmark = pytest.mark.slow

CANDIDATES = """
[[candidate]]
name = "weak"
family = "language_model"
architecture = "bert"
recipe = { epochs = 1, learning_rate = 1e-3, max_length = 24, hidden_size = 16, heads = 2, layers = 1 }

[[candidate]]
name = "strong"
family = "graph_network"
architecture = "graphsage"
relation = "clicks"
recipe = { epochs = 12, hidden_size = 64 }
"""
# Fifty test queries cannot show what five thousand can: the judge is content with less.
SETTINGS = """
minimum_test_queries = 10
guardrail_margin = 1.0
alpha = 0.5
"""


@dataclass(frozen=True)
class Place:
    """A folder with settings, in which commands are run."""

    folder: Path

    def run(self, *arguments: object, **environment: str) -> dict[str, Any]:
        """Return a command's document."""
        answer = warm([*arguments, "--home", "home", "--json"], self.folder, clean_environment(**environment))
        assert answer.code == 0, answer.err
        return answer.document

    @property
    def models(self) -> set[str]:
        return {path.name for path in (self.folder / "home" / "stages").glob("train-*")}

    def ledger(self) -> Ledger:
        return Ledger.open(f"sqlite:///{self.folder / 'home' / 'ledger.db'}")


@pytest.fixture(scope="module")
def place(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A home whose champion is the weak model, because the strong one had to stay on the bench."""
    folder = tmp_path_factory.mktemp("weekly")
    (folder / "candidates.toml").write_text(CANDIDATES, encoding="utf-8")
    (folder / "tournament.toml").write_text(SETTINGS, encoding="utf-8")
    new_home(folder / "home")
    place = Place(folder)
    document = place.run(
        "run", "--data", tiny_world, "--candidates", "candidates.toml", TOURNAMENT_MUST_DROP='["strong"]'
    )
    assert {model["name"]: model["status"] for model in document["models"]} == {"weak": "member", "strong": "evicted"}
    return place


@pytest.fixture(scope="module")
def unchanged(place: Place, tiny_world: Path) -> dict[str, Any]:
    """A re-evaluation right after the tournament, on the same data."""
    return place.run("reevaluate", "--data", tiny_world, TOURNAMENT_MUST_DROP='["strong"]')


@dataclass(frozen=True)
class Week:
    """A re-evaluation on newer data, and which models there were before it."""

    document: dict[str, Any]
    models_before: set[str]


@pytest.fixture(scope="module")
def week(place: Place, unchanged: object, grown_world: Path) -> Week:
    """The re-evaluation of the week after: more judgements, and the strong model is allowed again."""
    before = place.models
    document = place.run("reevaluate", TOURNAMENT_DATA=str(grown_world))
    return Week(document, before)


def test_when_nothing_changed_it_says_so(place: Place, unchanged: dict[str, Any]) -> None:
    document = unchanged
    assert document["unchanged"]
    with place.ledger() as ledger:
        told = ledger.events(kind="reevaluated")[0]
    assert told.tournament == document["tournament"]
    assert told.payload["unchanged"]
    assert told.payload["words"].startswith("Nothing has changed")
    assert told.payload["trial"]  # the data was named by hand


def test_newer_data_is_evaluated_without_training_anything(place: Place, week: Week) -> None:
    assert not week.document["unchanged"]
    assert week.document["data"]["queries"] > 200
    ledger = Ledger.open(f"sqlite:///{place.folder}/home/ledger.db")
    assert [event.subject for event in ledger.events(kind=EVENT)] == [week.document["data"]["version"]]
    assert place.models == week.models_before
    assert {model["name"]: model["entry"] for model in week.document["models"]} == {
        "weak": "incumbent",
        "strong": "bench",
    }


def test_no_pair_is_judged_whose_query_a_model_has_seen(place: Place, week: Week, grown_world: Path) -> None:
    pairs = load_esci(grown_world).pairs.set_index("example_id", drop=False)
    assert week.document["data"]["roles"]["quarantine"] > 0
    home = place.folder / "home"
    stages = StageStore(home / "stages")
    seen = [Seen.read(stages.root / model) for model in place.models]
    newer = [
        row for row in ScoreStore(home / "scores").list() if row["data_version"] == week.document["data"]["version"]
    ]
    assert {row["candidate"] for row in newer} == {"weak/1", "strong/1"}
    scored = []
    for row in newer:
        ids = ScoreStore(home / "scores").get(row["candidate"], row["data_version"], row["recipe"]).example_id
        scored.append(set(ids.tolist()))
        assert any(not model.of(pairs.loc[ids]).any() for model in seen)
    # Newer test queries that a model of the week before has fitted on, or has behaviour of, are known to be there.
    test = pairs[pairs["split"] == "test"]
    assert any(model.of(test).any() for model in seen)
    judged = sum(map(sum, week.document["confusion"]))
    assert judged == len(set.intersection(*scored) & set(test["example_id"]))
    assert judged < len(test)


def test_a_model_of_the_bench_comes_back_when_it_makes_the_ensemble_better(place: Place, week: Week) -> None:
    status = {model["name"]: model["status"] for model in week.document["models"]}
    assert status["strong"] == "member"
    assert week.document["verdict"]["outcome"] == "promote"
    assert week.document["promoted"]
    assert place.run("champion", "show")["version"] == 2


def test_the_champions_numbers_before_and_after_are_in_the_ledger_and_the_look_is_on_record(
    place: Place, week: Week
) -> None:
    with place.ledger() as ledger:
        (event,) = [one for one in ledger.events(kind="reevaluated") if not one.payload["unchanged"]]
        looks = [look for look in ledger.looks() if look.tournament == week.document["tournament"]]
        first = ledger.tournaments()[0]
    assert len(looks) == 1
    told = event.payload
    assert (event.tournament, told["champion"], told["bench"]) == (
        week.document["tournament"],
        "esci-ensemble/1",
        ["strong/1"],
    )
    assert told["champion_before"]["tournament"] == first.tournament
    assert told["champion_after"]["metrics"]["all"]["macro_f1"] == week.document["champion"]["macro_f1"]
    assert told["champion_before"]["metrics"]["all"]["macro_f1"] != told["champion_after"]["metrics"]["all"]["macro_f1"]
    assert told["words"].startswith("Champion and bench evaluated again")


def test_drift_is_in_the_document_and_on_the_page(week: Week) -> None:
    drift = week.document["drift"]
    assert len(drift["rows"]) > 20
    page = Path(week.document["report"]).read_text(encoding="utf-8")
    assert "Drift since the last tournament" in page
    assert drift["sentence"] in page


def test_the_same_week_again_changes_nothing(place: Place, week: Week, grown_world: Path) -> None:
    document = place.run("reevaluate", "--data", grown_world)
    assert document["unchanged"]
    assert document["tournament"] == week.document["tournament"]
    assert place.models == week.models_before
