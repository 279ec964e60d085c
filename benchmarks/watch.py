"""Time to look for new candidates in a registry of many versions.

An MLflow registry on SQLite is filled with versions that have entered before. Timed in one process: a look when nothing
is new, when a version was registered, when an old version was tagged, and a look at everything. The baseline is to list
all versions.

    python -m benchmarks.watch [--quick] [--json]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness import Figure, arguments, figure, report, say
from esci_tournament.registry.models import Models
from esci_tournament.registry.poll import Poll
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.versions import SPEC_TAG

VERSIONS, VERSIONS_A_MODEL = 10_000, 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    options = arguments("watch", __doc__, argv)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), 500 if options.quick else VERSIONS, 5 if options.quick else 21)
    report("watch", figures, options.json)
    return 0


def measure(home: Path, versions: int, runs: int) -> list[Figure]:
    """Return the figures of a registry with so many versions."""
    models = Models(f"sqlite:///{home / 'mlflow.db'}", home)
    say(f"making {versions} versions")
    fill(models, versions)
    poll = Poll(models)
    everything = seconds(poll.look, 1, expect=versions)[0]
    quiet = seconds(poll.look, runs, expect=0)
    client = models.tracking.client
    new, late = [], []
    for number in range(max(3, runs // 4)):
        spec = parse_spec({"name": f"new-{number}", "family": "graph_network", "architecture": "gcn"})
        models.register_candidate(spec)
        new += seconds(poll.look, 1, expect=1)
        client.create_registered_model(f"late-{number}")
        client.create_model_version(f"late-{number}", "file:///nowhere")
        if poll.look():
            raise AssertionError("a version without a spec was taken for a candidate")
        client.set_model_version_tag(f"late-{number}", "1", SPEC_TAG, spec.model_dump_json())
        late += seconds(poll.look, 1, expect=1)
    return [
        figure("versions registered", versions, "versions", f">= {VERSIONS}"),
        figure("look, nothing new: median", 1000 * np.median(quiet), "ms", "<= 100", "all versions", 1000 * everything),
        figure("look, nothing new: worst", 1000 * max(quiet), "ms"),
        figure("look, one registered: median", 1000 * np.median(new), "ms"),
        figure("look, one tagged late: median", 1000 * np.median(late), "ms"),
        figure("look at everything", everything, "s"),
    ]


def seconds(look: Callable[[], Sequence[object]], runs: int, expect: int) -> list[float]:
    """Return the wall times of looks, each of which must see so many versions."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        found = look()
        times.append(time.perf_counter() - start)
        if len(found) != expect:
            raise AssertionError(f"a look saw {len(found)} versions, not {expect}")
    return times


def fill(models: Models, versions: int) -> None:
    """Write versions that have entered before into MLflow's own tables; through its client it would take minutes."""
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlModelVersionTag, SqlRegisteredModel
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    models.champion()  # the schema
    with SqlAlchemyStore(models.tracking_uri).ManagedSessionMaker() as session:
        for number in range(versions // VERSIONS_A_MODEL):
            name = f"model-{number}"
            session.add(SqlRegisteredModel(name=name, creation_time=number, last_updated_time=number))
        session.flush()
        for number in range(versions):
            name, version = f"model-{number // VERSIONS_A_MODEL}", number % VERSIONS_A_MODEL + 1
            content = {"name": name, "family": "graph_network", "architecture": "gcn", "seed": number}
            tags = {
                SPEC_TAG: json.dumps(content), "tournament.state": "benched", "tournament.family": "graph_network",
                "tournament.digest": f"{number:064x}", "tournament.entered": "2026-01-01T00:00:00",
            }  # fmt: skip
            session.add(
                SqlModelVersion(
                    name=name, version=version, creation_time=number, last_updated_time=number, current_stage="None",
                    status="READY", source="file:///nowhere", run_id=f"{number:032x}",
                )
            )  # fmt: skip
            for key, value in tags.items():
                session.add(SqlModelVersionTag(name=name, version=version, key=key, value=value))


if __name__ == "__main__":
    sys.exit(main())
