"""GluonTS predictors on the splits, by GluonTS's own evaluation; models trained here as such predictors."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from gluonts.ev.metrics import MASE, MSE, SMAPE, MeanWeightedSumQuantileLoss
from gluonts.model.evaluation import evaluate_forecasts
from gluonts.model.forecast import QuantileForecast, SampleForecast
from gluonts.model.predictor import RepresentablePredictor
from gluonts.model.seasonal_naive import SeasonalNaivePredictor
from gluonts.torch.distributions import StudentTOutput
from gluonts.torch.model.forecast import DistributionForecast

from scisci.contracts.errors import UserError
from scisci.contracts.metrics import metric
from scisci.data.samples import SeriesSample
from scisci.data.series import rolling_windows
from scisci.data.store import Store
from scisci.data.writer import StoreWriter
from scisci.tasks.cli import main as lightning
from scisci.tasks.evaluate_cli import main
from scisci.tasks.evaluate_series import Forecaster, batches, evaluate, load_predictor
from scisci.tasks.predictor import ScisciPredictor
from scisci.tasks.series_metrics import LEVELS

# That is in gluonts's get_seasonality.
pytestmark = pytest.mark.filterwarnings("ignore:The 'name' property is deprecated")

CONTEXT, HORIZON = 48, 12
SIZES = {"dlinear": "linear", "patch_decoder": "1k", "channel_mixer": "1k"}
NAIVE = "gluonts.model.seasonal_naive:SeasonalNaivePredictor"


class Samples(RepresentablePredictor):
    """A hundred noisy copies of the last value, seeded by the series itself."""

    def predict_item(self, item: Any) -> SampleForecast:
        target = item["target"][~np.isnan(item["target"])]
        rng = np.random.default_rng(len(target) + int(abs(target[-1]) * 1e4) % 2**31)
        samples = target[-1] + target.std() * rng.normal(size=(100, self.prediction_length))
        return SampleForecast(samples, item["start"] + len(item["target"]))


class Normal(RepresentablePredictor):
    """A normal distribution with the mean and standard deviation of the context."""

    def predict_item(self, item: Any) -> DistributionForecast:
        mean, scale = np.nanmean(item["target"], axis=-1), np.nanstd(item["target"], axis=-1)
        shape = (self.prediction_length, *np.shape(mean))
        parts = (torch.from_numpy(np.broadcast_to(part, shape).astype(np.float64)) for part in (mean, scale))
        return DistributionForecast(torch.distributions.Normal(*parts), item["start"] + item["target"].shape[-1])


class Sometimes(Normal):
    """A distribution of the even windows alone."""

    def predict(self, dataset: Any, **kwargs: Any) -> Iterator[Any]:
        for k, item in enumerate(dataset):
            found = self.predict_item(item)
            yield found.to_sample_forecast(5) if k % 2 else found


class Fails(Normal):
    """Fails in some way."""

    def __init__(self, prediction_length: int, how: str) -> None:
        super().__init__(prediction_length)
        self.how = how

    def predict(self, dataset: Any, **kwargs: Any) -> Iterator[Any]:
        if self.how == "raises":
            raise RuntimeError("out\nof luck")
        length = self.prediction_length - (self.how == "short")
        for item in list(dataset)[self.how == "few" :]:
            values = np.full((10, length), np.nan if self.how == "nan" else 1.0)
            yield QuantileForecast(values, item["start"], ["mean", *map(str, LEVELS)])


class Late(Normal):
    """Begins later."""

    def __init__(self, prediction_length: int) -> None:
        super().__init__(prediction_length, lead_time=2)


def fixed(prediction_length: int) -> Normal:
    """Has a horizon of its own."""
    return Normal(24)


@dataclass
class TestData:
    """What GluonTS evaluates on: histories, and what came after."""

    __test__ = False
    input: list[dict[str, Any]]
    label: list[dict[str, Any]]


def windows(store: Store, split: str) -> TestData:
    """The windows of evaluation, channel by channel, straight from the stored values."""
    found = TestData([], [])
    for k in store.split(split).indices():
        one, freq = store.take(np.array([k])), store.metadata("freq")[k]
        rows = one.items["values"].reshape(int(one.samples["channels"][0]), -1)
        times = pd.period_range(pd.Timestamp(int(one.samples["start"][0]), unit="s"), periods=rows.shape[1], freq=freq)
        for start in rolling_windows(np.array([rows.shape[1]]), CONTEXT, HORIZON)[1]:
            first = max(0, start - CONTEXT)
            for row in rows:
                found.input.append({"start": times[first], "target": row[first:start]})
                found.label.append({"start": times[start], "target": row[start : start + HORIZON]})
    return found


@pytest.mark.parametrize("make", [lambda h: SeasonalNaivePredictor(h, 24), Samples, Normal])
@pytest.mark.parametrize("split", ["test", "ood_daily"])
def test_errors_are_those_of_gluonts(series_store: Path, tmp_path: Path, make: Any, split: str) -> None:
    store, predictor = Store(series_store), make(HORIZON)
    found = evaluate(store, split, Forecaster(predictor, CONTEXT, HORIZON), tmp_path / "out.h5")
    data = windows(store, split)
    metrics = [MeanWeightedSumQuantileLoss(LEVELS), MASE(), SMAPE()]
    theirs = evaluate_forecasts(predictor.predict(data.input), test_data=data, metrics=metrics).iloc[0]
    assert found["series_wql"].value == pytest.approx(theirs["mean_weighted_sum_quantile_loss"], rel=1e-6)
    assert found["series_mase"].value == pytest.approx(theirs["MASE[0.5]"], rel=1e-6)
    assert found["series_smape"].value == pytest.approx(theirs["sMAPE[0.5]"], rel=1e-6)
    # Units of each context's standard deviation: GluonTS has the same if series and forecasts are divided by it.
    scales = np.array([np.nanstd(entry["target"].astype(np.float64)) for entry in data.input])
    means = np.stack([forecast.mean for forecast in predictor.predict(data.input)])
    labels = np.ma.masked_invalid([entry["target"] for entry in data.label])
    evaluator = MSE()(axis=None)
    evaluator.update({"label": labels / scales[:, None], "mean": means / scales[:, None]})
    assert found["series_mse"].value == pytest.approx(float(evaluator.get()), rel=1e-5)
    assert ("series_nll" in found) == (make is Normal)


def test_a_density_has_a_likelihood(series_store: Path, tmp_path: Path) -> None:
    store = Store(series_store)
    found = evaluate(store, "test", Forecaster(Normal(HORIZON), CONTEXT, HORIZON), tmp_path / "one.h5")
    data, raw, normalised = windows(store, "test"), [], []
    for past, future in zip(data.input, data.label, strict=True):
        mean, scale = np.nanmean(past["target"].astype(np.float64)), np.nanstd(past["target"].astype(np.float64))
        z = (future["target"][~np.isnan(future["target"])] - mean) / scale
        normalised.extend(z**2 / 2 + np.log(2 * np.pi) / 2)
        raw.extend(z**2 / 2 + np.log(2 * np.pi) / 2 + np.log(scale))
    assert found["series_nll"].value == pytest.approx(np.mean(normalised), rel=1e-5)
    assert found["series_nll_raw"].value == pytest.approx(np.mean(raw), rel=1e-5)
    together = evaluate(store, "test", Forecaster(Normal(HORIZON), CONTEXT, HORIZON, True), tmp_path / "all.h5")
    for name, error in found.items():
        assert together[name].value == pytest.approx(error.value, rel=1e-6), name
    some = evaluate(store, "test", Forecaster(Sometimes(HORIZON), CONTEXT, HORIZON), tmp_path / "some.h5")
    assert set(found) - set(some) == {"series_nll", "series_nll_raw"}


def test_densities_of_gluonts_heads_are_read(series_store: Path, tmp_path: Path) -> None:
    """The heads of GluonTS's networks are transformed distributions on an affine scale."""

    class Head(Normal):
        def predict_item(self, item: Any) -> DistributionForecast:
            normal = super().predict_item(item).distribution
            args = (torch.full((HORIZON,), 1e6).double(), torch.zeros(HORIZON).double(), torch.ones(HORIZON).double())
            head = StudentTOutput().distribution(args, loc=normal.loc, scale=normal.scale)
            return DistributionForecast(head, item["start"] + len(item["target"]))

    store = Store(series_store)
    own, head = (
        evaluate(store, "test", Forecaster(make(HORIZON), CONTEXT, HORIZON), tmp_path / "out.h5", 3)
        for make in (Normal, Head)
    )
    for name in ("series_nll", "series_nll_raw", "series_wql"):
        assert head[name].value == pytest.approx(own[name].value, rel=1e-4)


