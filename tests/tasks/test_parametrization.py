"""Maximal update in training: what a run starts from, steps by, keeps, and how its layers change with width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from scisci.contracts.errors import UserError
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunSpec
from scisci.data.batch import graph_batch
from scisci.data.library import open_dataset
from scisci.data.module import StoreDataModule
from scisci.data.store import Store
from scisci.models import registry
from scisci.models.width import at_reference
from scisci.tasks.atomistic import AtomisticTask
from scisci.tasks.checkpoints import load_task
from scisci.tasks.cli import main as cli
from scisci.tasks.coordinate_check import exponents, widened
from scisci.tasks.models_cli import main as models
from scisci.tasks.particles import ParticleTask
from scisci.tasks.run import execute
from scisci.tasks.series import SeriesTask
from scisci.tasks.trees import TreeTask
from scisci.tasks.version import code_version

ABLE = ("transformer", "mpnn", "escaip")
FACTOR_EIGHT = (16, 128)


def made(store: Path, architecture: str, parametrization: str, task: Any = AtomisticTask, **options: Any) -> Any:
    """A task with its model, from seed 0; the seed's next random number tells whether anything else was drawn."""
    torch.manual_seed(0)
    found = task(architecture, "3k", parametrization=parametrization, **options)
    found.prepare(StoreDataModule(str(store), train_samples=32))
    return found


def spec(store: Path, parametrization: str, channels: int) -> RunSpec:
    return RunSpec(
        study="test",
        dataset=str(store),
        fingerprint=open_dataset(store).fingerprint,
        architecture="mpnn",
        size="3k",
        overrides={"channels": channels},
        data=48,
        optimization=OptimizationSpec(steps=12, learning_rate=0.01, batch_size=8, parametrization=parametrization),
        evaluation=EvaluationSpec(splits=("test",), symmetry_samples=0),
        code_version=code_version(),
    )


@pytest.mark.parametrize("architecture", ABLE)
def test_only_initial_values_and_rates_differ_and_seeds_stay(small_store: Path, architecture: str) -> None:
    wide = {"learning_rate": 0.01, "weight_decay": 0.2, "overrides": {"layers": 1} | widened(architecture, 64)}
    standard, draw = made(small_store, architecture, "standard", **wide), torch.rand(())
    task = made(small_store, architecture, "maximal_update", **wide)
    assert torch.rand(()) == draw
    weights = standard.state_dict()
    ratios = {name: parameter.norm() / weights[name].norm() for name, parameter in task.named_parameters()}
    changed = {name for name, ratio in ratios.items() if not np.isclose(float(ratio.detach()), 1, equal_nan=True)}
    assert "model.readout.2.weight" in changed
    assert float(ratios["model.readout.2.weight"].detach()) == pytest.approx(2**-0.5)
    assert float(ratios["model.readout.0.bias"].detach()) == pytest.approx(2**0.5)
    assert not changed & {name for name in ratios if name.endswith("elements.weight")}
    groups = task.optimizer().param_groups
    assert sum(len(group["params"]) for group in groups) == len(ratios)
    assert {group["lr"] for group in groups} >= {0.01, 0.005}
    assert all(group["lr"] * group["weight_decay"] == pytest.approx(0.002) for group in groups)
    assert len(standard.optimizer().param_groups) == 1


def test_at_the_reference_width_runs_are_the_same_bit_for_bit(small_store: Path, tmp_path: Path) -> None:
    results = {}
    for parametrization in ("standard", "maximal_update"):
        (folder := tmp_path / parametrization).mkdir()
        channels = at_reference("mpnn", {})["channels"]
        results[parametrization] = execute(spec(small_store, parametrization, channels), folder)
    assert results["standard"].splits == results["maximal_update"].splits
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in results]
    assert files[0] == files[1]


def test_a_trained_model_comes_back_as_it_was(small_store: Path, tmp_path: Path) -> None:
    result = execute(spec(small_store, "maximal_update", 64), tmp_path)
    assert result.learning_rate == 0.01
    (elsewhere := tmp_path / "standard").mkdir()
    assert execute(spec(small_store, "standard", 64), elsewhere).splits != result.splits
    task = load_task(tmp_path)
    assert task.hparams["parametrization"] == "maximal_update"
    store = Store(small_store)
    batch = graph_batch(store.take(store.split("test").indices()), task.cutoff)
    error = 1000 * float((task.model(batch)["forces"] - batch.forces).abs().mean())
    assert error == pytest.approx(result.splits["test"].metrics["force_mae"].value, rel=1e-5)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["model"]["parametrization"] == "maximal_update"


