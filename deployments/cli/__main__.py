"""`python -m deployments.cli` is the command `tournament`."""

from deployments.cli import entry

entry()