def test_the_naive_forecast_of_gluonts_is_the_measure(tmp_path: Path) -> None:
    """Without gaps, GluonTS's seasonal naive forecast is the one that errors are relative to."""
    rng, path = np.random.default_rng(0), tmp_path / "whole.h5"
    with StoreWriter(path, "series") as writer:
        for k in range(3):
            writer.append(SeriesSample(rng.normal(size=(2, 150)), 3600 * k, "h"), f"{k}")
        writer.split("test", np.arange(3), "none")
    naive = SeasonalNaivePredictor(HORIZON, 24)
    found = evaluate(Store(path), "test", Forecaster(naive, CONTEXT, HORIZON), tmp_path / "out.h5")
    assert found["series_wql_relative"].value == pytest.approx(1, abs=1e-12)
    assert found["series_mase_relative"].value == pytest.approx(1, abs=1e-12)


def test_entries_are_the_windows_without_padding(tmp_path: Path) -> None:
    path, target = tmp_path / "odd.h5", np.arange(100.0).reshape(2, 50)
    target[1, 10:30], target[0, 33] = np.nan, np.nan
    with StoreWriter(path, "series") as writer:
        writer.append(SeriesSample(target, int(pd.Timestamp("2001-01-31").timestamp()), "D"), "days")
        writer.append(SeriesSample(target[:1, :9], int(pd.Timestamp("2001-03-01").timestamp()), "MS"), "months")
        writer.split("test", np.arange(2), "none")
    store = Store(path)
    forecaster = Forecaster(Normal(5), 10, 5)
    ((samples, _, entries, rows),) = batches(store, forecaster.windows(store, "test", None), together=False)
    assert samples.tolist() == [0] * 8 + [1]
    # The second channel has nothing in the contexts before steps 20, 25 and 30.
    asked = [(window, channel) for window in range(9) for channel in range(2)]
    assert rows == [pair for pair in asked if pair not in ((2, 1), (3, 1), (4, 1), (8, 1))]
    first = entries[0]
    assert first["start"] == pd.Period("2001-01-31", "D")
    np.testing.assert_array_equal(first["target"], np.arange(10))
    gap = entries[rows.index((5, 0))]
    assert gap["start"] == pd.Period("2001-01-31", "D") + 25
    np.testing.assert_array_equal(gap["target"], [25, 26, 27, 28, 29, 30, 31, 32, np.nan, 34])
    assert entries[-1]["start"] == pd.Period("2001-03", "M")
    np.testing.assert_array_equal(entries[-1]["target"], np.arange(4))


