"""Where a scorer may listen: anywhere once there is an API key, on this machine alone before."""

from __future__ import annotations

import ipaddress

from esci_tournament.deployments.scorer.keys import FILE, Keys
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.settings import Settings


def check_address(settings: Settings, host: str) -> None:
    """Check that nobody else reaches a scorer without a key.

    Raises:
        UsageError: if the address is not loopback and no API key was made.
    """
    if not is_loopback(host) and not Keys(settings.home / FILE).configured:
        raise UsageError(
            f"the scorer would listen on {host} for everybody: no API key was made; make one with "
            "`tournament keys create NAME`, or listen on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
