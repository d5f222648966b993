"""Predictions that a run, `predict` or `evaluate` left, held against labels: the numbers that were measured then."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from scisci.contracts.errors import UserError
from scisci.contracts.run import EvaluationSpec, MetricValue, OptimizationSpec, RunResult, RunSpec
from scisci.data.store import Store
from scisci.tasks.baselines import registry as baselines
from scisci.tasks.cli import main
from scisci.tasks.evaluate import Evaluator, quantities
from scisci.tasks.evaluate import evaluate as evaluate_calculator
from scisci.tasks.evaluate_series import Forecaster, load_predictor
from scisci.tasks.evaluate_series import evaluate as evaluate_predictor
from scisci.tasks.run import execute
from scisci.tasks.scoring import errors_of, reading
from scisci.tasks.version import code_version

from . import test_baseline_runs, test_baselines, test_trees

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "atoms": ("painn", "3k", {}),
    "stress": ("schnet", "3k", {}),
    "particles": ("egnn", "3k", {}),
    "velocities": ("painn", "3k", {"target": "velocities", "cutoff": 12.0}),
    "heaviest": ("linear_vectors", "8", {"target": "velocities", "heaviest": 30}),
    "parameters": ("mpnn", "3k", {"target": "parameters", "cutoff": 12.0, "heaviest": 30}),
    "shapes": ("gin", "3k", {"target": "parameters"}),
    "gaps": ("logistic", "1", {"target": "infilling"}),
    "densities": ("patch_encoder", "1k", {"context": 48, "horizon": 12}),
    "points": ("dlinear", "linear", {"context": 400, "horizon": 12}),
    "naive": ("seasonal_naive", "0", {"context": 48, "horizon": 12}),
}


@pytest.fixture(scope="module")
def stores(
    small_store: Path, crystals: Path, particle_store: Path, series_store: Path, tmp_path_factory: Any
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    clouds = test_baselines.store_of(folder / "clouds.h5", test_baseline_runs.falling, train=30, held=24)
    return {
        "atoms": small_store,
        "stress": crystals,
        "particles": particle_store,
        **dict.fromkeys(("velocities", "heaviest", "parameters"), clouds),
        "shapes": test_trees.store_of(folder / "shapes.h5", test_trees.by_shape, train=48),
        "gaps": test_trees.store_of(folder / "gaps.h5", test_trees.to_fill, train=48),
        **dict.fromkeys(("densities", "points", "naive"), series_store),
    }


def run(store: Path, folder: Path, case: str, predictions: bool = True, samples: int | None = 11) -> RunResult:
    architecture, size, task = CASES[case]
    fitted = architecture in baselines.names()
    splits = tuple(name for name in Store(store).splits if name not in ("train", "val"))
    spec = RunSpec(
        study="test",
        dataset=str(store),
        fingerprint=Store(store).fingerprint,
        architecture=architecture,
        size=next(iter(baselines.find(architecture, Store(store).domain, task.get("target")).SIZES))
        if fitted
        else size,
        task=task,
        data=24,
        optimization=OptimizationSpec(steps=6, learning_rate=None if fitted else 0.01, batch_size=4),
        evaluation=EvaluationSpec(splits=splits, max_samples=samples, symmetry_samples=0, predictions=predictions),
        code_version=code_version(),
    )
    return execute(spec, folder)


def rescored(store: Store, path: Path) -> dict[str, MetricValue]:
    with reading(path) as file:
        return errors_of(store, file, path).compute()


def agree(found: Mapping[str, MetricValue], recorded: Mapping[str, MetricValue]) -> None:
    """All metrics but those of densities, which the file lacks; errors to 1e-6, or 1e-9 of what is near zero."""
    assert set(found) == {name for name in recorded if "nll" not in name or name.startswith("infilling")}
    for name, value in found.items():
        expected = recorded[name]
        assert value.n == expected.n
        for part in ("value", "se", "se_groups"):
            assert getattr(value, part) == pytest.approx(getattr(expected, part), rel=1e-6, abs=1e-9), (name, part)


@pytest.mark.parametrize("case", CASES)
def test_rescoring_gives_what_the_run_recorded(stores: dict[str, Path], case: str, tmp_path: Path) -> None:
    store, result = Store(stores[case]), run(stores[case], tmp_path, case)
    assert {path.stem for path in (tmp_path / "predictions").iterdir()} == set(result.splits)
    for split, recorded in result.splits.items():
        path = tmp_path / "predictions" / f"{split}.h5"
        agree(rescored(store, path), recorded.metrics)
        with h5py.File(path) as file:
            assert list(dict.fromkeys(file["ids"][...])) == store.split(split).indices(11).tolist()


def test_predictions_are_kept_when_asked_for_and_change_nothing(small_store: Path, tmp_path: Path) -> None:
    with_, without = tmp_path / "with", tmp_path / "without"
    with_.mkdir()
    without.mkdir()
    kept, other = run(small_store, with_, "atoms"), run(small_store, without, "atoms", predictions=False)
    assert not (without / "predictions").exists()
    assert (kept.run, kept.splits) == (other.run, other.splits)


def test_predict_leaves_the_same_file_as_the_run(series_store: Path, tmp_path: Path) -> None:
    result = run(series_store, tmp_path, "densities", samples=None)
    before = {path.name: path.read_bytes() for path in (tmp_path / "predictions").iterdir()}
    main(["predict", "--run", str(tmp_path), "--trainer.enable_progress_bar=false"])
    assert {path.name: path.read_bytes() for path in (tmp_path / "predictions").iterdir()} == before
    assert set(before) == {f"{split}.h5" for split in result.splits}


def test_outside_models_are_scored_as_they_were_measured(crystals: Path, series_store: Path, tmp_path: Path) -> None:
    from ase.calculators.lj import LennardJones

    calculator, path = LennardJones(sigma=2.3, epsilon=0.4, rc=5.0), tmp_path / "test.h5"
    store = Store(crystals)
    evaluator = Evaluator(calculator, quantities(store, calculator), np.zeros(119))
    recorded = evaluate_calculator(store, "test", evaluator, path, 9, calculator="LJ")
    agree(rescored(store, path), recorded)
    store = Store(series_store)
    predictor = load_predictor("gluonts.model.trivial.mean:MeanPredictor", 12, {"num_samples": 50, "context_length": 9})
    options = {"context": "48", "horizon": "12"}
    recorded = evaluate_predictor(store, "test", Forecaster(predictor, 48, 12), path, 7, **options)
    agree(rescored(store, path), recorded)


def altered(source: Path, target: Path, change: Any) -> Path:
    target.write_bytes(source.read_bytes())
    with h5py.File(target, "r+") as file:
        change(file)
    return target


def replace(name: str, change: Any) -> Any:
    def apply(file: h5py.File) -> None:
        values = change(file[name][...])
        del file[name]
        file[name] = values

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.attrs.pop("horizon"), "need the attributes context and horizon"),
        (lambda file: file.attrs.update(context="-3"), "gives '-3' as its context"),
        (lambda file: file.attrs.update(horizon="9"), "not one row for each sample|another number of points"),
        (lambda file: file.attrs.update(format="other"), "not a predictions file"),
        (lambda file: file.attrs.update(fingerprint="0" * 64), "is for other data"),
        (lambda file: file.pop("quantiles"), "has no quantiles"),
        (lambda file: file.pop("offsets"), "has no offsets"),
        (replace("ids", lambda ids: ids + 10**6), "samples that .* does not have"),
        (replace("ids", lambda ids: np.roll(ids, 1)), "not one row for each sample"),
        (replace("mean", lambda mean: mean[:-1]), "rows of mean, not"),
        (replace("start", lambda start: start + 1), "begin at other steps"),
        (replace("offsets", lambda offsets: offsets[:-1]), "does not say of every sample"),
        (replace("offsets", lambda offsets: np.where(offsets == offsets[1], offsets + 1, offsets)), "number of points"),
    ],
)
def test_what_does_not_fit_the_samples_is_refused(
    series_store: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, change: Any, message: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "naive"
    if not folder.exists():
        folder.mkdir()
        run(series_store, folder, "naive")
    path = altered(folder / "predictions" / "test.h5", tmp_path / "test.h5", change)
    with pytest.raises(UserError, match=message):
        rescored(Store(series_store), path)


def test_a_context_beyond_all_reason_takes_no_more_memory(series_store: Path, tmp_path: Path) -> None:
    result = run(series_store, tmp_path, "points")
    path = altered(
        tmp_path / "predictions" / "test.h5", tmp_path / "far.h5", lambda f: f.attrs.update(context="9" * 15)
    )
    agree(rescored(Store(series_store), path), result.splits["test"].metrics)
