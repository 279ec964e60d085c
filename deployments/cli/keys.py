"""`tournament keys`: API keys of the scorer."""

from __future__ import annotations

import argparse
from typing import Any

from esci_tournament.deployments.cli.common import Output, add_common_options, settings_of


def add_parser(commands: Any) -> None:
    """Add the command and its parts."""
    parser = commands.add_parser("keys", help="make, list and revoke API keys of the scorer")
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    making = parts.add_parser("create", help="make a key; it is shown once and kept as a hash")
    making.add_argument("name", help="name of its owner")
    making.add_argument("--rate", type=float, metavar="N", help="requests a second (default: setting rate_per_s)")
    listing = parts.add_parser("list", help="list all keys, without their secrets")
    ending = parts.add_parser("revoke", help="revoke a key; it takes effect at once")
    ending.add_argument("name", help="name or id of the key")
    for part, work in ((making, create), (listing, show), (ending, revoke)):
        add_common_options(part)
        part.set_defaults(work=work)


def create(options: argparse.Namespace, output: Output) -> None:
    """Make a key and show it; it cannot be shown again.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        UsageError: if the rate is not above 0, the name is blank, or a good key has it already.
    """
    from esci_tournament.registry.errors import UsageError

    if options.rate is not None and not options.rate > 0:
        raise UsageError(f"--rate {options.rate:g}: requests a second must be above 0")
    key, text = keys_of(options).create(options.name, options.rate)
    output.say(f"key of {key.name}, shown this once:\n{text}\nsend it as `Authorization: Bearer {text[:12]}...`")
    output.document({**key.facts(), "key": text})


def show(options: argparse.Namespace, output: Output) -> None:
    """List all keys, the oldest first, without their secrets."""
    keys = keys_of(options).all()
    for key in keys:
        state = f"revoked {key.revoked}" if key.revoked else "good"
        rate = "" if key.rate_per_s is None else f", {key.rate_per_s:g} requests a second"
        output.say(f"{key.id}  {key.name}  made {key.created}  {state}{rate}")
    if not keys:
        output.say("no keys; the scorer then listens on this machine alone")
    output.document([key.facts() for key in keys])


def revoke(options: argparse.Namespace, output: Output) -> None:
    """Revoke the good key with this name or id."""
    key = keys_of(options).revoke(options.name)
    output.say(f"key {key.id} of {key.name} is revoked")
    output.document(key.facts())


def keys_of(options: argparse.Namespace) -> Any:
    """Return the keys of the home, a :class:`~esci_tournament.deployments.scorer.keys.Keys`."""
    from esci_tournament.deployments.scorer.keys import FILE, Keys

    return Keys(settings_of(options).home / FILE)