def test_training_goes_on_with_the_rates_of_every_group(small_store: Path, tmp_path: Path) -> None:
    def rates(folder: Path) -> tuple[set[float], set[float]]:
        state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]
        return {g["initial_lr"] for g in state["param_groups"]}, {float(s["step"]) for s in state["state"].values()}

    options = ("--model.architecture=mpnn", "--model.size=3k", "--model.overrides={channels: 64}")
    trainer = ("--trainer.max_steps=6", "--trainer.val_check_interval=6", "--trainer.enable_progress_bar=false")
    data = (f"--data.dataset={small_store}", f"--runs={tmp_path}", "--model.symmetry_samples=0")
    cli(["fit", *data, *options, *trainer, "--model.parametrization=maximal_update", "--model.learning_rate=0.008"])
    (folder,) = tmp_path.iterdir()
    assert rates(folder) == ({0.008, 0.004}, {6.0})
    task = load_task(folder / "checkpoints/last.ckpt")
    kept = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, kept[name]) for name, value in task.state_dict().items())
    cli(["fit", "--run", str(folder), "--trainer.max_steps=10"])
    assert rates(folder) == ({0.008, 0.004}, {10.0})


def test_what_a_treatment_learns_is_scaled_too_and_heads_of_particles(small_store: Path, particle_store: Path) -> None:
    latent = made(small_store, "mpnn", "maximal_update", symmetry_treatment="latent", overrides={"channels": 64})
    assert latent.rates["treatment.network.layers.0.weight"] == (32 + 9) / (64 + 9)
    assert latent.rates["treatment.network.layers.2.weight"] == 0.5
    particles = made(
        particle_store, "escaip", "maximal_update", ParticleTask, overrides=widened("escaip", 64) | {"layers": 1}
    )
    assert particles.rates["model.heads.displacement.mix.weight"] == 0.25
    assert set(particles.rates) == {name for name, _ in particles.named_parameters()}


@pytest.mark.parametrize("architecture", ABLE)
def test_layers_change_alike_at_every_width_under_maximal_update_alone(architecture: str) -> None:
    """Exponents of blocks' outputs: 0 where updates are maximal, and at first near 1 where all weights move alike."""
    found = {
        parametrization: {
            layer: power
            for layer, (power, _) in exponents(
                architecture, "xtb-molecules", parametrization, FACTOR_EIGHT, steps=2, seeds=4, overrides={"layers": 2}
            ).items()
            if ".layers." in layer or ".blocks." in layer
        }
        for parametrization in ("standard", "maximal_update")
    }
    assert len(found["standard"]) == (4 if architecture == "escaip" else 2)
    for layer, power in found["standard"].items():
        assert power.min() > 0.5, layer
        assert np.abs(found["maximal_update"][layer]).max() < 0.15, layer


def test_the_check_is_a_command(
    small_store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    small = ("--widths", "8", "16", "--steps", "1", "--seeds", "2", "--set", "layers=1")
    models(["widths", "mpnn", "--dataset", str(small_store), *small])
    printed = capsys.readouterr().out
    assert "mpnn, maximal_update, widths 8, 16" in printed
    assert all(row in printed for row in ("backbone.layers.0", "readout", "output forces", "step 1", "2 seeds"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nequip"], "nequip has no maximal-update parametrisation"),
        (["mpnn", "--widths", "16", "16"], "compares two widths or more"),
        (["mpnn", "--seeds", "1"], "two seeds or more"),
        (["mpnn", "--set", "layer=1"], "did you mean 'layers'"),
        (["transformer", "--widths", "8", "33"], "must be a multiple of heads"),
    ],
)
def test_checks_that_cannot_be_made_are_refused(small_store: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        models(["widths", *arguments, "--dataset", str(small_store)])


def test_who_has_no_widths_is_told_so() -> None:
    with pytest.raises(UserError, match="choose one of: escaip, mpnn, transformer"):
        AtomisticTask("nequip", parametrization="maximal_update")
    with pytest.raises(UserError, match="parametrization is 'mup'"):
        AtomisticTask("mpnn", parametrization="mup")  # type: ignore[arg-type]
    for task in (SeriesTask, TreeTask):
        with pytest.raises(UserError, match="unknown parametrization of the task"):
            task(parametrization="maximal_update")
    assert [name for name in registry.architectures() if hasattr(registry.get(name), "WIDTHS")] == sorted(ABLE)