@pytest.fixture(scope="module")
def runs(series_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run directories of a model of points, of one of mixtures, and of one that mixes channels."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for architecture, size in SIZES.items():
        options = [f"--model.context={CONTEXT}", f"--model.horizon={HORIZON}", "--model.symmetry_samples=0"]
        options += ["--trainer.max_steps=20", "--trainer.val_check_interval=20", "--trainer.enable_progress_bar=false"]
        options += [f"--model.architecture={architecture}", f"--model.size={size}"]
        if architecture != "dlinear":
            options.append("--model.overrides={patch: 8}")
        lightning(["fit", f"--data.dataset={series_store}", *options, f"--runs={folder / architecture}"])
        (found[architecture],) = (folder / architecture).iterdir()
    return found


@pytest.mark.parametrize("architecture", ["dlinear", "patch_decoder", "channel_mixer"])
def test_a_model_evaluates_as_it_tests(
    runs: dict[str, Path], series_store: Path, tmp_path: Path, architecture: str
) -> None:
    expected = json.loads((runs[architecture] / "result.json").read_text())["splits"]
    options = {"checkpoint": str(runs[architecture]), "batch_size": 7}
    predictor = load_predictor("scisci.tasks.predictor:ScisciPredictor", HORIZON, options)
    lightning(["predict", "--run", str(runs[architecture]), "--trainer.enable_progress_bar=false"])
    for split, outcome in expected.items():
        path, together = tmp_path / f"{split}.h5", architecture == "channel_mixer"
        found = evaluate(Store(series_store), split, Forecaster(predictor, CONTEXT, HORIZON, together), path)
        assert set(found) == set(outcome["metrics"])
        for name, error in outcome["metrics"].items():
            for part in ("value", "se", "se_groups", "n"):
                assert getattr(found[name], part) == pytest.approx(error[part], rel=1e-4, abs=1e-6), (name, part)
        with h5py.File(path) as own, h5py.File(runs[architecture] / "predictions" / f"{split}.h5") as predicted:
            assert set(own) == set(predicted)
            for name in own:
                np.testing.assert_allclose(own[name][...], predicted[name][...], rtol=1e-4, atol=1e-4)


def test_the_command_prints_what_the_run_printed(
    runs: dict[str, Path], series_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = json.loads((runs["patch_decoder"] / "result.json").read_text())["splits"]["test"]["metrics"]
    window = [f"--context={CONTEXT}", f"--horizon={HORIZON}", f"--out={tmp_path}"]
    checkpoint = ["--predictor-options", f"checkpoint={runs['patch_decoder']}"]
    own = ["--predictor=scisci.tasks.predictor:ScisciPredictor", *checkpoint]
    main([*own, f"--data={series_store}", "--split=test", *window])
    shown = capsys.readouterr().out
    for name, value in expected.items():
        line = next(line for line in shown.splitlines() if line.startswith(f"│ {metric(name).title} "))
        assert float(line.split("│")[2].split("±")[0]) == pytest.approx(value["value"], rel=1e-3)
    assert f"forecasts of {HORIZON} steps from at most {CONTEXT}" in shown
    with h5py.File(tmp_path / "test.h5") as file:
        assert (file.attrs["context"], file.attrs["horizon"]) == (str(CONTEXT), str(HORIZON))


@pytest.mark.parametrize("architecture", ["dlinear", "patch_decoder"])
def test_forecasts_of_any_entry(runs: dict[str, Path], architecture: str) -> None:
    rng, predictor = np.random.default_rng(0), ScisciPredictor(runs[architecture])
    start, target = pd.Period("2020-02-28 22:00", "h"), rng.normal(size=(2, 70)).astype(np.float32)
    gaps = np.where(rng.random(target.shape) < 0.2, np.nan, target)

    def forecast(values: np.ndarray, **more: Any) -> Any:
        (found,) = predictor.predict([{"start": start, "target": values, **more}])
        return found

    both = forecast(gaps, item_id="x", info={"a": 1})
    assert (both.item_id, both.info, both.start_date) == ("x", {"a": 1}, start + 70)
    assert both.mean.shape == both.quantile(0.9).shape == (HORIZON, 2)
    for k in range(2):
        one = forecast(gaps[k])
        assert one.mean.shape == one.quantile("0.35").shape == (HORIZON,)
        np.testing.assert_allclose(one.mean, both.mean[:, k], rtol=1e-5)
        np.testing.assert_allclose(one.quantile("p30"), both.quantile(0.3)[:, k], rtol=1e-5)
    # Only the context counts, and what lies before a short series is as what was not observed.
    np.testing.assert_array_equal(forecast(gaps[0]).mean, forecast(gaps[0, -CONTEXT:]).mean)
    padded = np.concatenate([np.full(20, np.nan), gaps[0, -28:]])
    np.testing.assert_array_equal(forecast(gaps[0, -28:]).mean, forecast(padded).mean)
    if architecture == "patch_decoder":
        one, levels = forecast(gaps[0]), np.array([0.05, 0.3, 0.35, 0.999])
        assert isinstance(one, DistributionForecast)
        drawn = one.to_sample_forecast(20_000)
        for level in levels:
            below = (drawn.samples < one.quantile(float(level))).mean(axis=0)
            assert below == pytest.approx(level, abs=5 * np.sqrt(level * (1 - level) / 20_000))
    else:
        np.testing.assert_array_equal(forecast(gaps[0]).quantile(0.1), forecast(gaps[0]).mean)
    short = ScisciPredictor(runs[architecture], prediction_length=5)
    (found,) = short.predict([{"start": start, "target": gaps}])
    np.testing.assert_array_equal(found.mean, both.mean[:5])
    entries = [{"start": start, "target": target[k % 2, : 30 + k]} for k in range(9)]
    many = list(ScisciPredictor(runs[architecture], batch_size=4).predict(iter(entries)))
    for k, entry in enumerate(entries):
        np.testing.assert_allclose(many[k].mean, forecast(entry["target"]).mean, rtol=1e-4, atol=1e-6)


def test_gluonts_evaluates_it(runs: dict[str, Path], series_store: Path) -> None:
    """GluonTS's evaluation of the predictor, without any of ours, gives what the run found."""
    data = windows(Store(series_store), "test")
    forecasts = ScisciPredictor(runs["patch_decoder"]).predict(data.input)
    metrics = [MeanWeightedSumQuantileLoss(LEVELS), MASE(), SMAPE()]
    theirs = evaluate_forecasts(forecasts, test_data=data, metrics=metrics).iloc[0]
    expected = json.loads((runs["patch_decoder"] / "result.json").read_text())["splits"]["test"]["metrics"]
    assert expected["series_wql"]["value"] == pytest.approx(theirs["mean_weighted_sum_quantile_loss"], rel=1e-5)
    assert expected["series_mase"]["value"] == pytest.approx(theirs["MASE[0.5]"], rel=1e-5)
    assert expected["series_smape"]["value"] == pytest.approx(theirs["sMAPE[0.5]"], rel=1e-5)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raises", "failed on one of .* series from sample .*: RuntimeError: out of luck"),
        ("short", r"forecasts \(11,\) of sample .* where \(12,\) are asked for; make it forecast 12 steps"),
        ("few", "gives .* forecasts of .* series"),
        ("nan", "forecast of sample .* is not finite"),
    ],
)
def test_a_predictor_that_fails_is_told_with_the_series(
    series_store: Path, tmp_path: Path, how: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(Store(series_store), "test", Forecaster(Fails(HORIZON, how), CONTEXT, HORIZON), tmp_path / "out.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictor=nowhere:Naive"], "cannot load nowhere:Naive: No module named 'nowhere'"),
        (["--predictor=gluonts.model.seasonal_naive:Naive"], "cannot load gluonts.model.seasonal_naive:Naive"),
        (["--predictor=gluonts"], "give module:factory"),
        (["--predictor=builtins:dict"], "gives a dict; give what returns a GluonTS predictor"),
        (["--predictor-options", "season_length=0.5x"], "correct --predictor-options"),
        (["--predictor-options", "a"], "--predictor-options a is not understood"),
        (["--predictor-options", "wrong=1"], "cannot be called: .*wrong"),
        (["--horizon=250"], "lower the horizon below"),
        (["--horizon=0"], "--horizon is 0"),
        (["--context=0"], "--context is 0"),
        (["--align=energy"], "--align goes with --calculator"),
        (["--split", "tset"], "unknown split 'tset'; did you mean 'test'"),
    ],
)
def test_bad_options_are_one_sentence(series_store: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    given = [f"--predictor={NAIVE}", f"--data={series_store}", "--split=test", f"--out={tmp_path / 'out'}"]
    with pytest.raises(UserError, match=message):
        main([*given, "--horizon=12", "--predictor-options", "season_length=24", *arguments])
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_together_is_said(
    runs: dict[str, Path], series_store: Path, particle_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"--predictor={NAIVE}", "--predictor-options", "season_length=24", "--split=test"]
    with pytest.raises(UserError, match="has no time series"):
        main([*given, f"--data={particle_store}"])
    with pytest.raises(SystemExit) as exit_:
        main([*given, f"--data={series_store}", "--calculator=ase.calculators.emt:EMT"])
    assert exit_.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err
    with pytest.raises(UserError, match="--context goes with --predictor"):
        main(["--calculator=ase.calculators.emt:EMT", f"--data={particle_store}", "--split=test", "--context=9"])
    with pytest.raises(UserError, match="forecasts 24 steps, not 12; give --horizon 24"):
        load_predictor(f"{__name__}:fixed", HORIZON, {})
    with pytest.raises(UserError, match="leaves out the next 2 steps"):
        load_predictor(f"{__name__}:Late", HORIZON, {})
    with pytest.raises(UserError, match="forecasts 1 to 12 steps, not 13; give a horizon it has"):
        load_predictor("scisci.tasks.predictor:ScisciPredictor", 13, {"checkpoint": str(runs["dlinear"])})


def test_without_gluonts_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "gluonts":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.partition(".")[0] == "gluonts"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "scisci.tasks.predictor")
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match=r"install it with pip install 'scisci\[series\]'"):
        load_predictor("scisci.tasks.predictor:ScisciPredictor", HORIZON, {})
