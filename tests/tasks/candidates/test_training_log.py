"""The log of a candidate is never empty: what is trained, how far it is, and one line for each."""

from __future__ import annotations

from pathlib import Path

from esci_tournament.registry.specs import parse_spec
from esci_tournament.tasks.candidates.steps import CandidateInputs
from esci_tournament.tasks.candidates.training_log import TrainingLog

SAGE = {"name": "sage", "family": "graph_network", "architecture": "graphsage"}


def test_it_says_what_is_trained_and_what_is_printed_stays_between(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "logs" / "sage-1.log")
    log.begin(CandidateInputs("sage/1", parse_spec(SAGE), "", "d" * 64, "roles", 3, "cpu"), "t-1", 2)
    with log.path.open("a") as file:
        file.write("printed by the model\n")
    log.say("failed:\nout of memory")
    first, spec, printed, last = log.path.read_text().splitlines()
    for words in ("sage/1 is trained and scored in tournament t-1", "dddddddddddd", "seed 3", "threads 2"):
        assert words in first
    assert '"architecture":"graphsage"' in spec
    assert printed == "printed by the model"
    assert last.endswith(" failed: out of memory")  # one line each, whatever a reason holds


def test_progress_is_a_line_every_few_seconds_and_the_last_one_always(tmp_path: Path) -> None:
    moments = iter([100.0, 101.0, 106.0, 112.0, 112.1])
    log = TrainingLog(tmp_path / "log", lambda: next(moments))
    for share, doing in ((0.1, "step 1"), (0.2, "step 2"), (0.3, "step 3"), (0.4, "step 3"), (1.0, "done")):
        log.progress(share, doing)
    assert [line.split("% ")[1] for line in log.path.read_text().splitlines()] == ["step 1", "step 3", "done"]
