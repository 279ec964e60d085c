"""The workspace of a flow run: settings of its process under the policy, and data that only its worker chooses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from esci_tournament.flows.governed import data_of_run, workspace_of_run
from esci_tournament.registry.errors import PolicyError
from esci_tournament.registry.settings import read_settings, using
from esci_tournament.registry.workspace import Workspace
from tests.harness import clean_environment


def test_a_run_of_a_deployment_competes_on_the_workers_data_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U1.3: whoever chooses the labels chooses the winner."""
    work = Workspace(read_settings(home=tmp_path, data="/the/workers"))
    assert data_of_run(work, "/other") == "/other", "a command of one's own may name any"
    monkeypatch.setattr("prefect.runtime.deployment.id", "a deployment", raising=False)
    assert data_of_run(work, None) == "/the/workers"
    with pytest.raises(PolicyError, match="asks for the data '/other'"):
        data_of_run(work, "/other")


def test_a_run_has_the_settings_that_its_process_was_given_under_the_policy(tmp_path: Path) -> None:
    given = read_settings(home=tmp_path, seed=7, alpha=0.01)
    with using(given):
        found = workspace_of_run().settings
    assert (found.home, found.seed, found.alpha, found.review) == (tmp_path, 7, 0.01, "none")
    with using(read_settings(home=tmp_path, alpha=0.5)), pytest.raises(PolicyError, match="alpha"):
        workspace_of_run()


def test_the_policy_is_read_without_prefect_where_nothing_names_an_api(tmp_path: Path) -> None:
    """`tournament review list` would take seconds otherwise; where something does, Prefect is asked."""
    script = """
import os, sys
from pathlib import Path
from esci_tournament.flows.governed import governed
from esci_tournament.registry.settings import read_settings
from esci_tournament.registry.workspace import Workspace
os.environ |= dict(word.split("=") for word in sys.argv[2:])
review = governed(Workspace(read_settings(home=sys.argv[1]))).review
print(review, *sorted({"prefect", "mlflow", "pandas", "torch"} & set(sys.modules)))
"""

    def said(home: str, *variables: str) -> str:
        command = [sys.executable, "-c", script, str(tmp_path / home), f"PREFECT_HOME={tmp_path}", *variables]
        answer = subprocess.run(
            command, env=clean_environment(), cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
        )
        return answer.stdout.strip()

    assert said("a") == "none"
    assert said("b", "PREFECT_API_URL=http://127.0.0.1:9/api").startswith("required")
    (tmp_path / "profiles.toml").write_text(
        'active = "ours"\n[profiles.ours]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n', encoding="utf-8"
    )
    assert said("c").startswith("required")
