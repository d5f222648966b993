"""Symmetry treatments: each against what it must be, through the same commands and records as plain training."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.fd import calculate_numerical_forces
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch.utils.data import DataLoader

from scisci.contracts.errors import UserError
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunResult, RunSpec
from scisci.data.batch import graph_batch
from scisci.data.library import open_dataset
from scisci.data.module import StoreDataModule
from scisci.data.store import Store
from scisci.models import registry
from scisci.models.blocks.graph import Inputs
from scisci.models.conformance.systems import batch_of
from scisci.models.potential import Potential
from scisci.sweep.planning import make_plan
from scisci.sweep.study import Study
from scisci.symmetry.actions import act
from scisci.symmetry.groups import GROUPS
from scisci.symmetry.measure import symmetry_errors
from scisci.tasks.accounting import training_flops
from scisci.tasks.atomistic import AtomisticTask
from scisci.tasks.calculator import ScisciCalculator
from scisci.tasks.checkpoints import load_model, load_task
from scisci.tasks.cli import main
from scisci.tasks.curve import Curve
from scisci.tasks.particles import ParticleTask
from scisci.tasks.run import execute
from scisci.tasks.symmetry import measured
from scisci.tasks.treatments import TREATMENTS, Constrained, Latent, latent, latent_error
from scisci.tasks.trees import TreeTask
from scisci.tasks.version import code_version

ADAPTED = ("penalty", "constraint", "latent")


def run(store: Path, folder: Path, treatment: str, steps: int, architecture: str = "mpnn", **task: Any) -> RunResult:
    spec = RunSpec(
        study="test",
        dataset=str(store),
        fingerprint=open_dataset(store).fingerprint,
        architecture=architecture,
        size="3k",
        treatment=treatment,  # type: ignore[arg-type]
        task=task,
        data=16,
        optimization=OptimizationSpec(steps=steps, learning_rate=0.02, batch_size=8, validations=2),
        evaluation=EvaluationSpec(splits=("test",), symmetry_samples=16),
        code_version=code_version(),
    )
    return execute(spec, folder)


def prepared(store: Path, treatment: str, architecture: str = "mpnn", **options: Any) -> AtomisticTask:
    """A task with its model and treatment, from a fixed random state."""
    L.seed_everything(5, verbose=False)
    task = AtomisticTask(architecture, "3k", symmetry_treatment=treatment, **options)  # type: ignore[arg-type]
    task.prepare(StoreDataModule(str(store), train_samples=32))
    return task.train()


def batch(store: Path, count: int = 8) -> Any:
    data = Store(store)
    return graph_batch(data.take(data.split("train").indices(count)), 5.0)


@pytest.fixture(scope="module")
def framed_run(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a transformer under frames."""
    runs = tmp_path_factory.mktemp("framed")
    main(
        [
            *("fit", f"--data.dataset={small_store}", f"--runs={runs}", "--model.architecture=transformer"),
            *("--model.size=3k", "--model.symmetry_treatment=frames", "--trainer.max_steps=20"),
            *("--trainer.val_check_interval=10", "--trainer.enable_progress_bar=false"),
        ]
    )
    (folder,) = runs.iterdir()
    return folder


def turned(atoms: Atoms, seed: int) -> tuple[Atoms, np.ndarray]:
    matrix = Rotation.random(rng=seed).as_matrix()
    return Atoms(atoms.numbers, atoms.positions @ matrix.T), matrix


def test_frames_make_a_trained_potential_exact_wherever_it_is_used(framed_run: Path) -> None:
    """Through run directory, weights and checkpoint; forces are the derivative of the energy by finite differences."""
    rng = np.random.default_rng(0)
    atoms = molecule("CH3CH2OH")
    atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    for path in (framed_run, framed_run / "model.safetensors", framed_run / "checkpoints" / "best.ckpt"):
        assert load_model(path).symmetry["rotation"] == "exact"
        atoms.calc = ScisciCalculator(path, dtype="float64")
        forces = atoms.get_forces()
        for seed in range(4):
            other, matrix = turned(atoms, seed)
            other.calc = atoms.calc
            np.testing.assert_allclose(other.get_forces(), forces @ matrix.T, atol=1e-9 * np.abs(forces).max())
            assert other.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        np.testing.assert_allclose(calculate_numerical_forces(atoms, eps=1e-4), forces, atol=1e-5)


