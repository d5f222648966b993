"""Trainings that come to nothing end early; others are left alone, however they look."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from scisci.contracts.errors import UserError
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunResult, RunSpec
from scisci.data.library import open_dataset
from scisci.data.module import StoreDataModule
from scisci.data.statistics import STATISTICS_CLOUDS
from scisci.data.store import Store
from scisci.tasks.base import Task
from scisci.tasks.cli import main
from scisci.tasks.curve import Curve
from scisci.tasks.divergence import Divergence
from scisci.tasks.domains import task_for
from scisci.tasks.run import TRAINER_DEFAULTS, execute, quiet
from scisci.tasks.version import code_version


def validated(store: Path | str, samples: int | None = None, **options: Any) -> tuple[Task, Any]:
    """An untrained task that was validated on `val`, or the first samples of it, in one batch, and that batch."""
    quiet()
    data = StoreDataModule(str(store), eval_batch_size=1000, val_samples=samples)
    task = task_for(data.store.domain)(symmetry_samples=0, **options)
    task.prepare(data)
    L.Trainer(**TRAINER_DEFAULTS, accelerator="cpu", logger=False, inference_mode=False).validate(
        task, data, verbose=False
    )
    (batch,) = data.val_dataloader()
    return task, batch


def test_no_forces_and_reference_energies_are_the_constant_of_atoms(crystals: Path) -> None:
    task, _ = validated(crystals, architecture="mpnn", size="3k", stress_weight=100.0)
    store = Store(crystals)
    found, reference = store.take(store.split("val").indices()), store.references["energy"]
    per_atom = [
        abs(energy - reference[found.items["numbers"][a:b]].sum()) / (b - a)
        for energy, a, b in zip(found.samples["energy"], found.offsets[:-1], found.offsets[1:], strict=True)
    ]
    forces = np.linalg.norm(found.items["forces"].astype(float), axis=1)
    stress = np.abs(found.samples["stress"].astype(float))
    expected = 10 * np.mean(per_atom) + 10 * forces.mean() + 100 * stress.mean()
    assert task.constant_loss == pytest.approx(expected, rel=1e-5)


def test_staying_in_place_is_the_constant_of_particles(particle_store: Path) -> None:
    task, batch = validated(particle_store, size="3k")
    train = Store(particle_store)
    items = train.take(train.split("train").indices()).items
    scale = np.square((items["target_positions"] - items["positions"]).astype(float)).mean()
    moved = (batch.target_positions - batch.pos).double().numpy()
    assert task.constant_loss == pytest.approx(np.square(moved).mean() / scale, rel=1e-5)


@pytest.mark.parametrize("target", ["velocities", "parameters"])
def test_the_mean_is_the_constant_of_clouds(target: str) -> None:
    task, batch = validated("pm-halos", 8, size="3k", target=target, cutoff=5.0)
    names = ["velocities"] if target == "velocities" else ["omega_m", "sigma_8"]
    store = open_dataset("pm-halos")
    train = store.take(store.split("train").indices(STATISTICS_CLOUDS))
    expected = []
    for name in names:
        labels = (train.items if name in train.items else train.samples)[name].astype(float)
        mean = 0.0 if name == "velocities" else labels.mean()
        missed = batch[name].double().numpy() - mean
        expected.append(np.square(missed).mean() / np.square(labels - mean).mean())
    assert task.constant_loss == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize("architecture", ["dlinear", "tcn"])
def test_the_context_is_the_constant_of_series(series_store: Path, architecture: str) -> None:
    size = {"dlinear": "linear", "tcn": "1k"}[architecture]
    task, batch = validated(series_store, architecture=architecture, size=size, context=48, horizon=12)
    losses = []
    for window in zip(batch.past, batch.past_observed, batch.future, batch.future_observed, strict=True):
        past, seen, future, known = (part.numpy() for part in window)
        for channel in range(len(past)):
            context = past[channel][seen[channel]].astype(float)
            if not len(context):
                continue
            z = (future[channel][known[channel]] - context.mean()) / context.std()
            huber = np.where(np.abs(z) < 2, z**2 / 2, 2 * (np.abs(z) - 1))
            losses.append(huber if architecture == "dlinear" else -norm.logpdf(z))
    expected = np.concatenate(losses).mean()
    assert task.constant_loss == pytest.approx(expected, rel=1e-4)
    worse = {"dlinear": 3.0, "tcn": np.exp(2 * expected)}[architecture]
    assert task.relative_loss(3 * expected, expected) == pytest.approx(worse)


def spec(store: Path, architecture: str, rate: float, bound: float | None = 10.0, steps: int = 60) -> RunSpec:
    return RunSpec(
        study="test",
        dataset=str(store),
        fingerprint=Store(store).fingerprint,
        architecture=architecture,
        size="3k",
        data=96,
        optimization=OptimizationSpec(steps=steps, learning_rate=rate, divergence_bound=bound, batch_size=16),
        evaluation=EvaluationSpec(splits=("test",), symmetry_samples=0),
        code_version=code_version(),
    )


def trained(folder: Path, run: RunSpec) -> tuple[RunResult, int]:
    """Its result, and after how many steps it ended."""
    result = execute(run, folder)
    return result, int(pd.read_parquet(folder / "curve.parquet")["step"].max())


@pytest.mark.parametrize("architecture", ["painn", "escaip", "nequip"])
def test_rates_that_are_far_too_high_end_early(particle_store: Path, tmp_path: Path, architecture: str) -> None:
    result, steps = trained(tmp_path, spec(particle_store, architecture, 0.3))
    assert result.status == "diverged"
    assert steps < 60
    assert result.samples_seen == 16 * steps
    told = [float(word) for word in result.reason.replace(",", "").split() if word[0].isdigit()]
    first, last, at, constant = told
    assert at == steps
    assert last > 10 * max(first, constant)


@pytest.mark.parametrize("architecture", ["nequip", "schnet"])
def test_models_that_start_far_off_are_left_alone(particle_store: Path, tmp_path: Path, architecture: str) -> None:
    """Charged particles that are close make the first losses of some models hundreds of times the constant's."""
    result, steps = trained(tmp_path, spec(particle_store, architecture, 0.003))
    assert (result.status, steps) == ("ok", 60)


