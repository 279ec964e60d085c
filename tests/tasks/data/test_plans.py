"""Plans on disk: a worker reads the same rows that were split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.plans import read_plans, read_roles, write_plans
from esci_tournament.tasks.data.split import assign_roles, fit_plans


@pytest.mark.parametrize("mode", ["blend", "kfold"])
def test_plans_and_roles_come_back_in_their_order(mode: str, tiny_dataset: Dataset, tmp_path: Path) -> None:
    roles = assign_roles(tiny_dataset, mode, 0.25, 0.1, 12)  # fold-10 sorts before fold-2 by name, not by order
    plans = fit_plans(tiny_dataset, roles, mode, 0.1)
    write_plans(tmp_path, roles, plans)
    again = read_plans(tmp_path)
    assert [plan.name for plan in again] == [plan.name for plan in plans]
    for read, written in zip(again, plans, strict=True):
        for part in ("fit", "validation", "score"):
            np.testing.assert_array_equal(getattr(read, part), getattr(written, part))
    assert_frame_equal(read_roles(tmp_path), roles)


def test_rows_are_memory_mapped_and_cannot_be_written(tiny_dataset: Dataset, tmp_path: Path) -> None:
    roles = assign_roles(tiny_dataset, "blend", 0.25, 0.1, 2)
    write_plans(tmp_path, roles, fit_plans(tiny_dataset, roles, "blend", 0.1))
    rows = read_plans(tmp_path)[0].fit
    assert isinstance(rows, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 0
