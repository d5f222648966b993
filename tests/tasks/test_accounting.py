"""What a run is said to have cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scisci.data.module import StoreDataModule
from scisci.data.store import Store
from scisci.tasks.accounting import training_flops
from scisci.tasks.atomistic import AtomisticTask
from scisci.tasks.series import SeriesTask


def test_flops_do_not_depend_on_what_was_drawn_before(series_store: Path) -> None:
    """A patch transformer draws how much of the window it predicts; the drawing goes on as if nothing was counted."""
    task = SeriesTask("patch_encoder", "1k", {"patch": 4}, context=64, horizon=16)
    task.prepare(StoreDataModule(str(series_store)))
    found, draws = set(), []
    for seed in range(4):
        torch.manual_seed(seed)
        found.add(training_flops(task, Store(series_store)))
        draws.append((torch.initial_seed(), float(torch.rand(()))))
    assert len(found) == 1
    for seed, (kept, draw) in enumerate(draws):
        torch.manual_seed(seed)
        assert (kept, draw) == (seed, float(torch.rand(())))


@pytest.mark.parametrize("architecture", ["transformer", "painn"])
def test_flops_of_a_compiled_model_are_those_of_the_model(small_store: Path, architecture: str) -> None:
    """Compiled kernels would escape the count, which is taken of the model as it is written."""
    found = []
    for compiled in (False, True):
        task = AtomisticTask(architecture=architecture, size="3k", compiled=compiled)
        task.prepare(StoreDataModule(str(small_store)))
        found.append(training_flops(task, Store(small_store)))
    assert found[0] == found[1] > 0
