"""Training on point clouds: velocities and parameters, their metrics and symmetry errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from scisci.contracts.errors import UserError
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunResult, RunSpec, TreatmentName
from scisci.data.samples import CloudSample
from scisci.data.statistics import cloud_statistics
from scisci.data.store import Store
from scisci.data.writer import StoreWriter
from scisci.tasks.checkpoints import load_task
from scisci.tasks.clouds import CloudTask
from scisci.tasks.metrics import Accumulator, parameter_errors, velocity_errors
from scisci.tasks.run import execute
from scisci.tasks.symmetry import measured
from scisci.tasks.version import code_version

SIDE, REACH = 60.0, 12.0


def cloud(rng: np.random.Generator) -> CloudSample:
    """Pairs in a periodic box that fall towards each other, further apart the larger `omega_m`."""
    omega_m = rng.uniform(0.1, 0.5)
    middles = rng.uniform(0, SIDE, (25, 3))
    apart = rng.standard_normal((25, 3))
    apart *= 20 * omega_m / np.linalg.norm(apart, axis=1, keepdims=True)
    positions = np.mod(np.concatenate([middles - apart / 2, middles + apart / 2]), SIDE).astype(np.float32)
    pairs = positions[:, None].astype(np.float64) - positions
    pairs -= SIDE * np.rint(pairs / SIDE)
    size = np.linalg.norm(pairs, axis=-1, keepdims=True)
    velocities = -100 * (pairs * np.clip(1 - size / REACH, 0, None)).sum(axis=1)
    return CloudSample(
        positions, np.full(3, SIDE), velocities, omega_m=omega_m, sigma_8=0.6 + 0.8 * omega_m**2 + 0.01 * rng.normal()
    )


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, rng = tmp_path_factory.mktemp("clouds") / "clouds.h5", np.random.default_rng(0)
    with StoreWriter(path, "cloud") as writer:
        for name, count in (("train", 96), ("val", 16), ("test", 32)):
            members = [writer.append(cloud(rng), f"{name} {k}") for k in range(count)]
            writer.split(name, np.array(members), "none", disjoint=name != "train")
    return path


def train(
    store: Path, folder: Path, architecture: str, target: str, steps: int, treatment: TreatmentName = "none"
) -> RunResult:
    return execute(
        RunSpec(
            study="test",
            dataset=str(store),
            fingerprint=Store(store).fingerprint,
            architecture=architecture,
            size="10k",
            treatment=treatment,
            task={"target": target, "cutoff": REACH},
            data=96,
            optimization=OptimizationSpec(steps=steps, learning_rate=0.005, batch_size=8),
            evaluation=EvaluationSpec(splits=("test",), symmetry_samples=4),
            code_version=code_version(),
        ),
        folder,
    )


def test_velocities_are_learned_and_turn_with_the_box(clouds: Path, tmp_path: Path) -> None:
    result = train(clouds, tmp_path, "painn", "velocities", 120)
    metrics = result.splits["test"].metrics
    assert metrics["velocities_r2"].value > 0.8
    assert metrics["velocities_r2"].value == pytest.approx(1 - metrics["velocities_fvu"].value)
    for group in ("rotation", "reflection", "torus", "permutation"):
        assert metrics[f"symmetry_{group}_velocities_float64"].value < 1e-10
    task = load_task(tmp_path)
    assert isinstance(task, CloudTask)
    assert task.targets == ("velocities",)


def test_unconstrained_models_sees_the_axes_but_not_the_place(clouds: Path, tmp_path: Path) -> None:
    metrics = train(clouds, tmp_path, "mpnn", "velocities", 10).splits["test"].metrics
    assert metrics["symmetry_rotation_velocities_float64"].value > 1e-3
    assert metrics["symmetry_torus_velocities_float64"].value < 1e-10


@pytest.mark.parametrize("architecture", ["mpnn", "deepsets"])
def test_frames_make_models_of_clouds_exact_under_turns_of_the_box(
    clouds: Path, tmp_path: Path, architecture: str
) -> None:
    metrics = train(clouds, tmp_path, architecture, "velocities", 5, "frames").splits["test"].metrics
    assert metrics["symmetry_rotation_velocities_float64"].value < 1e-9
    table = measured(str(tmp_path), str(clouds), groups=["rotation"], samples=4, elements=2, dtype="float64")
    assert table[table.statistic == "relative"].value.max() < 1e-9


@pytest.mark.parametrize("treatment", ["penalty", "constraint", "latent"])
@pytest.mark.parametrize("target", ["velocities", "parameters"])
def test_models_of_clouds_take_every_treatment(
    clouds: Path, tmp_path: Path, target: str, treatment: TreatmentName
) -> None:
    assert train(clouds, tmp_path, "mpnn", target, 3, treatment).status == "ok"


def test_models_of_absolute_positions_are_shown_for_what_they_are(clouds: Path, tmp_path: Path) -> None:
    """Where the origin of the box lies and which axis is which mean nothing, but what they see changes with both."""
    metrics = train(clouds, tmp_path, "deepsets", "velocities", 60).splits["test"].metrics
    assert metrics["symmetry_permutation_velocities_float64"].value < 1e-10
    for precision in ("", "_float64"):
        assert metrics[f"symmetry_torus_velocities{precision}"].value > 0.01
    errors = measured(str(tmp_path), str(clouds), groups=["torus", "cubic"], samples=8, elements=2, dtype="float64")
    found = errors[errors.statistic == "relative"].set_index("group").value
    assert found.torus > 0.01
    assert found.cubic > 0.01


def test_parameters_are_learned(clouds: Path, tmp_path: Path) -> None:
    metrics = train(clouds, tmp_path, "schnet", "parameters", 150).splits["test"].metrics
    assert metrics["omega_m_r2"].value > 0.7
    assert metrics["omega_m_mse"].value < 0.02
    assert metrics["symmetry_torus_omega_m_float64"].value < 1e-10


def batch_of(sizes: list[int], rng: np.random.Generator) -> Batch:
    parts = []
    for size in sizes:
        velocities = torch.from_numpy(rng.normal(5, 2, (size, 3)))
        parts.append(Data(velocities=velocities, omega_m=torch.rand(1), sigma_8=torch.rand(1), num_nodes=size))
    batch = Batch.from_data_list(parts)
    batch.group = torch.arange(len(sizes))
    return batch


def test_both_definitions_of_r2_against_numpy() -> None:
    rng = np.random.default_rng(1)
    batch = batch_of([3, 10, 40], rng)
    predicted = batch.velocities + torch.from_numpy(rng.normal(0, 1, batch.velocities.shape))
    accumulator = Accumulator(velocity_errors)
    accumulator.update({"velocities": predicted}, batch)
    found = accumulator.compute()
    missed, spread, own = [], [], []
    for k in range(3):
        true, guess = (v[batch.batch == k].numpy() for v in (batch.velocities, predicted))
        missed.append(((guess - true) ** 2).sum())
        spread.append(((true - true.mean(0)) ** 2).sum())
        own.append(1 - missed[-1] / spread[-1])
    assert found["velocities_r2"].value == pytest.approx(1 - sum(missed) / sum(spread))
    assert found["velocities_r2_mean"].value == pytest.approx(np.mean(own))
    assert found["velocities_mse"].value == pytest.approx(sum(missed) / (3 * 53))


def test_r2_of_parameters_is_about_the_mean_of_the_whole_split() -> None:
    rng = np.random.default_rng(2)
    accumulator, predicted, true = Accumulator(parameter_errors), [], []
    for _ in range(5):
        batch = batch_of([2] * 7, rng)
        guess = {name: batch[name] + 0.1 * torch.randn(7) for name in ("omega_m", "sigma_8")}
        accumulator.update(guess, batch)
        predicted.append(guess["omega_m"].numpy())
        true.append(batch.omega_m.numpy())
    y, f = np.concatenate(true), np.concatenate(predicted)
    found = accumulator.compute()
    expected = 1 - np.square(y - f).sum() / np.square(y - y.mean()).sum()
    assert found["omega_m_r2"].value == pytest.approx(expected, rel=1e-5)
    assert found["omega_m_fvu"].value == pytest.approx(1 - expected, rel=1e-5)
    assert found["omega_m_r2"].se == pytest.approx(found["omega_m_fvu"].se, rel=1e-6)


def test_statistics_are_those_of_the_subset(clouds: Path) -> None:
    store = Store(clouds)
    few = cloud_statistics(store, np.arange(10), REACH, ("omega_m", "velocities"))
    held = store.take(np.arange(10))
    assert few.offsets == {"omega_m": pytest.approx(held.samples["omega_m"].mean())}
    assert few.scales["omega_m"] == pytest.approx(held.samples["omega_m"].std(), rel=1e-5)
    assert few.scales["velocities"] == pytest.approx(np.sqrt(np.square(held.items["velocities"]).mean()), rel=1e-5)


def test_what_the_data_lack_is_named(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "x.h5", "cloud") as writer:
        rng = np.random.default_rng(0)
        members = [writer.append(CloudSample(rng.uniform(0, 9, (5, 3)), np.full(3, 9.0)), str(k)) for k in range(4)]
        writer.split("train", np.array(members), "none")
    with pytest.raises(UserError, match="has no velocities; it has positions, box"):
        cloud_statistics(Store(tmp_path / "x.h5"), np.arange(4), 5.0, ("velocities",))
