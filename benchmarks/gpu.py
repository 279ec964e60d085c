"""What needs a GPU to be true: training, costs, precision, replicas that share a card, and a card that is full.

It needs a checkout, PyTorch for the card, transformers, torch-geometric, pandas, pyarrow, scikit-learn, numba, psutil
and rich, and neither MLflow nor Prefect nor a database. For a machine without a network bring the packages that
`--wheels` prints, and a wheel of this one, all small:

    python -m pip wheel --no-deps . $(python -m benchmarks.gpu --wheels) --wheel-dir wheels        # here
    python -m pip install --no-index --no-deps --target site wheels/*.whl                          # there
    PYTHONPATH=site python -m benchmarks.gpu [--data DIR] [--checkpoint DIR] [--only costs serving] [--json]

Data are a generated world, or those of a folder with the official file names. The smaller encoder has the size of
MiniLM-L6 and random weights, or those of a checkpoint. On a machine without a GPU everything that can run does, on the
CPU, and figures of the card's memory are missing. Each part runs in a process of its own and prints its figures as soon
as it has them; a part that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.harness import Figure, arguments, report, say

WHEELS = (
    "lightgbm", "pydantic", "pydantic-core", "annotated-types", "pydantic-settings", "python-dotenv", "orjson",
    "cloudpickle", "typing-inspection",
)  # fmt: skip
PARTS = ("training", "costs", "serving", "faults")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 when every part has run and every target is met, else 1."""
    own, rest = _own_options().parse_known_args(sys.argv[1:] if argv is None else argv)
    options = arguments("gpu", f"{__doc__}\n{_own_options().format_usage()}", rest)
    if own.wheels:
        print("\n".join(WHEELS))
        return 0
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        figures, failed = measure(Path(name), own, options.quick, options.seed)
    from esci_tournament.tasks.candidates.device import device_name, resolve_device

    report(f"gpu, {device_name(resolve_device(own.device))}", figures, options.json)
    return 0 if not failed and (options.quick or all(each.met is not False for each in figures)) else 1


def measure(folder: Path, own: argparse.Namespace, quick: bool, seed: int) -> tuple[list[Figure], bool]:
    """Return the figures of all parts, and whether one of them failed."""
    from benchmarks.accelerator import card, costs, faults, ground, serving, training
    from esci_tournament.tasks.candidates.device import device_name, resolve_device

    began, figures, failed = time.monotonic(), list[Figure](), False
    say(f"{device_name(resolve_device(own.device))}, driver {card.driver() or 'none'}, {card.total_mib():.0f} MiB")
    world = card.apart(
        partial(ground.prepare, folder, ground.QUICK if quick else ground.FULL, own.device, own.data, own.checkpoint,
                seed)
    )  # fmt: skip
    say(f"{time.monotonic() - began:.0f} s: fitted {card.apart(partial(ground.fit_models, world))}")
    known: dict[str, costs.OnCard] = {}

    def of_costs() -> list[Figure]:
        found, by_name = costs.measure(world)
        known.update(by_name)
        return found

    def of_serving() -> list[Figure]:
        if world.on_card and not known:
            of_costs()
        return list(card.apart(partial(serving.measure, world, known)))

    def of_faults() -> list[Figure]:
        ensemble = world.folder / "ensemble"
        if not ensemble.is_dir():
            serving.write_ensemble(world)
        in_process = card.apart(partial(faults.in_process, world))
        return [*in_process, *card.apart(partial(faults.in_replicas, world, ensemble))]

    parts: dict[str, Callable[[], list[Figure]]] = {
        "training": lambda: list(card.apart(partial(training.measure, world))),
        "costs": of_costs, "serving": of_serving, "faults": of_faults,
    }  # fmt: skip
    for part in own.only:
        try:
            found = parts[part]()
        except Exception:
            say(f"{part} failed:\n{traceback.format_exc()}")
            failed = True
            continue
        figures += found
        say(f"{time.monotonic() - began:.0f} s: {part}\n" + "\n".join(json.dumps(asdict(one)) for one in found))
    return figures, failed


def _own_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", add_help=False)
    parser.add_argument("--device", default="auto", help="auto (the first GPU, else the CPU), cpu or cuda:0")
    parser.add_argument("--data", type=Path, help="folder with the official file names; default: a generated world")
    parser.add_argument("--checkpoint", type=Path, help="Hugging Face folder; default: a new BERT")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--wheels", action="store_true", help="print which packages to bring, and do nothing else")
    return parser


if __name__ == "__main__":
    sys.exit(main())
