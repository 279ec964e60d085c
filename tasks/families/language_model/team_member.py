"""One of the processes that train a language model together: `python -m ...language_model.team_member JOB`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from esci_tournament.registry.children import end_with_parent
from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.specs import parse_spec
from esci_tournament.tasks.data.store import read_frame
from esci_tournament.tasks.families.language_model.model import LanguageModel
from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec
from esci_tournament.tasks.families.language_model.team import Team
from esci_tournament.tasks.families.language_model.together import FRAMES
from esci_tournament.tasks.families.protocol import FitData


def main(job_folder: str) -> int:
    """Run one process of the team: fit, and save the model if it is the main process. RANK tells which one it is.

    Args:
        job_folder: holds job.json and the frames; gets `model/`, or failure-RANK.txt with the reason.

    Returns:
        The exit status: 1 after one of our errors, else 0.
    """
    job, rank = Path(job_folder), int(os.environ["RANK"])
    told = json.loads((job / "job.json").read_text(encoding="utf-8"))
    end_with_parent()
    device = told["devices"][rank]
    if device == "cpu":
        torch.set_num_threads(told["threads"])
    else:
        torch.cuda.set_device(device)
    spec = parse_spec(told["spec"])
    assert isinstance(spec, LanguageModelSpec)
    data = FitData(
        **{name: read_frame(job / f"{name}.arrow") for name in FRAMES}, edges=None, seed=told["seed"], device=device,
        work=job.parent, progress=_say,
    )  # fmt: skip
    try:
        team = Team.join(device == "cpu", data.seed)
        LanguageModel.checkpoint_seconds = told["checkpoint_seconds"]
        model = LanguageModel(spec).fit_in_team(data, team)
        if team.rank == 0:
            model.save(job / "model")
        team.wait()
    except TournamentError as error:
        (job / f"failure-{rank}.txt").write_text(str(error), encoding="utf-8")
        return 1
    return 0


def _say(share: float, doing: str) -> None:
    print(json.dumps({"share": share, "doing": doing}), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
