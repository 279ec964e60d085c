"""The addresses that a scorer may listen on: loopback without an API key, any address once there is one."""

from __future__ import annotations

import ipaddress

from esci_tournament.deployments.scorer.keys import FILE, Keys
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.settings import Settings


def check_address(settings: Settings, host: str) -> None:
    """Check that a scorer without an API key is reachable from this machine only.

    Args:
        settings: `home` is used; its API keys are looked up.
        host: address that the scorer is to listen on.

    Raises:
        UsageError: if the address is not loopback and no API key was made.
    """
    if not is_loopback(host) and not Keys(settings.home / FILE).configured:
        raise UsageError(
            f"the scorer would listen on {host} for everybody: no API key was made; make one with "
            "`tournament keys create NAME`, or listen on 127.0.0.1"
        )


def own_names(settings: Settings, host: str) -> frozenset[str] | None:
    """Return the names under which a scorer may be asked; None, any name, for one that other machines reach.

    Args:
        settings: `public_hosts` are names of a proxy on this machine.
        host: address that the scorer listens on.

    Example:
        >>> sorted(own_names(Settings(public_hosts=("Scores.example",)), "127.0.0.1"))
        ['127.0.0.1', '::1', 'localhost', 'scores.example']
    """
    if not is_loopback(host):
        return None
    return frozenset({"127.0.0.1", "localhost", "::1", host.lower(), *map(str.lower, settings.public_hosts)})


def is_loopback(host: str) -> bool:
    """Tell whether an address is reachable from this machine only.

    Args:
        host: "localhost" or an IP address; another name counts as reachable from elsewhere.

    Returns:
        Whether it is a loopback address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
