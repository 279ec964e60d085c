"""`tournament keys`: API keys of the scorer are made, listed and revoked."""

from __future__ import annotations

import json

import pytest

from esci_tournament.deployments.cli import main
from esci_tournament.deployments.scorer.keys import FILE, Keys


def test_the_command_makes_lists_and_revokes(tournament, tmp_path):
    made = tournament("keys", "create", "shop", "--rate", 5, "--home", tmp_path, "--json").document
    assert Keys(tmp_path / FILE).verify(made["key"]) is not None
    assert tournament("keys", "revoke", "shop", "--home", tmp_path).code == 0
    listed = tournament("keys", "list", "--home", tmp_path, "--json")
    assert [row["name"] for row in listed.document if row["revoked"]] == ["shop"]
    assert made["key"] not in listed.out
    assert "hash" not in json.dumps(listed.document)


@pytest.mark.parametrize("rate", ["0", "-1", "nan"])
def test_a_rate_that_lets_nobody_in_is_wrong_usage_and_makes_no_key(rate, tmp_path, capfd):
    assert main(["keys", "create", "shop", "--rate", rate, "--home", str(tmp_path), "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["kind"] == "UsageError"
    assert not (tmp_path / FILE).exists()


def test_a_home_without_keys_says_what_that_means(tmp_path, capfd):
    assert main(["keys", "list", "--home", str(tmp_path)]) == 0
    assert "listens on this machine alone" in capfd.readouterr().out
