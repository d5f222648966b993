"""A run that was interrupted ends as it would have: the same weights, curve and result, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scisci.data.sampling import TrainingBatches
from scisci.tasks.cli import main

STEPS = 13


class Killed(Exception):
    """Stands for the end of the process: nothing but what is on disk survives it."""


def fit(store: Path, runs: Path, *options: str) -> Path:
    main(
        [
            "fit",
            f"--data.dataset={store}",
            f"--runs={runs}",
            "--data.train_samples=40",
            "--data.val_samples=8",
            "--data.test_samples=8",
            f"--trainer.max_steps={STEPS}",
            "--trainer.val_check_interval=2",
            "--trainer.enable_progress_bar=false",
            *options,
        ]
    )
    (folder,) = runs.iterdir()
    return folder


def outcome(run: Path) -> dict[str, Any]:
    result = json.loads((run / "result.json").read_text())
    for name in ("run", "seconds", "training_seconds", "peak_memory", "shared"):
        del result[name]
    return result


def assert_same(run: Path, other: Path) -> None:
    assert (run / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(run / "curve.parquet"), pd.read_parquet(other / "curve.parquet"))
    assert outcome(run) == outcome(other)


def killed_at(batch: int, store: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Path:
    """A run whose process ends before it has trained on its batch of this number."""
    turn = TrainingBatches.turn
    turns: list[None] = []

    def mortal(self: TrainingBatches) -> Any:
        turns.append(None)
        if len(turns) > batch:
            raise Killed
        return turn(self)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingBatches, "turn", mortal)
        with pytest.raises(Killed):
            fit(store, runs, *options)
    (folder,) = runs.iterdir()
    assert not (folder / "result.json").exists()
    return folder


MODEL = ("--model.architecture=mpnn", "--model.size=3k", "--model.symmetry_samples=0")
PLAIN = (*MODEL, "--data.batch_size=8")
# Five batches an epoch: a checkpoint after 2 lies within the first, one after 10 at the end of the second.
CASES = {
    "within the first epoch": (3, PLAIN),
    "within the second epoch": (9, PLAIN),
    "at the end of an epoch": (10, PLAIN),
    "after the end of an epoch": (11, PLAIN),
    "twice the samples": (7, (*PLAIN, "--trainer.accumulate_grad_batches=2", "--data.batch_size=4")),
    "batches with a cap": (7, (*MODEL, "--data.max_points=100")),
    "loader workers": (9, (*MODEL, "--data.max_edges=1500", "--data.num_workers=2")),
    "augmentation": (7, (*PLAIN, "--model.symmetry_treatment=augmentation")),
    "penalty": (7, (*PLAIN, "--model.symmetry_treatment=penalty")),
}


@pytest.mark.parametrize("case", CASES)
def test_interrupted_run_ends_as_if_it_had_not_been(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    batch, options = CASES[case]
    whole = fit(small_store, tmp_path / "whole", *options)
    part = killed_at(batch, small_store, tmp_path / "part", monkeypatch, *options)
    main(["fit", f"--run={part}"])
    assert_same(whole, part)
