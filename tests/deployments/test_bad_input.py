"""Wrong input ends with a message and a defined exit code, without a traceback or partial results."""

from __future__ import annotations

import subprocess
import sys

import pytest

from esci_tournament.deployments.cli import COMMANDS, main
from tests.deployments.conftest import refused

SPEC = '[[candidate]]\nname = "one"\nfamily = "graph_network"\narchitecture = "gcn"\n'


SLOW_TO_IMPORT = {"torch", "pandas", "mlflow", "prefect", "lightgbm", "fastapi", "sqlalchemy", "transformers"}
HELP = """
import sys
from esci_tournament.deployments.cli import main
try:
    main([*sys.argv[1:], "--help"])
except SystemExit as end:
    print("exit", end.code, *sorted(set(sys.modules)), file=sys.stderr)
"""
LISTED = """
import sys
from esci_tournament.deployments.cli import main
code = main([*sys.argv[1:], "--home", "home"])
print("exit", *sorted(set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_of_every_command_imports_nothing_that_is_slow(name, clean_environment):
    answer = subprocess.run(
        [sys.executable, "-c", HELP, *name.split()], env=clean_environment, capture_output=True, text=True, timeout=120
    )
    *_, said = answer.stderr.strip().splitlines()
    word, code, *modules = said.split()
    assert (word, code) == ("exit", "0"), answer.stderr
    assert "usage: tournament" in answer.stdout
    assert not SLOW_TO_IMPORT.intersection(modules)


@pytest.mark.parametrize("name", ["review list", "keys list"])
def test_lists_of_what_the_home_has_import_nothing_that_is_slow(name, clean_environment, tmp_path):
    answer = subprocess.run(
        [sys.executable, "-c", LISTED, *name.split()],
        env=clean_environment | {"PREFECT_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    word, *modules = answer.stderr.strip().splitlines()[-1].split()
    assert word == "exit", answer.stderr
    assert SLOW_TO_IMPORT.intersection(modules) <= {"sqlalchemy"}, "which the ledger needs"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["candidtes"], "candidates"),
        (["champion", "hsitory"], "history"),
        (["reevaluate", "--tiral"], "--trial"),
        (["run", "--data", "x", "--budget-memry-mib=3"], "--budget-memory-mib"),
        (["dance"], ""),
        (["run", "--data", "x", "--xyz"], ""),
    ],
)
def test_wrong_usage_says_what_may_have_been_meant(words, meant, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.endswith(f"; did you mean {meant}?") if meant else "did you mean" not in last


def test_a_variable_that_is_no_setting_is_told_and_ignored(tournament, tmp_path):
    answer = tournament("keys", "list", "--home", tmp_path, TOURNAMENT_SEEED="3")
    assert answer.code == 0
    assert "TOURNAMENT_SEEED is no setting and is ignored; did you mean TOURNAMENT_SEED?" in answer.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["dance"], 2),
        (["run"], 2),
        (["candidates", "list", "x/1"], 2),
        (["register", "nope.toml"], 4),
        (["register", "models:/nobody/1"], 4),
        (["run", "--data", "nowhere"], 3),
        (["champion", "show"], 10),
        (["candidates", "retry", "nobody/1"], 10),
    ],
)
def test_a_command_that_fails_writes_one_document_with_the_error_and_its_code(tournament, tmp_path, words, code):
    home = ["--home", tmp_path / "home"] if words[0] != "dance" else []
    answer = tournament(*words, *home, "--json", cwd=tmp_path)
    assert answer.code == code
    assert answer.document["exit_code"] == code
    assert answer.document["error"] in answer.err
    assert answer.document["kind"].endswith("Error")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["missing.toml", "No such file"]),
        ("[[candidate", ["no TOML"]),
        ("", ["no [[candidate]] table"]),
        (SPEC + "colour = 'red'\n", ["unknown key 'colour'"]),
        (SPEC + "[candidate.recipe]\nepochz = 3\n", ["unknown key 'recipe.epochz'"]),
        (SPEC + SPEC, ["'one' stands 2 times"]),
        (SPEC.replace("gcn", "transformer"), ["architecture"]),
        ('[[candidate]]\nname = "x"\nfamily = "oracle"\n', ["family is 'oracle'"]),
        ('[[candidate]]\nname = "x"\nfamily = "language_model"\n', ["either a checkpoint"]),
    ],
)
def test_candidates_file_is_refused_by_name(tournament, tmp_path, content, words):
    file = tmp_path / ("missing.toml" if content is None else "specs.toml")
    if content is not None:
        file.write_text(content, encoding="utf-8")
    home = tmp_path / "home"
    refused(tournament("run", "--home", home, "--data", tmp_path, "--candidates", file), 4, *words)
    assert not home.exists()


def test_settings_are_refused_by_name(tournament, tmp_path):
    (tmp_path / "tournament.toml").write_text("alpha = 2.0\n", encoding="utf-8")
    refused(tournament("doctor", cwd=tmp_path), 2, "alpha", "tournament.toml")


@pytest.mark.slow
def test_checkpoint_folder_that_is_none_is_refused_before_anything_is_registered(tournament, tiny_world, tmp_path):
    (tmp_path / "empty").mkdir()
    file = tmp_path / "specs.toml"
    file.write_text('[[candidate]]\nname = "x"\nfamily = "language_model"\ncheckpoint = "empty"\n', encoding="utf-8")
    home = tmp_path / "home"
    refused(tournament("run", "--home", home, "--data", tiny_world, "--candidates", file), 4, "empty", "config.json")
    assert tournament("candidates", "--home", home, "--json").document == []
