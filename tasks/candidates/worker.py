"""Train, score and profile candidates in a process of its own: `python -m esci_tournament.tasks.candidates.worker JOB`.

A candidate that runs out of memory, crashes or hangs takes this process with it and nothing else. Each line on
standard output is one JSON document for the supervisor: progress, done or failed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

from esci_tournament.registry.children import end_with_parent
from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.scores import ScoreStore
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.stages import StageStore


def main(job_file: str) -> int:
    """Run every step of a job in turn; a step that fails is reported, and the next one runs.

    Args:
        job_file: JSON file with `dataset`, `roles_folder`, `stages` and `scores` (folders), `threads`, and `steps` as
            :func:`run_step` takes them.

    Returns:
        The exit status, 0 even when steps failed.
    """
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    _keep_output_to_ourselves()
    end_with_parent()
    # Whoever ends a whole group or container tells us and our parent at once. It is the parent's to end this process:
    # a death before its own would look like a failure of the candidate.
    for told in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(told, lambda *_: None)
    import torch

    torch.set_num_threads(job["threads"])
    for number, step in enumerate(job["steps"]):
        try:
            run_step(step, job, number)
        except TournamentError as error:
            _say(step=number, failed=str(error))
        except MemoryError:
            _say(step=number, failed="out of memory; choose a smaller batch_size, max_length or model")
        except Exception as error:  # whatever a candidate's code raises is that candidate's failure
            import traceback

            traceback.print_exc()
            _say(step=number, failed=f"{type(error).__name__}: {error}")
        else:
            _say(step=number, done=True)
    return 0


def run_step(step: dict[str, Any], job: dict[str, Any], number: int) -> None:
    """Run one step of one candidate: all the training and scoring it needs, or its profile.

    Args:
        step: `stage`, which is "profile" or stands for training and scoring, and `inputs`, the fields of a
            :class:`~esci_tournament.tasks.candidates.steps.CandidateInputs` as JSON.
        job: The job, as :func:`main` reads it.
        number: Position of the step in the job, from 0, for the progress that is reported.
    """
    from esci_tournament.tasks.candidates.steps import CandidateInputs, Origin, measure, measure_shift, score, train
    from esci_tournament.tasks.data.plans import read_plans
    from esci_tournament.tasks.data.store import open_dataset

    dataset, plans = open_dataset(Path(job["dataset"])), read_plans(Path(job["roles_folder"]))
    stages, scores = StageStore(Path(job["stages"])), ScoreStore(Path(job["scores"]))
    fitted = step["inputs"]["fitted"] and Origin(**step["inputs"]["fitted"])
    inputs = CandidateInputs(**(step["inputs"] | {"spec": parse_spec(step["inputs"]["spec"]), "fitted": fitted}))
    if step["stage"] == "profile":
        measure(inputs, dataset, plans[-1], stages, scores)
        return
    for place, plan in enumerate(plans):

        def progress(share: float, doing: str, place: int = place, name: str = plan.name) -> None:
            _say(step=number, share=0.9 * (place + share) / len(plans), doing=f"{name}: {doing}")

        train(inputs, plan, dataset, stages, progress, scores)
    _say(step=number, share=0.9, doing="scoring")
    score(inputs, plans, dataset, stages, scores)
    measure_shift(inputs, plans, dataset, stages, scores)


_channel: TextIO = sys.stdout


def _keep_output_to_ourselves() -> None:
    """Send what libraries print, from Python or C, to standard error: half a line would corrupt a message."""
    global _channel
    _channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)


def _say(**message: object) -> None:
    _channel.write(json.dumps(message) + "\n")
    _channel.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