def test_frames_are_measured_as_exact(framed_run: Path, small_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = RunResult.model_validate_json((framed_run / "result.json").read_text())
    metrics = result.splits["test"].metrics
    assert metrics["symmetry_rotation_forces"].value < 1e-4
    assert metrics["symmetry_rotation_forces_float64"].value < 1e-10 < metrics["symmetry_reflection_forces"].value
    main(["test", "--run", str(framed_run), "--trainer.enable_progress_bar=false"])
    assert f"{metrics['force_mae'].value:.4g}" in capsys.readouterr().out
    table = measured(str(framed_run), str(small_store), groups=["rotation"], samples=8, elements=2, dtype="float64")
    assert table[table.statistic == "worst"].value.max() < 1e-10


@pytest.mark.parametrize("options", [{"forces": "direct"}, {"symmetry_options": {"group": "rotation+reflection"}}])
def test_frames_of_direct_forces_and_of_reflections(small_store: Path, tmp_path: Path, options: Any) -> None:
    metrics = run(small_store, tmp_path, "frames", 5, **options).splits["test"].metrics
    groups = ["rotation"] if "forces" in options else ["rotation", "reflection"]
    assert max(metrics[f"symmetry_{group}_forces_float64"].value for group in groups) < 1e-10
    assert load_model(tmp_path).symmetry["reflection"] == ("none" if "forces" in options else "exact")


def test_frames_of_particles_see_velocities(particle_store: Path, tmp_path: Path) -> None:
    result = run(particle_store, tmp_path, "frames", 10)
    assert result.splits["test"].metrics["symmetry_rotation_positions_float64"].value < 1e-10
    task = load_task(tmp_path)
    assert isinstance(task, ParticleTask)
    assert task.model.vectors == ("velocities",)
    plain = run(particle_store, tmp_path, "none", 10)
    assert plain.params == result.params
    assert plain.splits["test"].metrics["symmetry_rotation_positions_float64"].value > 1e-3


@pytest.mark.parametrize("treatment", ADAPTED)
def test_particles_take_every_treatment(particle_store: Path, tmp_path: Path, treatment: str) -> None:
    options = {"group": "rotation+reflection"}
    assert run(particle_store, tmp_path, treatment, 4, symmetry_options=options).status == "ok"


def test_penalty_of_an_equivariant_model_is_zero(small_store: Path) -> None:
    """The same treatment sees no error in PaiNN, and one in the unconstrained model that the task trains."""
    task, samples = prepared(small_store, "penalty"), batch(small_store)
    statistics = task.statistics
    backbone = registry.build("painn", Inputs(statistics.elements), 7.0, **registry.options("painn", "3k"))
    exact = Potential(backbone, statistics.energy_references, statistics.energy_scale).train()
    found = []
    for model in (exact, task.model):
        # Outputs as large as labels, as of trained models.
        model.readout[2].weight.data.mul_(100)
        plain = task.loss(model(samples), samples)
        found.append(float(((task.treated(model, samples) - plain) / plain).detach()))
    assert abs(found[0]) < 1e-5
    assert found[1] > 1e-3


SAMPLES = batch_of(([1], [[0.0, 0, 1]]))
LOSSES = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=8)


@given(LOSSES, st.sampled_from([0.01, 0.3]), st.sampled_from([0.05, 1.0]))
def test_multiplier_follows_its_closed_form(losses: list[tuple[float, float]], tolerance: float, rate: float) -> None:
    """m <- max(0, m + rate (turned / ((1 + tolerance) mean) - 1)), and the step's loss is plain + m x turned."""
    values = iter([value for pair in losses for value in pair])
    task: Any = SimpleNamespace(loss=lambda outputs, _: torch.tensor(next(values), dtype=torch.float64))
    treatment = Constrained(task, tolerance=tolerance, rate=rate)
    rng = np.random.default_rng(0)
    multiplier, mean = 0.0, losses[0][0]
    for step, (plain, elsewhere) in enumerate(losses):
        mean = mean if step == 0 else 0.95 * mean + 0.05 * plain
        found = float(treatment(task, lambda b: {}, SAMPLES, rng))
        assert found == pytest.approx(plain + multiplier * elsewhere, rel=1e-5)
        multiplier = max(0.0, multiplier + rate * (elsewhere / ((1 + tolerance) * mean) - 1))
        assert treatment.constraint.strengths["rotation"] == pytest.approx(multiplier, rel=1e-5, abs=1e-6)


