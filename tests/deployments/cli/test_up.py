"""`tournament up`: errors before anything starts. That it runs is tested in `test_lifecycle.py`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any


def test_a_folder_that_is_not_there_is_named(tournament: Any, tmp_path: Path) -> None:
    answer = tournament("up", "--home", tmp_path / "home", "--data", tmp_path / "esci")
    assert answer.code == 3
    assert f"there is no folder {tmp_path / 'esci'}" in answer.err


def test_a_taken_port_is_named_before_anything_is_started(
    tournament: Any, tmp_path: Path, free_ports: list[int]
) -> None:
    prefect, mlflow, watcher = free_ports
    with socket.socket() as other:
        other.bind(("127.0.0.1", mlflow))
        other.listen()
        for more in ([], ["--detach"]):
            arguments = ("--prefect-port", prefect, "--mlflow-port", mlflow, "--watcher-port", watcher, *more)
            answer = tournament("up", "--home", tmp_path, *arguments)
            assert answer.code == 9
            assert f"port {mlflow}" in answer.err
            assert "mlflow_port" in answer.err
    assert not (tmp_path / "prefect").exists()


def test_a_home_that_is_a_file_is_named(tournament: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    answer = tournament("up", "--home", tmp_path / "file")
    assert answer.code == 8
    assert "cannot be written" in answer.err


def test_settings_that_ask_for_less_than_the_policy_are_named_before_anything_is_started(
    tournament: Any, tmp_path: Path
) -> None:
    said = tournament("policy", "set", "alpha=0.01", "--reason", "fewer promotions", "--home", tmp_path)
    assert said.code == 0, said.err
    (tmp_path / "tournament.toml").write_text("alpha = 0.5\n", encoding="utf-8")
    answer = tournament("up", "--home", tmp_path, cwd=tmp_path)
    assert answer.code == 12
    assert "setting alpha = 0.5, policy 0.01" in answer.err
    assert not (tmp_path / "prefect").exists()