def ended(losses: list[float], constant: float, steps: int) -> str | None:
    """How a training with these losses so far ends at the validation after them."""
    curve = Curve()
    curve.rows = [{"step": k + 1, "train/loss": loss} for k, loss in enumerate(losses)]
    task = SimpleNamespace(
        constant_loss=constant, diverged=None, hparams={"warmup": 0.1}, relative_loss=lambda loss, one: loss / one
    )
    trainer = SimpleNamespace(estimated_stepping_batches=steps, training=True, should_stop=False)
    Divergence(curve, 10.0).on_validation_end(cast(L.Trainer, trainer), cast(L.LightningModule, task))
    assert trainer.should_stop == (task.diverged is not None)
    return task.diverged


@given(st.data())
def test_single_batches_decide_nothing(data: st.DataObject) -> None:
    """As long as most of the last tenth of the losses are within the bound, whatever the others are."""
    steps = data.draw(st.integers(100, 150))
    losses = data.draw(st.lists(st.floats(0.5, 9.9), min_size=steps, max_size=steps))
    window = range(steps - steps // 10, steps)
    wild = data.draw(st.sets(st.sampled_from(window), max_size=(len(window) - 1) // 2))
    spiked = [1e30 if k in wild or (k < steps - len(window) and k % 3 == 0) else loss for k, loss in enumerate(losses)]
    assert ended(spiked, 1.0, steps) is None
    assert ended([1.0] * (steps - len(window)) + [10.1] * len(window), 1.0, steps) is not None


@pytest.mark.parametrize(
    ("losses", "constant", "steps", "ends"),
    [
        ([1.0] * 20 + [11.0] * 10, 1.0, 100, True),
        ([1.0] * 20 + [11.0] * 9, 1.0, 100, False),  # the first fifth is not looked at
        ([2.0] * 20 + [11.0] * 10, 1.0, 100, False),  # it began worse than a constant
        ([1.0] * 20 + [11.0] * 10, 2.0, 100, False),
        ([1e5] * 100, 1.0, 100, False),
        ([1.0, 1.0, 1e3, 1e3, 1e3], 1.0, 5, False),  # too short to tell
    ],
)
def test_what_ends(losses: list[float], constant: float, steps: int, ends: bool) -> None:
    assert (ended(losses, constant, steps) is not None) == ends


def test_the_bound_is_an_option_of_fit(particle_store: Path, tmp_path: Path) -> None:
    options = [
        *("fit", f"--data.dataset={particle_store}", "--model.architecture=escaip", "--model.size=3k"),
        *(
            "--model.learning_rate=0.3",
            "--model.symmetry_samples=0",
            "--trainer.max_steps=40",
            "--trainer.val_check_interval=10",
        ),
        "--trainer.enable_progress_bar=false",
    ]
    with pytest.raises(UserError, match=r"the run diverged: the loss rose from .* and a constant prediction has"):
        main([*options, f"--runs={tmp_path / 'a'}"])
    main([*options, f"--runs={tmp_path / 'b'}", "--divergence_bound=null"])
    steps = [pd.read_parquet(next((tmp_path / runs).glob("*/curve.parquet")))["step"].max() for runs in "ab"]
    assert steps[0] < steps[1] == 40
    with pytest.raises(UserError, match=r"divergence_bound is 0\.5, but must be above 1"):
        main([*options, f"--runs={tmp_path / 'c'}", "--divergence_bound=0.5"])
    assert not (tmp_path / "c").exists()


def test_runs_keep_the_names_they_had_before_there_was_a_bound(particle_store: Path) -> None:
    one = spec(particle_store, "egnn", 0.3)
    asked = one.model_dump(mode="json")
    del asked["optimization"]["divergence_bound"]
    assert RunSpec.model_validate(asked).run == one.run
    assert len({one.run, *(spec(particle_store, "egnn", 0.3, bound=b).run for b in (None, 20.0))}) == 3
