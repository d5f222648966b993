from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from scisci.contracts.errors import UserError
from scisci.contracts.metrics import METRICS
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunResult, RunSpec
from scisci.data.batch import graph_batch
from scisci.data.library import open_dataset
from scisci.data.store import Store
from scisci.models import registry
from scisci.symmetry.actions import ACTIONS
from scisci.tasks.checkpoints import load_model, load_task
from scisci.tasks.run import execute
from scisci.tasks.version import code_version


def spec_for(store: Path, architecture: str, **changes: object) -> RunSpec:
    optimization = {"steps": 20, "learning_rate": 0.01, "batch_size": 8, "validations": 2}
    options: dict = {"data": 48, "seed": 1, "size": "3k"}
    for key, value in changes.items():
        (optimization if key in OptimizationSpec.model_fields else options)[key] = value
    return RunSpec(
        study="test",
        dataset=str(store),
        fingerprint=open_dataset(store).fingerprint,
        architecture=architecture,
        optimization=OptimizationSpec(**optimization),
        evaluation=EvaluationSpec(splits=("test", "ood_600K"), symmetry_samples=8),
        code_version=code_version(),
        **options,
    )


@pytest.mark.parametrize("architecture", registry.architectures("atoms"))
def test_same_spec_gives_the_same_result(small_store: Path, tmp_path: Path, architecture: str) -> None:
    results = []
    for attempt in ("a", "b"):
        (tmp_path / attempt).mkdir()
        results.append(execute(spec_for(small_store, architecture), tmp_path / attempt))
    assert results[0].splits == results[1].splits
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    other = execute(spec_for(small_store, architecture, seed=2), tmp_path)
    assert other.splits["test"].metrics["force_mae"] != results[0].splits["test"].metrics["force_mae"]


@pytest.mark.parametrize("architecture", registry.architectures("atoms"))
def test_result_is_complete_and_learning_beats_the_zero_predictor(
    small_store: Path, tmp_path: Path, architecture: str
) -> None:
    result = execute(spec_for(small_store, architecture, steps=60), tmp_path)
    assert result.status == "ok"
    assert result.samples_seen == 60 * 8
    assert result.epochs == 60 * 8 / 48
    assert 0 < result.params_body < result.params
    assert result.flops_per_sample > 6 * result.params_body
    forces = Store(small_store).take(Store(small_store).split("test").indices()).items["forces"]
    assert result.splits["test"].metrics["force_mae"].value < 0.95 * 1000 * np.abs(forces).mean()
    assert result.splits["ood_600K"].severity == 600
    symmetry = {f"symmetry_{g}_{q}{p}" for g in ACTIONS for q in ("energy", "forces") for p in ("", "_float64")}
    assert symmetry <= set(METRICS)
    assert set(result.splits["test"].metrics) == {"energy_mae", "force_mae", "force_cosine"} | symmetry
    assert RunResult.model_validate_json(result.model_dump_json()) == result
    curve = pq.read_table(tmp_path / "curve.parquet").to_pandas()
    assert curve["train/loss"].count() == 60
    assert curve["val/force_mae"].count() == 2


def test_symmetry_errors_tell_the_equivariant_model_from_the_unconstrained(small_store: Path, tmp_path: Path) -> None:
    errors = {}
    for name in ("nequip", "mpnn", "transformer"):
        metrics = execute(spec_for(small_store, name), tmp_path).splits["test"].metrics
        errors[name] = {k: m.value for k, m in metrics.items() if k.startswith("symmetry_rotation_forces")}
    assert errors["nequip"]["symmetry_rotation_forces"] < 1e-4
    assert errors["nequip"]["symmetry_rotation_forces_float64"] < 1e-10
    for name in ("mpnn", "transformer"):
        assert errors[name]["symmetry_rotation_forces"] > 1e-2


def test_metrics_agree_with_predictions_computed_by_hand(small_store: Path, tmp_path: Path) -> None:
    result = execute(spec_for(small_store, "nequip"), tmp_path)
    store, model = Store(small_store), load_model(tmp_path)
    indices = store.split("test").indices()
    absolute, per_atom = [], []
    for index in indices:
        batch = graph_batch(store.take(np.array([index])), model.cutoff)
        out = model(batch)
        absolute.append((out["forces"] - batch.forces).abs().flatten())
        per_atom.append(float((out["energy"] - batch.energy).abs()) / len(batch.numbers))
    metrics = result.splits["test"].metrics
    assert metrics["force_mae"].value == pytest.approx(1000 * float(torch.cat(absolute).mean()), rel=1e-5)
    assert metrics["energy_mae"].value == pytest.approx(1000 * np.mean(per_atom), rel=1e-3)
    assert metrics["energy_mae"].n == len(indices)


def test_diverged_run_is_a_result_with_its_reason(small_store: Path, tmp_path: Path) -> None:
    result = execute(spec_for(small_store, "mpnn", learning_rate=1e30, gradient_clip=1e30), tmp_path)
    assert result.status == "diverged"
    assert "step" in result.reason
    assert result.splits == {}
    assert not (tmp_path / "model.safetensors").exists()


