"""`python -m esci_tournament.deployments.cli` is the command `tournament`."""

from esci_tournament.deployments.cli import entry

entry()
