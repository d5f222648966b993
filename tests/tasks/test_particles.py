"""Training on particles, by the command line and by a spec."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from scisci.contracts.errors import UserError
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunResult, RunSpec
from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.data.statistics import particle_statistics
from scisci.data.store import Store
from scisci.symmetry.actions import ACTIONS
from scisci.tasks.arguments import dataset_named
from scisci.tasks.atomistic import AtomisticTask
from scisci.tasks.checkpoints import load_model, load_task, restore
from scisci.tasks.cli import main
from scisci.tasks.domains import TASKS, task_for, task_named
from scisci.tasks.metrics import Accumulator, particle_errors
from scisci.tasks.particles import ParticleTask
from scisci.tasks.run import execute
from scisci.tasks.version import code_version

CONFIG = Path(__file__).resolve().parents[2] / "configs/data/charged-nbody.yaml"


def fit(store: Path, runs: Path, *more: str, steps: int = 20) -> Path:
    main(
        [
            *("fit", f"--config={CONFIG}", f"--data.dataset={store}", f"--runs={runs}", "--data.batch_size=32"),
            *("--model.architecture=egnn", "--model.size=3k", f"--trainer.max_steps={steps}"),
            *("--trainer.val_check_interval=10", "--trainer.enable_progress_bar=false", *more),
        ]
    )
    (folder,) = runs.iterdir()
    return folder


def spec_for(store: Path, architecture: str, steps: int, treatment: str = "none") -> RunSpec:
    return RunSpec(
        study="test",
        dataset=str(store),
        fingerprint=Store(store).fingerprint,
        architecture=architecture,
        size="10k",
        treatment=treatment,
        data=192,
        optimization=OptimizationSpec(steps=steps, learning_rate=0.01, batch_size=32),
        evaluation=EvaluationSpec(splits=("test", "ood_bodies8"), symmetry_samples=16),
        code_version=code_version(),
    )


def items(store: Path, split: str) -> Ragged:
    return Store(store).take(Store(store).split(split).indices())


def linear_motion_error(store: Path) -> float:
    """Of position + time x velocity, with the best time for the training set."""
    train, test = items(store, "train").items, items(store, "test").items
    moved = train["target_positions"] - train["positions"]
    time = (moved * train["velocities"]).sum() / np.square(train["velocities"]).sum()
    missed = test["positions"] + time * test["velocities"] - test["target_positions"]
    return float(np.square(missed).mean())


@pytest.fixture(scope="module")
def finished(particle_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(particle_store, tmp_path_factory.mktemp("runs"))


def test_domain_of_the_data_decides_the_task(finished: Path) -> None:
    result = RunResult.model_validate_json((finished / "result.json").read_text())
    assert (result.status, result.domain) == ("ok", "particles")
    assert list(result.splits) == ["test", "ood_bodies8"]
    assert isinstance(load_task(finished), ParticleTask)
    symmetry = {f"symmetry_{g}_positions{p}" for g in ACTIONS for p in ("", "_float64")}
    for split in result.splits.values():
        assert set(split.metrics) == {"position_mse"} | symmetry
        assert max(split.metrics[name].value for name in symmetry if name.endswith("float64")) < 1e-10


def test_predicted_positions_have_the_error_that_was_reported(finished: Path, particle_store: Path) -> None:
    main(["predict", "--run", str(finished), "--trainer.enable_progress_bar=false"])
    result, store = RunResult.model_validate_json((finished / "result.json").read_text()), Store(particle_store)
    for split in ("test", "ood_bodies8"):
        with h5py.File(finished / "predictions" / f"{split}.h5") as file:
            truth = store.take(file["ids"][...])
            assert np.array_equal(file["offsets"], truth.offsets)
            assert "energy" not in file
            error = np.square(file["positions"][...] - truth.items["target_positions"]).mean()
        reported = result.splits[split].metrics["position_mse"]
        assert reported.value == pytest.approx(error, rel=1e-4)
        assert reported.n == len(truth)


def test_trained_model_is_measured_as_it_was(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = RunResult.model_validate_json((finished / "result.json").read_text())
    for command in ("test", "validate"):
        main([command, "--run", str(finished), "--trainer.enable_progress_bar=false"])
    shown = capsys.readouterr().out
    assert f"{result.splits['test'].metrics['position_mse'].value:.4g}" in shown
    assert "val/position_mse: " in shown


def test_training_goes_on_from_a_checkpoint(particle_store: Path, tmp_path: Path) -> None:
    folder = fit(particle_store, tmp_path, steps=15)
    main(["fit", "--run", str(folder), "--trainer.max_steps=25"])
    result = RunResult.model_validate_json((folder / "result.json").read_text())
    assert result.samples_seen == 25 * 32
    steps = pq.read_table(folder / "curve.parquet").to_pandas().dropna(subset="train/loss")["step"]
    assert steps.tolist() == list(range(1, 26))


def test_model_of_another_task_is_refused(
    finished: Path, particle_store: Path, small_store: Path, tmp_path: Path
) -> None:
    checkpoint = finished / "checkpoints" / "last.ckpt"
    message = "the model is of the task 'particles', the data is for 'atomistic'"
    with pytest.raises(UserError, match=message):
        main(["test", f"--data.dataset={small_store}", f"--ckpt_path={checkpoint}", "--model.architecture=egnn"])
    with pytest.raises(UserError, match=message):
        restore(AtomisticTask("egnn", "3k"), finished)
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    description = (copy / "model.json").read_text()
    (copy / "model.json").write_text(description.replace('"task": "particles"', '"task": "pictures"'))
    with pytest.raises(UserError, match="unknown task 'pictures'"):
        load_task(copy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.energy_weight=3"], "model.energy_weight"),
        (["--model.overrides={cutoff: 0.001}"], "no two training particles are within the cutoff of 0.001"),
        (["--model.cutoff=-1"], "option cutoff of egnn is -1"),
        (["--data.test_splits=[ood_bodies9]"], "unknown split 'ood_bodies9'; did you mean"),
        (["--config={unclosed: "], "is not YAML"),
    ],
)
def test_bad_options_are_one_sentence_and_leave_nothing(
    particle_store: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit(particle_store, tmp_path / "runs", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_data_set_is_found_wherever_it_is_named(tmp_path: Path) -> None:
    """The last mention counts, as it does for the parser."""
    config, data = tmp_path / "config.yaml", tmp_path / "data.yaml"
    config.write_text("model: {size: 3k}\ndata: {dataset: a}\n")
    data.write_text("dataset: b\nbatch_size: 3\n")
    assert dataset_named([]) == "xtb-molecules"
    assert dataset_named(["--model.size", "3k", "--config", str(config)]) == "a"
    assert dataset_named([f"--config={config}", f"--data={data}"]) == "b"
    assert dataset_named(["--data", str(data), "-c", str(config)]) == "a"
    assert dataset_named(["--data.dataset", "c", "--config", str(CONFIG), "--data.dataset=d"]) == "d"
    assert dataset_named(["--data", "{dataset: e}", "--config", "model: {size: 3k}"]) == "e"
    assert dataset_named(["--config", str(tmp_path / "nowhere.yaml"), "--config"]) == "xtb-molecules"


def test_every_task_has_a_domain_and_a_name_of_its_own() -> None:
    for task in TASKS:
        assert task_for(task.domain) is task is task_named(task.name)
    with pytest.raises(UserError, match="no training on samples of the domain 'pictures'"):
        task_for("pictures")


def test_statistics_are_those_of_the_training_subset(particle_store: Path) -> None:
    store, train = Store(particle_store), items(particle_store, "train")
    statistics = particle_statistics(store, store.split("train").indices(), np.inf)
    moved = train.items["target_positions"].astype(float) - train.items["positions"]
    assert statistics.average_neighbors == 4
    assert statistics.scales["charges"] == 1
    assert statistics.scales["displacement"] == pytest.approx(np.sqrt(np.square(moved).mean()), rel=1e-6)
    assert statistics.scales["velocities"] == pytest.approx(
        np.sqrt(np.square(train.items["velocities"]).mean()), rel=1e-6
    )
    assert type(statistics).from_dict(statistics.as_dict()) == statistics


def test_error_is_a_mean_over_particles_whatever_the_batches(particle_store: Path) -> None:
    """Systems of 5 and of 8 particles: each particle counts the same."""
    store = Store(particle_store)
    ids = np.concatenate([store.split(name).indices() for name in ("test", "ood_bodies8")])
    accumulator, missed = Accumulator(particle_errors), []
    for part in np.array_split(ids, 7):
        batch = graph_batch(store.take(part), np.inf)
        accumulator.update({"displacement": 0.9 * batch.velocities}, batch)
        missed.append(batch.pos + 0.9 * batch.velocities - batch.target_positions)
    squares = np.square(np.concatenate(missed))
    estimate = accumulator.compute()["position_mse"]
    assert estimate.value == pytest.approx(squares.mean(), rel=1e-5)
    # Particles of a system are not independent: its mean is what varies.
    rng, lengths = np.random.default_rng(0), store.take(ids).lengths
    sums = np.add.reduceat(squares.sum(1), np.concatenate([[0], np.cumsum(lengths)[:-1]]))
    draws = rng.integers(0, len(ids), (4000, len(ids)))
    assert estimate.se == pytest.approx((sums[draws].sum(1) / (3 * lengths[draws].sum(1))).std(), rel=0.1)


@pytest.mark.parametrize("architecture", ["egnn", "painn", "nequip", "ponita", "mpnn", "transformer"])
def test_learning_beats_simple_rules(particle_store: Path, tmp_path: Path, architecture: str) -> None:
    """All find that particles move on; those with symmetry built in find from few samples that they interact."""
    result = execute(spec_for(particle_store, architecture, steps=150), tmp_path)
    assert (result.status, result.domain) == ("ok", "particles")
    assert result.flops_per_sample > 0
    assert result.splits["ood_bodies8"].severity == 8
    # On `val`: the mean over `test` is ruled by a single pair that meets, of which little can be known.
    errors, val = (
        pq.read_table(tmp_path / "curve.parquet").to_pandas()["val/position_mse"],
        items(particle_store, "val"),
    )
    assert errors.count() == 5
    assert errors.min() < 0.5 * np.square(val.items["target_positions"] - val.items["positions"]).mean()
    if architecture in ("egnn", "ponita"):
        assert result.splits["test"].metrics["position_mse"].value < 0.9 * linear_motion_error(particle_store)


def test_same_spec_gives_the_same_result(particle_store: Path, tmp_path: Path) -> None:
    results = []
    for attempt in ("a", "b"):
        (tmp_path / attempt).mkdir()
        results.append(execute(spec_for(particle_store, "egnn", 10), tmp_path / attempt))
    assert results[0].splits == results[1].splits
    main(["test", "--config", str(tmp_path / "a/config.yaml"), "--run", str(tmp_path / "a")])
    found = load_model(tmp_path / "a")(graph_batch(items(particle_store, "test"), 20.0))["displacement"]
    truth = items(particle_store, "test").items
    missed = truth["positions"] + found.detach().numpy() - truth["target_positions"]
    assert np.square(missed).mean() == pytest.approx(results[0].splits["test"].metrics["position_mse"].value, rel=1e-4)


def test_augmentation_lowers_the_symmetry_error(particle_store: Path, tmp_path: Path) -> None:
    errors = {}
    for treatment in ("none", "augmentation"):
        metrics = execute(spec_for(particle_store, "mpnn", 150, treatment), tmp_path).splits["test"].metrics
        errors[treatment] = metrics["symmetry_rotation_positions"].value
    assert errors["augmentation"] < 0.8 * errors["none"]
