"""The relations that behaviour and catalogue give a graph."""

from __future__ import annotations

from typing import Literal

Relation = Literal["impressions", "clicks", "adds", "purchases", "all", "bought_together", "same_session", "same_brand"]
