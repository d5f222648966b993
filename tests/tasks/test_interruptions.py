"""A run that is interrupted, or has its batches in parts, ends as it would have; what it cannot go on from is said."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from scisci.contracts.errors import UserError
from scisci.contracts.run import RunResult, RunSpec
from scisci.data.sampling import TrainingBatches, equal_batches
from scisci.sweep.attempt import Destination, Job, attempt
from scisci.sweep.plan import Cell
from scisci.sweep.records import Records
from scisci.sweep.resources import Needs
from scisci.tasks import run

from .test_run import spec_for

# A rate that ruins a trained model: the best weights are early ones, which have to outlive an interruption.
RUINOUS = {"steps": 24, "validations": 12, "learning_rate": 0.1, "schedule": "constant", "data": 40}


class Killed(BaseException):
    """Stands for the end of the process: nothing but what is on disk survives it."""


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int, work: Callable[[], Any]) -> None:
    """Do what is to be done until so many batches were trained on."""
    turn, turns = TrainingBatches.turn, []

    def mortal(self: TrainingBatches) -> Any:
        turns.append(None)
        if len(turns) > after:
            raise Killed
        return turn(self)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(TrainingBatches, "turn", mortal)
        work()


def execute(spec: RunSpec, folder: Path, accumulation: int = 1) -> RunResult:
    """As in a sweep, but with a checkpoint at every validation."""
    folder.mkdir(exist_ok=True)
    return run.execute(spec, folder, accumulation=accumulation, keep_seconds=0)


def outcome(result: RunResult) -> dict[str, Any]:
    return result.model_dump(exclude={"seconds", "training_seconds", "peak_memory", "notes", "shared"})


def assert_same(one: Path, other: Path) -> None:
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(one / "curve.parquet"), pd.read_parquet(other / "curve.parquet"))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    spec = spec_for(small_store, "mpnn", **RUINOUS)
    whole = execute(spec, tmp_path / "whole", accumulation)
    assert whole.best_step < 20
    begun = tmp_path / "begun"
    interrupted(monkeypatch, 21 * accumulation, lambda: execute(spec, begun, accumulation))
    assert not (begun / "model.safetensors").exists()
    part = shutil.copytree(begun, tmp_path / "moved", ignore=shutil.ignore_patterns("tmp*"))
    shutil.rmtree(begun)
    counted: list[None] = []
    turn = TrainingBatches.turn
    monkeypatch.setattr(TrainingBatches, "turn", lambda self: (counted.append(None), turn(self))[1])
    again = execute(spec, part, accumulation)
    assert len(counted) == 4 * accumulation, "it goes on from the validation at step 20"
    assert outcome(again) == outcome(whole)
    assert again.notes == ()
    assert again.seconds > again.training_seconds
    assert_same(tmp_path / "whole", part)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def altered(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def test_a_damaged_checkpoint_is_not_fatal(small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_for(small_store, "mpnn", steps=6, validations=3)
    whole = execute(spec, tmp_path / "whole")
    interrupted(monkeypatch, 4, lambda: execute(spec, tmp_path / "part"))
    for damage in (truncated, altered, empty):
        part = tmp_path / damage.__name__
        part.mkdir()
        shutil.copy(tmp_path / "part" / "last.ckpt", part)
        damage(part / "last.ckpt")
        again = execute(spec, part)
        assert outcome(again) == outcome(whole)
        (note,) = again.notes
        assert note == "began anew, since the checkpoint of an interrupted attempt cannot be used: it is damaged"
        assert_same(tmp_path / "whole", part)


def test_a_foreign_checkpoint_is_not_gone_on_from(small_store: Path, tmp_path: Path) -> None:
    spec, other = (spec_for(small_store, "mpnn", steps=4, validations=2, seed=seed) for seed in (1, 2))
    whole = execute(spec, tmp_path / "whole")
    execute(other, tmp_path / "other")
    for name, accumulation in (("other", 1), ("whole", 2)):
        folder = tmp_path / f"{name} {accumulation}"
        folder.mkdir()
        shutil.copy(tmp_path / name / "last.ckpt", folder)
        again = execute(spec, folder, accumulation)
        assert "cannot be used: made by" in again.notes[0]
        assert again.samples_seen == whole.samples_seen


def test_short_runs_keep_no_checkpoint(small_store: Path, tmp_path: Path) -> None:
    run.execute(spec_for(small_store, "mpnn", steps=6, validations=6), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("config.yaml", "curve.parquet", "model.json", "model.safetensors")
    }


def test_a_sweep_takes_a_lost_run_up_where_it_was(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_for(small_store, "mpnn", steps=6, validations=6)
    execute(spec, tmp_path / "whole")
    job, records = Job(Cell("mpnn", "3k"), spec), Records(tmp_path)
    once = functools.partial(attempt, Destination(tmp_path, "atoms", f"{__name__}:execute"), job, Needs())
    interrupted(monkeypatch, 4, once)
    assert (records.partial(spec.run) / "last.ckpt").exists()
    assert records.result(spec.run) is None
    interrupted(monkeypatch, 1, once)
    result = once().result
    assert (result.status, result.notes) == ("ok", ())
    assert_same(tmp_path / "whole", records.path(spec.run))
    assert {path.name for path in records.path(spec.run).iterdir()} == {
        *("spec.json", "result.json", "config.yaml", "curve.parquet", "model.json", "model.safetensors")
    }


@pytest.mark.parametrize("batch_size", [8, 7])
def test_batches_in_parts_train_what_whole_ones_do(small_store: Path, tmp_path: Path, batch_size: int) -> None:
    """EGNN's forces are gradients, and molecules differ in size: parts weigh unequally in means over atoms."""
    spec = spec_for(small_store, "egnn", batch_size=batch_size)
    whole, parts = (execute(spec, tmp_path / str(n), accumulation=n) for n in (1, 2))
    assert (whole.accumulation, parts.accumulation) == (1, 2)
    curve, found = (pd.read_parquet(tmp_path / str(n) / "curve.parquet") for n in (1, 2))
    pd.testing.assert_frame_equal(curve, found, rtol=1e-4)
    weights, others = (load_file(tmp_path / str(n) / "model.safetensors") for n in (1, 2))
    for name, values in weights.items():
        np.testing.assert_allclose(others[name], values, rtol=1e-2, atol=1e-4)
    assert parts.samples_seen == whole.samples_seen == 20 * batch_size
    for name, metric in whole.splits["test"].metrics.items():
        if not name.startswith("symmetry"):
            assert parts.splits["test"].metrics[name].value == pytest.approx(metric.value, rel=1e-3)


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 6))
def test_steps_are_the_same_however_they_are_divided(samples: int, step: int, share: int) -> None:
    whole, parts = equal_batches(samples, step, 1), equal_batches(samples, step, share)
    assert parts[::share].tolist() == whole.tolist()
    assert len(whole) == max(1, samples // step) + 1
    for first, last in zip(whole[:-1], whole[1:], strict=True):
        sizes = np.diff(parts[(parts >= first) & (parts <= last)]) if share <= last - first else [1]
        assert max(sizes) - min(sizes) <= 1


def test_steps_too_small_to_be_divided_are_refused() -> None:
    with pytest.raises(UserError, match="steps of 3 samples cannot be divided into 2 devices x 2"):
        TrainingBatches(np.ones(9), 16, 0, processes=2, accumulate=2, step_size=3)
