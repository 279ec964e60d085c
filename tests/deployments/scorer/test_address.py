"""Where a scorer may listen."""

from __future__ import annotations

from pathlib import Path

import pytest

from esci_tournament.deployments.scorer.address import check_address, is_loopback
from esci_tournament.deployments.scorer.keys import FILE, Keys
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.settings import Settings

HERE = ("127.0.0.1", "127.3.2.1", "::1", "localhost")
EVERYWHERE = ("0.0.0.0", "::", "192.0.2.7", "2001:db8::1", "example.com", "")


def test_only_loopback_is_this_machine_alone() -> None:
    assert all(map(is_loopback, HERE))
    assert not any(map(is_loopback, EVERYWHERE))


@pytest.mark.parametrize("host", [*HERE, *EVERYWHERE])
def test_without_a_key_it_is_this_machine_alone_and_with_one_anywhere(host: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    if host in EVERYWHERE:
        with pytest.raises(UsageError, match="tournament keys create NAME"):
            check_address(settings, host)
        Keys(tmp_path / FILE).create("shop")
    check_address(settings, host)


def test_a_key_that_was_revoked_lets_nobody_in_so_the_scorer_may_listen(tmp_path: Path) -> None:
    keys = Keys(tmp_path / FILE)
    keys.create("shop")
    keys.revoke("shop")
    check_address(Settings(home=tmp_path), "0.0.0.0")
