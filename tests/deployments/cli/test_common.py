"""What all commands share: one document for machines, words for people, and settings from options."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from esci_tournament.deployments.cli.common import (
    Output,
    add_tournament_options,
    checked_specs,
    command,
    served_workspace_of,
    settings_of,
    tournament_settings,
)
from esci_tournament.deployments.stack.state import Process, State, write_state
from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.settings import Settings


def test_standard_output_has_the_document_alone_whatever_prints(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(Output(as_json=True)) as output:
        output.say("for people")
        os.write(1, b"from a library\n")
        subprocess.run(["echo", "from a child"], check=True)
        output.document({"query": "ランプ", "path": Path("x")})
        output.document({"a second": "document"})
        output.error("it went wrong")
    out, err = capfd.readouterr()
    assert json.loads(out) == {"query": "ランプ", "path": "x"}
    for words in ("for people", "from a library", "from a child", "error: it went wrong"):
        assert words in err


def test_people_read_what_is_said_on_standard_output_and_no_document(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(Output(as_json=False)) as output:
        output.say("for people")
        output.console().print("a table")
        os.write(1, b"from a library\n")
        output.document({"for": "machines"})
    out, err = capfd.readouterr()
    assert out.split("\n") == ["for people", "a table", ""]
    assert err == "from a library\n"


def test_standard_output_is_given_back(capfd: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).close()
    os.write(1, b"after it\n")
    assert capfd.readouterr().out == "after it\n"


def parser(*, home: bool = True) -> argparse.ArgumentParser:
    """Return the parser of one command with the settings of a tournament."""
    root = argparse.ArgumentParser()
    add_tournament_options(command(root.add_subparsers(), "dance", print, "dance a little", home=home))
    return root


def test_every_command_has_its_work_and_the_common_options() -> None:
    options = parser().parse_args(["dance", "--json", "--home", "here"])
    assert (options.work, options.json, options.debug, options.home) == (print, True, False, Path("here"))
    assert not hasattr(parser(home=False).parse_args(["dance"]), "home")


def test_every_option_of_a_tournament_is_a_setting_and_all_of_them_are_read() -> None:
    given = {
        "device": "cpu",
        "seed": 7,
        "out_of_sample": "kfold",
        "budget_memory_mib": 100.0,
        "budget_latency_ms": 50.0,
        "selection": "greedy",
        "workers": 2,
    }
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    options = parser().parse_args(["dance", *words])
    assert tournament_settings(options) == given
    known = {"work", "home", "json", "debug"}
    assert set(given) == set(vars(options)) - known <= set(Settings.model_fields)


def test_options_come_before_variables_and_variables_before_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOURNAMENT_SEED", "3")
    monkeypatch.setenv("TOURNAMENT_WORKERS", "4")
    options = parser().parse_args(["dance", "--home", str(tmp_path), "--seed", "5"])
    settings = settings_of(options, **tournament_settings(options))
    assert (settings.home, settings.seed, settings.workers) == (tmp_path, 5, 4)
    assert settings.selection == Settings.model_fields["selection"].default


def test_what_runs_for_a_home_is_used_by_its_commands_unless_the_user_names_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "before")
    monkeypatch.delenv("PREFECT_API_URL")  # so that it is taken back after the test
    options = parser().parse_args(["dance", "--home", str(tmp_path)])
    assert served_workspace_of(options).settings.mlflow_ui is None
    assert "PREFECT_API_URL" not in os.environ
    state = State(
        Process.of(os.getpid()), addresses={"mlflow": "http://127.0.0.1:5000"}, api="http://127.0.0.1:4200/api"
    )
    write_state(tmp_path, state)
    assert served_workspace_of(options).settings.mlflow_ui == "http://127.0.0.1:5000"
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    monkeypatch.setenv("PREFECT_API_URL", "http://theirs/api")
    served_workspace_of(options)
    assert os.environ["PREFECT_API_URL"] == "http://theirs/api"


def test_where_a_command_works_is_one_quiet_line_and_keys_of_its_document(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    options = argparse.Namespace(home=Path("home"), command="candidates")
    with closing(Output(as_json=False)) as options.output:
        settings_of(options)
        settings_of(options)
        options.command = "keys"
        settings_of(options)
        options.uses_home = False
        settings_of(options, seed=3)
        options.output.document({})
    assert capfd.readouterr() == ("", "home home · MLflow in the home\nhome home\n")
    address = "postgresql+psycopg://ann:secret@db/mlflow"
    options = argparse.Namespace(home=tmp_path.parent, command="candidates")
    with closing(Output(as_json=False)) as options.output:
        settings_of(options, mlflow_uri=address)
    shown = "postgresql+psycopg://ann:***@db/mlflow"
    assert capfd.readouterr().err == f"home {tmp_path.parent} · MLflow {shown} (named by mlflow_uri)\n"
    with closing(Output(as_json=True)) as options.output:
        settings_of(options, mlflow_uri=address)
        options.output.document({"seed": 1})
    out, err = capfd.readouterr()
    assert (json.loads(out), err) == ({"home": str(tmp_path.parent), "tracking_uri": shown, "seed": 1}, "")


def test_what_a_spec_says_and_what_it_points_to_are_complained_about_together(tmp_path: Path) -> None:
    file = tmp_path / "candidates.toml"
    gone = '[[candidate]]\nname = "a"\nfamily = "language_model"\ncheckpoint = "gone"\n'
    file.write_text(
        f'{gone}\n[[candidate]]\nname = "b"\nfamily = "graph_network"\nrelatoin = "clicks"\n', encoding="utf-8"
    )
    (tmp_path / "gone").mkdir()
    with pytest.raises(SpecError) as raised:
        checked_specs(file, Settings(home=tmp_path))
    first, *others = raised.value.complaints
    assert (first.candidate, first.line) == ("candidate 1 (a)", 1)
    assert "gone" in first.problem
    assert "did you mean relation?" in str(others)
