"""The page at `/`, on which a person tries a query. It loads nothing, and talks to this scorer alone."""

from __future__ import annotations

from importlib.resources import files

from esci_tournament.deployments.page_policy import policy_of

PAGE = (files(__package__) / "try_page.html").read_text(encoding="utf-8")
POLICY = policy_of(PAGE)
