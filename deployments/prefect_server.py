"""Prefect's server with its scheduler working: `python -m esci_tournament.deployments.prefect_server start ...`.

Prefect 3.8.8 inserts scheduled runs with a key `state`, which SQLAlchemy before 2.1 passed over. 2.1 asks the hybrid
property of that name what to make of it and refuses the whole statement, so that no schedule ever starts a run: the
server goes on, and the weekly run does not come. Here the property says what was meant: nothing.
"""

from __future__ import annotations

import runpy
import sys

from prefect.server.database.orm_models import FlowRun
from sqlalchemy import inspect
from sqlalchemy.ext.hybrid import hybrid_property


def pass_over_state() -> None:
    """Let bulk inserts of flow runs pass over the key `state`, whose rows are inserted by a statement of their own."""
    state = inspect(FlowRun).all_orm_descriptors["state"]
    if isinstance(state, hybrid_property) and getattr(state, "bulk_dml_setter", None) is None:
        state.bulk_dml_setter = lambda _class, _mapping, _value: None


if __name__ == "__main__":
    pass_over_state()
    sys.argv = ["prefect", "server", *sys.argv[1:]]
    runpy.run_module("prefect", run_name="__main__")