def test_run_on_other_data_or_code_than_planned_is_refused(small_store: Path, tmp_path: Path) -> None:
    spec = spec_for(small_store, "mpnn")
    for change in ({"fingerprint": "0" * 64}, {"code_version": "another"}):
        with pytest.raises(UserError, match="changed since this run was planned"):
            execute(spec.model_copy(update=change), tmp_path)


def test_flops_depend_on_the_model_alone(small_store: Path, tmp_path: Path) -> None:
    changes = ({"data": 8, "seed": 1}, {"data": 96, "seed": 2, "batch_size": 4})
    counts = {execute(spec_for(small_store, "mpnn", steps=2, **c), tmp_path).flops_per_sample for c in changes}
    assert len(counts) == 1


def test_weights_with_the_lowest_validation_loss_count(small_store: Path, tmp_path: Path) -> None:
    """A learning rate that ruins a trained model: the result must be that of the early weights."""
    spec = spec_for(small_store, "mpnn", steps=60, validations=20, learning_rate=0.1, schedule="constant")
    result = execute(spec, tmp_path)
    curve = pq.read_table(tmp_path / "curve.parquet").to_pandas().dropna(subset="val/loss")
    best = curve.loc[curve["val/loss"].idxmin()]
    assert best["val/loss"] < curve["val/loss"].iloc[-1]
    assert result.best_step == best["step"]
    store, model = Store(small_store), load_model(tmp_path)
    batch = graph_batch(store.take(store.split("val").indices()), model.cutoff)
    error = 1000 * float((model(batch)["forces"] - batch.forces).abs().mean())
    assert error == pytest.approx(best["val/force_mae"], rel=1e-4)


@pytest.mark.parametrize(("steps", "validations"), [(9, 5), (7, 3), (3, 5)])
def test_final_weights_are_always_validated(small_store: Path, tmp_path: Path, steps: int, validations: int) -> None:
    execute(spec_for(small_store, "mpnn", steps=steps, validations=validations), tmp_path)
    curve = pq.read_table(tmp_path / "curve.parquet").to_pandas().dropna(subset="val/loss")
    assert curve["step"].iloc[-1] == steps
    assert len(curve) <= validations


def test_augmentation_lowers_the_symmetry_error(small_store: Path, tmp_path: Path) -> None:
    """Few samples seen many times: turned copies must make the forces turn with the molecule better."""
    errors = {}
    for treatment in ("none", "augmentation"):
        spec = spec_for(small_store, "mpnn", treatment=treatment, steps=120, data=16, learning_rate=0.02)
        errors[treatment] = execute(spec, tmp_path).splits["test"].metrics["symmetry_rotation_forces"].value
    assert errors["augmentation"] < 0.8 * errors["none"]


def test_model_of_a_newer_version_is_refused(small_store: Path, tmp_path: Path) -> None:
    execute(spec_for(small_store, "mpnn"), tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(description | {"schema_version": 99}))
    with pytest.raises(UserError, match="newer scisci"):
        load_task(tmp_path)
    with pytest.raises(UserError, match="no trained model"):
        load_task(tmp_path / "nowhere")


def test_mixed_precision_rounds_what_is_learned_and_is_kept_in_the_config(small_store: Path, tmp_path: Path) -> None:
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        folder = tmp_path / precision
        folder.mkdir()
        assert execute(spec_for(small_store, "mpnn", precision=precision), folder).status == "ok"
        assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["precision"] == precision
        losses[precision] = pq.read_table(folder / "curve.parquet")["train/loss"].drop_null().to_numpy()
    difference = np.abs(losses["bf16-mixed"] / losses["32-true"] - 1)
    assert difference[0] < 2e-2  # the same samples and weights, before anything was learned
    assert 1e-4 < difference.max() < 0.2


def test_a_compiled_run_learns_the_same(small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilation itself is tested elsewhere and takes long: here the traced graph runs as it is."""
    monkeypatch.setattr(torch, "compile", lambda graph: graph)
    losses = []
    for compiled in (False, True):
        spec = spec_for(small_store, "mpnn", steps=4, compiled=compiled)
        execute(spec, tmp_path)
        assert yaml.safe_load((tmp_path / "config.yaml").read_text())["model"]["compiled"] is compiled
        losses.append(pq.read_table(tmp_path / "curve.parquet")["train/loss"].drop_null().to_numpy())
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_a_tracker_follows_the_run_and_no_run_depends_on_one(small_store: Path, tmp_path: Path) -> None:
    plain = execute(spec_for(small_store, "mpnn"), tmp_path)
    named = [{"class_path": "TensorBoardLogger", "init_args": {"save_dir": place}} for place in (".", "/proc/nowhere")]
    with pytest.warns(RuntimeWarning, match="failed and is left out .*/proc/nowhere"):
        tracked = execute(spec_for(small_store, "mpnn", loggers=named), tmp_path)
    assert (tracked.run, tracked.splits) == (plain.run, plain.splits)
    assert len(list(tmp_path.glob("tensorboard/version_0/events.*"))) == 1
