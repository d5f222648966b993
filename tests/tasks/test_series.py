"""Forecasts of time series: metrics against GluonTS's own, and training from a store to a results table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from scisci.contracts.errors import UserError
from scisci.contracts.results import read_results
from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunSpec
from scisci.data.module import StoreDataModule
from scisci.data.series import rolling_windows, series_batch
from scisci.data.store import Store
from scisci.models.blocks.instance_norm import instance
from scisci.models.conformance.systems import CONTEXT, time_series
from scisci.sweep.cli import main as sweep
from scisci.tasks.baselines.cli import main as baseline
from scisci.tasks.checkpoints import load_model
from scisci.tasks.cli import main
from scisci.tasks.metrics import Accumulator, geometric_mean
from scisci.tasks.run import execute
from scisci.tasks.series import SeriesTask
from scisci.tasks.series_metrics import LEVELS, seasonal_error, seasonal_naive, series_errors
from scisci.tasks.version import code_version

WINDOW = {"context": 48, "horizon": 12}


@pytest.fixture
def batch() -> Any:
    """Windows with gaps in past and future, one channel of which nothing is known, and two seasons."""
    found = time_series(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for name in ("past", "future"):
        observed = found[f"{name}_observed"] & torch.from_numpy(rng.random(found[name].shape) < 0.8)
        found[f"{name}_observed"], found[name] = observed, torch.where(observed, found[name], 0)
    found.past_observed[3, 1], found.past[3, 1] = False, 0
    found.season = torch.tensor([24, 7, 24, 7])
    return found


def mixture(batch: Any, seed: int = 2) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    shape = (*batch.future.shape, 3)
    parts = (
        rng.normal(size=shape),
        2 + rng.exponential(3, shape),
        rng.normal(size=shape),
        rng.exponential(1, shape) + 0.1,
    )
    return dict(zip(("logits", "df", "loc", "scale"), map(torch.from_numpy, parts), strict=True))


def measured(outputs: dict[str, torch.Tensor], batch: Any) -> dict[str, float]:
    errors = Accumulator(series_errors)
    errors.update(outputs, batch)
    return {name: metric.value for name, metric in errors.compute().items()}


def oracle(outputs: dict[str, torch.Tensor]) -> tuple[Any, np.ndarray, np.ndarray]:
    """Density of a value at [b, c, h], deciles and mean of mixtures, by scipy alone."""
    weights = outputs["logits"].softmax(dim=-1).numpy()
    df, loc, scale = (outputs[name].numpy() for name in ("df", "loc", "scale"))

    def of(function: str, x: np.ndarray) -> np.ndarray:
        return (weights * getattr(stats.t, function)(x[..., None], df, loc, scale)).sum(axis=-1)

    low, high = np.full((9, *df.shape[:-1]), -1e3), np.full((9, *df.shape[:-1]), 1e3)
    for _ in range(60):
        middle = (low + high) / 2
        above = np.stack([of("cdf", at) for at in middle]) > np.array(LEVELS)[:, None, None, None]
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return lambda x: of("pdf", x), low, (weights * loc).sum(axis=-1)


def test_metrics_are_those_of_gluonts(batch: Any) -> None:
    metrics, ts_stats = pytest.importorskip("gluonts.ev.metrics"), pytest.importorskip("gluonts.ev.ts_stats")
    outputs = mixture(batch)
    density, deciles, mean = oracle(outputs)
    known = batch.past_observed.any(dim=-1, keepdim=True)
    counted = (batch.future_observed & known).numpy()
    label = np.ma.masked_array(batch.future.numpy(), ~counted)
    past = np.ma.masked_array(batch.past.numpy(), ~batch.past_observed.numpy())
    scale = np.ma.stack([ts_stats.seasonal_error(past[b], int(batch.season[b]), time_axis=1) for b in range(4)])
    np.testing.assert_allclose(seasonal_error(batch)[known].numpy(), scale[known.numpy()].filled(np.nan), rtol=1e-12)
    data = {"label": label, "mean": mean, "seasonal_error": scale}
    data |= {str(level): decile for level, decile in zip(LEVELS, deciles, strict=True)}

    def theirs(metric: Any, **change: Any) -> float:
        evaluator = metric(axis=None)
        evaluator.update(data | change)
        return float(evaluator.get())

    found = measured(outputs, batch)
    assert found["series_wql"] == pytest.approx(theirs(metrics.MeanWeightedSumQuantileLoss(LEVELS)), rel=1e-6)
    assert found["series_mase"] == pytest.approx(theirs(metrics.MASE()), rel=1e-6)
    assert found["series_smape"] == pytest.approx(theirs(metrics.SMAPE()), rel=1e-6)
    units = instance(batch.past, batch.past_observed).scale.numpy()
    assert found["series_mse"] == pytest.approx(theirs(metrics.MSE(), label=label / units, mean=mean / units), rel=1e-9)
    raw = -np.log(density(batch.future.numpy()))
    assert found["series_nll_raw"] == pytest.approx(raw[counted].mean(), rel=1e-9)
    assert found["series_nll"] == pytest.approx((raw - np.log(units))[counted].mean(), rel=1e-9)
    point = {"point": torch.from_numpy(mean)}
    same = {str(level): mean for level in LEVELS}
    found = measured(point, batch)
    assert found["series_wql"] == pytest.approx(theirs(metrics.MeanWeightedSumQuantileLoss(LEVELS), **same), rel=1e-9)
    # The quantile loss of a point is its absolute error.
    assert found["series_wql"] == pytest.approx(theirs(metrics.ND("mean")), rel=1e-9)
    assert "series_nll" not in found


def test_the_seasonal_naive_forecast_by_hand(batch: Any) -> None:
    found = seasonal_naive(batch)
    for b, c, h in np.ndindex(*found.shape):
        season, seen = int(batch.season[b]), batch.past_observed[b, c].tolist()
        places = [t for t in range(CONTEXT) if seen[t] and (CONTEXT + h - t) % season == 0]
        places = places or [t for t in range(CONTEXT) if seen[t]]
        assert found[b, c, h] == (batch.past[b, c, places[-1]] if places else 0)


def test_relative_errors_are_geometric_means_over_series() -> None:
    rng = np.random.default_rng(0)
    groups = np.array([3, 3, 5, 5, 5, 8, 9, 9])
    own, naive = rng.exponential(size=8), rng.exponential(size=8)
    own[5], naive[5] = 0.0, 0.0  # says nothing
    own[groups == 9], naive[groups == 9] = [1.0, 0.0], 0.0  # held to 100
    ratios = [own[:2].sum() / naive[:2].sum(), own[2:5].sum() / naive[2:5].sum(), 100.0]
    found = geometric_mean(own, naive, groups)
    assert found is not None
    assert found.value == pytest.approx(stats.gmean(ratios))
    assert found.se_groups == pytest.approx(stats.gmean(ratios) * stats.sem(np.log(ratios)))
    assert geometric_mean(np.zeros(3), np.zeros(3), np.arange(3)) is None


def test_the_standard_error_of_relative_errors_is_that_of_resampling() -> None:
    rng, groups = np.random.default_rng(1), np.repeat(np.arange(5), 200)
    own, naive = rng.exponential(1 + groups), rng.exponential(2, 1000)
    drawn = [np.concatenate([rng.choice(np.flatnonzero(groups == g), 200) for g in range(5)]) for _ in range(300)]
    values = [geometric_mean(own[at], naive[at], groups[at]).value for at in drawn]  # type: ignore[union-attr]
    assert geometric_mean(own, naive, groups).se == pytest.approx(np.std(values), rel=0.15)  # type: ignore[union-attr]


def test_the_loss_is_in_units_of_each_channel(batch: Any) -> None:
    task, units = SeriesTask(**WINDOW), instance(batch.past, batch.past_observed)
    counted, outputs = batch.future_observed.numpy(), mixture(batch)
    density, _, mean = oracle(outputs)
    nll = -np.log(density(batch.future.numpy())) - np.log(units.scale.numpy())
    assert float(task.loss(outputs, batch)) == pytest.approx(nll[counted].mean())
    missed = np.abs(mean - batch.future.numpy()) / units.scale.numpy()
    huber = np.where(missed < 2, missed**2 / 2, 2 * (missed - 1))
    point = {"point": torch.from_numpy(mean), "penalty": torch.tensor(0.25)}
    assert float(task.loss(point, batch)) == pytest.approx(huber[counted].mean() + 0.25)
    scored = point | {"values": batch.future + 1, "weights": torch.zeros_like(batch.future)}
    scored["weights"][0, 0, 3] = 2.0
    one = abs(mean[0, 0, 3] - float(batch.future[0, 0, 3]) - 1) / float(units.scale[0, 0])
    expected = one**2 / 2 if one < 2 else 2 * (one - 1)
    assert float(task.loss(scored, batch)) == pytest.approx(expected + 0.25)
    assert task.loss(point | {"values": batch.future, "weights": 0 * batch.future}, batch) == 0.25


def spec(store: Path, architecture: str = "dlinear", size: str = "linear", rate: float | None = 0.01) -> RunSpec:
    return RunSpec(
        study="series",
        dataset=str(store),
        fingerprint=Store(store).fingerprint,
        architecture=architecture,
        size=size,
        task=WINDOW,
        data=32,
        optimization=OptimizationSpec(steps=150, batch_size=8, learning_rate=rate, validations=2),
        evaluation=EvaluationSpec(splits=("test", "ood_daily"), symmetry_samples=0),
        code_version=code_version(),
    )


def test_a_run_beats_the_naive_forecast_and_is_what_it_says(series_store: Path, tmp_path: Path) -> None:
    asked, store = spec(series_store), Store(series_store)
    (tmp_path / "again").mkdir()
    result, again = execute(asked, tmp_path), execute(asked, tmp_path / "again")
    assert result.splits == again.splits
    assert result.samples_seen == 150 * 8
    assert result.params == 2 * 12 * (48 + 1)
    # Two maps, of which only the weights have gradients; every batch of windows is as wide as its widest, 2 channels.
    assert result.flops_per_sample == 2 * 2 * 2 * 2 * 48 * 12
    test = result.splits["test"].metrics
    assert test["series_wql_relative"].value < 0.9
    # The same, scored window by window from the weights on disk.
    model, errors = load_model(tmp_path), Accumulator(series_errors)
    ids = store.split("test").indices()
    times = np.array([store.take(ids[k : k + 1]).lengths[0] // (1 + k % 2) for k in range(len(ids))])
    which, starts = rolling_windows(times, 48, 12)
    for k, start in zip(which, starts, strict=True):
        one = series_batch(store.take(ids[k : k + 1]), ["h"], 48, 12, np.array([start]))
        with torch.no_grad():
            errors.update(model(one), one)
    alone = errors.compute()
    assert len(which) == test["series_wql"].n
    for name, metric in alone.items():
        assert test[name].value == pytest.approx(metric.value, rel=1e-5), name


def test_fit_predict_and_test_on_the_command_line(
    series_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model.context=48", "--model.horizon=12", "--trainer.max_steps=20", "--trainer.val_check_interval=10"]
    quiet = ["--trainer.enable_progress_bar=false", f"--runs={tmp_path}"]
    main(["fit", f"--data.dataset={series_store}", *options, *quiet])
    (run,) = tmp_path.iterdir()
    main(["predict", "--run", str(run), "--trainer.enable_progress_bar=false"])
    store, expected = Store(series_store), json.loads((run / "result.json").read_text())["splits"]
    for split in ("test", "ood_daily"):
        with h5py.File(run / "predictions" / f"{split}.h5") as file:
            ids, starts, offsets = (file[name][...] for name in ("ids", "start", "offsets"))
            missed = weight = 0.0
            for k, (sample, start) in enumerate(zip(ids, starts.astype(int), strict=True)):
                taken = store.take(np.array([sample]))
                rows = taken.items["values"].reshape(int(taken.samples["channels"][0]), -1)
                observed = rows[:, start : start + 12].ravel().astype(np.float64)
                deciles = file["quantiles"][offsets[k] : offsets[k + 1]].astype(np.float64)
                assert len(deciles) == len(observed)
                np.testing.assert_array_equal(deciles[:, 4], file["mean"][offsets[k] : offsets[k + 1]])
                over = deciles - observed[:, None]
                missed += np.nansum(np.maximum(over * (1 - np.array(LEVELS)), -over * np.array(LEVELS))) * 2 / 9
                weight += np.nansum(np.abs(observed))
        assert missed / weight == pytest.approx(expected[split]["metrics"]["series_wql"]["value"], rel=1e-5)
    main(["test", "--run", str(run), "--trainer.enable_progress_bar=false"])
    assert "ood_daily" in capsys.readouterr().out


def test_the_baseline_is_its_own_measure(series_store: Path, tmp_path: Path) -> None:
    window = ["--context", "48", "--horizon", "12"]
    baseline(["fit", "seasonal_naive", "--data", str(series_store), *window, "--runs", str(tmp_path)])
    (run,) = tmp_path.iterdir()
    for split in json.loads((run / "result.json").read_text())["splits"].values():
        assert split["metrics"]["series_wql_relative"]["value"] == 1
        assert split["metrics"]["series_mase_relative"]["value"] == 1
    main(["predict", "--run", str(run)])
    with h5py.File(run / "predictions" / "test.h5") as file:
        sample, start = int(file["ids"][0]), int(file["start"][0])
        taken = Store(series_store).take(np.array([sample]))
        rows = taken.items["values"].reshape(int(taken.samples["channels"][0]), -1)
        first = rows[0, start - 24 : start - 12]
        known = ~np.isnan(first)
        np.testing.assert_array_equal(file["mean"][: len(first)][known], first[known])


def test_a_study_of_series_becomes_a_results_table(series_store: Path, tmp_path: Path) -> None:
    study = {
        "study": "series",
        "dataset": str(series_store),
        "task": WINDOW,
        "architectures": {
            "dlinear": {"sizes": ["linear"], "learning_rate": 0.01},
            "seasonal_naive": {"sizes": ["0"]},
        },
        "data": [8, 32],
        "optimization": {"steps": 5, "batch_size": 8},
        "evaluation": {"splits": ["test", "ood_daily"], "symmetry_samples": 0},
    }
    path, out = tmp_path / "study.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(study))
    sweep(["run", str(path), "--out", str(out), "--engine", "inline"])
    sweep(["collect", str(out)])
    table = read_results(out / "results.parquet").to_pandas()
    assert set(table["domain"]) == {"series"}
    assert set(table["status"]) == {"ok"}
    errors = table[table["metric"] == "series_wql"].set_index(["architecture", "data", "split"])
    assert len(errors) == 2 * 2 * 2
    assert errors.loc[("seasonal_naive", 8, "test"), "value"] == errors.loc[("seasonal_naive", 32, "test"), "value"]


def test_what_cannot_be_is_said(series_store: Path, particle_store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="horizon is 0, but must be at least 1"):
        SeriesTask(horizon=0)
    with pytest.raises(UserError, match="egnn is for samples of the domain"):
        SeriesTask("egnn", "3k")
    with pytest.raises(UserError, match="this task needs 'series'"):
        SeriesTask().prepare(StoreDataModule(str(particle_store)))
    options = ["--model.horizon=200", f"--runs={tmp_path / 'runs'}"]
    with pytest.raises(UserError, match="leaves none before a horizon of 200; lower the horizon below"):
        main(["fit", f"--data.dataset={series_store}", *options])
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="--context is for series"):
        baseline(["fit", "constant", "--data", str(particle_store), "--context", "9", "--runs", str(tmp_path)])
