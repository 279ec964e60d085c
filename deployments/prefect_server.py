"""Prefect's server with its scheduler working: `python -m esci_tournament.deployments.prefect_server start ...`.

Prefect 3.8.8 inserts scheduled runs with a key `state`, which SQLAlchemy before 2.1 ignored. SQLAlchemy 2.1 asks the
hybrid property of that name for a setter and refuses the whole statement, so that no schedule ever starts a run while
the server itself goes on. :func:`pass_over_state` gives the property a setter that does nothing.
"""

from __future__ import annotations

import runpy
import sys

from prefect.server.database.orm_models import FlowRun
from sqlalchemy import inspect
from sqlalchemy.ext.hybrid import hybrid_property


def pass_over_state() -> None:
    """Make bulk inserts of flow runs ignore the key `state`; Prefect inserts the states in a separate statement."""
    state = inspect(FlowRun).all_orm_descriptors["state"]
    if isinstance(state, hybrid_property) and getattr(state, "bulk_dml_setter", None) is None:
        state.bulk_dml_setter = lambda _class, _mapping, _value: None


if __name__ == "__main__":
    pass_over_state()
    sys.argv = ["prefect", "server", *sys.argv[1:]]
    runpy.run_module("prefect", run_name="__main__")