def test_latent_error_is_zero_for_a_latent_that_the_network_transports(small_store: Path) -> None:
    """A latent of vectors is carried by the matrix itself; taken for invariant its error is E |Q z - z|² / |z|² = 2."""
    rng = np.random.default_rng(0)
    before = torch.from_numpy(rng.normal(size=(4000, 3)))
    samples = SimpleNamespace(num_graphs=4000, batch=torch.arange(4000))
    matrices = GROUPS["rotation"].draw(samples, rng).matrices
    after = torch.einsum("bij,bj->bi", matrices, before)
    carried = latent_error(lambda q, z: (q @ z[:, :, None])[:, :, 0], matrices, before, after)
    assert float(carried) < 1e-25
    assert float(latent_error(lambda q, z: z, matrices, before, after)) == pytest.approx(2, abs=0.1)


def test_latent_loss_of_invariant_features_is_zero_under_the_identity(small_store: Path) -> None:
    """Scalars of SchNet do not change in turning, so a network that adds nothing predicts them; those of others do."""
    task, samples = prepared(small_store, "latent", "transformer"), batch(small_store)
    inputs, options = Inputs(task.statistics.elements), registry.options("schnet", "3k")
    invariant = Potential(registry.build("schnet", inputs, 7.0, **options), task.statistics.energy_references, 1.0)
    found = []
    for model in (invariant.train(), task.model):
        task.model = model
        task.treatment = Latent(task)
        torch.nn.init.zeros_(task.treatment.network.layers[2].weight)
        torch.nn.init.zeros_(task.treatment.network.layers[2].bias)
        # In evaluation the running mean is not moved: of one, the term is the relative error itself.
        task.treatment.eval().scale.mean.fill_(1.0)
        rng = np.random.default_rng(3)
        loss = float(task.treatment(task, model, samples, rng).detach())
        turned, _ = act("rotation", samples, np.random.default_rng(3))
        found.append(loss - float(task.loss(model(turned), turned).detach()))
    assert abs(found[0]) < 1e-4
    assert found[1] > 1e-3


def test_latent_is_what_heads_read(small_store: Path) -> None:
    """The readout of a potential, applied to the latent by hand, gives its energies."""
    task, samples = prepared(small_store, "latent"), batch(small_store)
    features = latent(task.model, samples)
    atoms = task.model.readout(features)[:, 0] * task.model.energy_scale
    energies = torch.zeros(samples.num_graphs).index_add(0, samples.batch, atoms)
    torch.testing.assert_close(energies, task.model(samples)["interaction"])


@pytest.mark.slow
@pytest.mark.parametrize("treatment", ["augmentation", *ADAPTED])
def test_treatments_lower_the_symmetry_error(small_store: Path, tmp_path: Path, treatment: str) -> None:
    """Few samples seen many times, whose orientations tell them apart as well as anything."""
    errors = {}
    for name in ("none", treatment):
        # Multipliers start at zero; for so few steps they must rise faster than by default.
        options: Any = {"symmetry_options": {"rate": 0.5}} if name == "constraint" else {}
        metrics = run(small_store, tmp_path, name, 120, **options).splits["test"].metrics
        errors[name] = metrics["symmetry_rotation_forces"].value
    assert errors[treatment] < 0.8 * errors["none"]


def test_flops_count_the_passes_of_each_treatment(small_store: Path) -> None:
    """In passes forward, a step on gradient forces costs six and one on the backbone alone three."""
    store, found, parameters = Store(small_store), {}, {}
    for treatment in TREATMENTS:
        task = prepared(small_store, treatment)
        held = copy.deepcopy(task.treatment.eval().state_dict())
        found[treatment] = training_flops(task, store)
        parameters[treatment] = sum(p.numel() for p in task.model.parameters())
        torch.testing.assert_close(dict(task.treatment.state_dict()), dict(held), equal_nan=True)
    ratios = {name: count / found["none"] for name, count in found.items()}
    assert ratios["augmentation"] == pytest.approx(1, rel=0.02)
    assert ratios["penalty"] == pytest.approx(2, rel=0.02)
    assert ratios["constraint"] == pytest.approx(2, rel=0.02)
    assert ratios["frames"] == pytest.approx(4, rel=0.05)
    assert ratios["latent"] == pytest.approx(1.5, rel=0.02)
    assert len(set(parameters.values())) == 1


@pytest.mark.parametrize("treatment", ["augmentation", *ADAPTED])
def test_resumed_training_has_the_same_losses(small_store: Path, tmp_path: Path, treatment: str) -> None:
    """Batches in a fixed order, so that nothing but what checkpoints hold decides; 6 steps, or 4 and then 2 more."""
    data = Store(small_store)
    indices = data.split("train").indices(32)
    loader = DataLoader(
        indices,  # type: ignore[arg-type]
        batch_size=16,
        collate_fn=lambda rows: graph_batch(data.take(np.array(rows)), 5.0),
    )

    def losses(task: AtomisticTask, steps: int, checkpoint: Path | None = None) -> list[float]:
        L.seed_everything(5, verbose=False)
        curve = Curve()
        quietly: Any = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = L.Trainer(
            max_epochs=-1, max_steps=steps, callbacks=[curve], enable_model_summary=False, accelerator="cpu", **quietly
        )
        trainer.fit(task, loader, loader, ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return [float(row["train/loss"]) for row in curve.rows if "train/loss" in row]

    # The rate at a step depends on the number of all steps, which differs: a constant one does not.
    options = {"schedule": "constant", "warmup": 0.0}
    whole = losses(prepared(small_store, treatment, **options), 6)
    first = losses(prepared(small_store, treatment, **options), 4)
    again = prepared(small_store, treatment, **options)
    for values in again.state_dict().values():
        values.zero_()
    assert first == whole[:4]
    assert losses(again, 6, tmp_path / "last.ckpt") == whole
    held = load_task(tmp_path / "last.ckpt").treatment.state_dict()
    assert (len(held) > 0) == (treatment in ADAPTED)


def test_what_a_treatment_holds_is_no_part_of_the_model(small_store: Path, tmp_path: Path) -> None:
    counts = {}
    for name in ("none", "latent"):
        (tmp_path / name).mkdir()
        counts[name] = run(small_store, tmp_path / name, name, 2).params
    assert counts["latent"] == counts["none"]
    assert load_model(tmp_path / "latent").symmetry == load_model(tmp_path / "none").symmetry


def test_curve_has_the_errors_of_the_validated_weights(small_store: Path, tmp_path: Path) -> None:
    run(small_store, tmp_path, "augmentation", 10, symmetry_curve=6)
    rows = pq.read_table(tmp_path / "curve.parquet").to_pandas().dropna(subset="val/loss")
    best = rows.loc[rows["val/loss"].idxmin(), "val/symmetry_rotation_forces"]
    store, model = Store(small_store), load_model(tmp_path)
    samples = graph_batch(store.take(store.split("val").indices(6)), model.cutoff)
    assert len(rows) == 2
    assert best == pytest.approx(symmetry_errors(model, [samples])["symmetry_rotation_forces"].value, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["architecture=nequip", "symmetry_treatment=latent"], "nequip is exactly equivariant by itself"),
        (["architecture=schnet", "symmetry_treatment=frames"], "schnet is exactly equivariant by itself"),
        (["symmetry_treatment=frame"], "symmetry_treatment"),
        (
            ["symmetry_treatment=latent", "symmetry_options={wait: 1}"],
            "option .* 'wait'; did you mean 'weight'",
        ),
        (["symmetry_treatment=latent", "symmetry_options={weight: -1}"], "weight .* is -1, but must be a positive"),
        (["symmetry_treatment=frames", "symmetry_options={kind: wheighted}"], "did you mean 'weighted'"),
        (["symmetry_options={weight: 1}"], "unknown option of the symmetry treatment 'none' 'weight'"),
        (["symmetry_treatment=latent", "compiled=true"], "is not compiled; leave compiled out"),
        (["symmetry_curve=-1"], "symmetry_curve is -1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    small_store: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        main(
            [
                *("fit", f"--data.dataset={small_store}", f"--runs={tmp_path / 'runs'}", "--model.architecture=mpnn"),
                *("--model.size=3k", *(f"--model.{option}" for option in options)),
            ]
        )
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_studies_are_refused_in_planning(small_store: Path) -> None:
    def planned(**entry: Any) -> Any:
        study = {"study": "s", "dataset": str(small_store), "data": [16], "optimization": {"steps": 2}}
        entries = {"mine": {"sizes": ["3k"], "learning_rate": 0.01, **entry}}
        return make_plan(Study.model_validate(study | {"architectures": entries, "evaluation": {"splits": ["test"]}}))

    with pytest.raises(UserError, match="painn is exactly equivariant by itself"):
        planned(architecture="painn", treatment="penalty")
    assert [spec.treatment for _, spec in planned(architecture="mpnn", treatment="penalty").specs()] == ["penalty"]


def test_trees_have_nothing_to_turn() -> None:
    with pytest.raises(UserError, match="unknown symmetry_treatment"):
        TreeTask(symmetry_treatment="frames")  # type: ignore[arg-type]
