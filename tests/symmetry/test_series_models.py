"""Symmetry errors of forecasts: those of functions in closed form, of every architecture, and of trained runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.contracts.metrics import METRICS, SERIES_GROUPS
from scisci.data.ragged import Ragged, offsets_of
from scisci.data.samples import SeriesSample
from scisci.data.series import series_batch
from scisci.data.writer import StoreWriter
from scisci.models import registry
from scisci.symmetry.forecasts import ABOUT, alike, measure_forecasts
from scisci.symmetry.measure import relative_rms
from scisci.symmetry.series import LARGEST_SCALE
from scisci.tasks.cli import main as fit
from scisci.tasks.series import centre, normalised
from scisci.tasks.symmetry import measured
from scisci.tasks.symmetry_cli import main

CONTEXT, HORIZON, PATCH = 24, 12, 4
SERIES_MODELS = registry.architectures("series")


def windows(channels: tuple[int, ...] = (5, 5, 5, 5), missing: float = 0.0, periodic: bool = False) -> Any:
    """A batch in float64; `periodic`: the context is two periods of every series."""
    rng = np.random.default_rng(0)
    values = []
    for count in channels:
        series = rng.normal(size=(count, CONTEXT + HORIZON)) + rng.normal(size=(count, 1))
        values.append(np.tile(series[:, : CONTEXT // 2], 3) if periodic else series)
    flat = np.concatenate([series.ravel() for series in values])
    flat[rng.random(len(flat)) < missing] = np.nan
    counts = np.array(channels)
    samples = {"channels": counts, "known": 0 * counts, "group": np.arange(len(counts))}
    ragged = Ragged(offsets_of(counts * (CONTEXT + HORIZON)), {"values": flat}, samples)
    return series_batch(ragged, ["D"] * len(counts), CONTEXT, HORIZON, dtype=np.float64)


def errors(forecast: Callable[[Any], Tensor], batch: Any, patch: int | None = None, elements: int = 4) -> Any:
    found = measure_forecasts(forecast, [batch], ABOUT, normalised, patch, elements)
    return {group: relative_rms(e.squares.mean(axis=1), e.signals).value for (group, _), e in found.items()}


def last(batch: Any) -> Tensor:
    return batch.past[:, :, -1:].expand(-1, -1, HORIZON)


def last_of_the_channel_before(batch: Any) -> Tensor:
    return last(batch).roll(1, 1)


def absolute(batch: Any) -> Tensor:
    return last(batch).abs()


def period_before(batch: Any) -> Tensor:
    return batch.past[:, :, CONTEXT // 2 :]


def patch_means_of_period_before(batch: Any) -> Tensor:
    return period_before(batch).unflatten(2, (-1, PATCH)).mean(3, keepdim=True).expand(-1, -1, -1, PATCH).flatten(2)


@pytest.mark.parametrize(
    ("forecast", "symmetries"),
    [
        (last, {"scale", "offset", "channels"}),
        (last_of_the_channel_before, {"scale", "offset"}),
        (absolute, {"scale", "channels"}),
        (period_before, {"scale", "offset", "delay", "patches", "channels"}),
        (patch_means_of_period_before, {"scale", "offset", "patches", "channels"}),
    ],
)
def test_functions_have_no_error_under_their_symmetries_alone(
    forecast: Callable[[Any], Tensor], symmetries: set[str]
) -> None:
    found = errors(forecast, windows(periodic=True), PATCH)
    assert found.keys() == set(ABOUT)
    assert {group for group, error in found.items() if error < 1e-12} == symmetries
    assert min(error for group, error in found.items() if group not in symmetries) > 1e-2


def test_error_of_a_broken_scale_is_that_of_the_closed_form() -> None:
    """f = x + c gives g⁻¹ f(g x) - f(x) = c (1 / a - 1), a log-uniform from 1/10 to 10."""
    batch = windows((1,) * 8)
    (found,) = measure_forecasts(lambda b: last(b) + 5.0, [batch], ["scale"], normalised, None, 4000).values()
    unit = normalised(batch, batch.past + 5.0)[:, :, :1] - normalised(batch, batch.past)[:, :, :1]
    width = 2 * np.log(LARGEST_SCALE)
    mean, square = 2 * np.sinh(width / 2) / width, np.sinh(width) / width
    expected = HORIZON * unit[:, 0, 0].square().numpy() * (square - 2 * mean + 1)
    np.testing.assert_allclose(found.squares.mean(axis=1), expected, rtol=0.15)
    np.testing.assert_array_equal(found.entries, HORIZON)
    label = normalised(batch, last(batch) + 5.0) - normalised(batch, batch.future)
    np.testing.assert_allclose(found.missed, label.square().sum(dim=(1, 2)), rtol=1e-12)


def test_only_steps_with_labels_and_channels_with_a_past_count() -> None:
    batch = windows(missing=0.3)
    batch.past_observed[0, 1], batch.past[0, 1] = False, 0

    def unseen_is_nan(part: Any) -> Tensor:
        """Nothing of channels without a past, or of steps without a label, may be read."""
        return torch.where(
            part.future_observed & part.past_observed.any(2, keepdim=True), part.past[..., :1], torch.nan
        )

    (found,) = measure_forecasts(unseen_is_nan, [batch], ["scale"], normalised).values()
    seen = batch.future_observed.clone()
    seen[0, 1] = False
    np.testing.assert_array_equal(found.entries, seen.sum(dim=(1, 2)))
    assert found.squares.max() < 1e-20
    assert np.isfinite(found.signals).all()
    assert np.isfinite(found.missed).all()


def test_channels_constant_over_their_context_are_left_out() -> None:
    """They have no unit: 1 may be as much to one of them as 10 to another."""
    batch = windows((2,) * 6)
    batch.past[0, 1], batch.past[1] = 7.0, 0.0
    units = [measure_forecasts(lambda b: last(b) + 5.0, [batch], [g], normalised) for g in ("scale", "offset")]
    for (found,) in (part.values() for part in units):
        entries = batch.future_observed.sum(dim=2)
        entries[0, 1], entries[1] = 0, 0
        np.testing.assert_array_equal(found.entries, entries.sum(dim=1))
        assert found.squares[1] == found.signals[1] == 0
    assert relative_rms(found.squares.mean(axis=1), found.signals).value < 1e-6


def test_absent_channels_never_take_part() -> None:
    batch = windows((3, 1, 2, 3, 1))
    rows = {count: part for _, part in alike(batch) for count in [part.past.shape[1]]}
    assert sorted(rows) == [1, 2, 3]
    for which, part in alike(batch):
        assert part.num_graphs == len(which)
        assert torch.equal(part.past, batch.past[which, : part.past.shape[1]])
        assert torch.equal(part.group, batch.group[which])

    def poisoned(part: Any) -> Tensor:
        assert part.past_observed.any(dim=2).all()
        return last(part)

    found = measure_forecasts(poisoned, [batch, batch], ["scale", "channels", "patches"], normalised)
    # A single channel has no order, and there are no patches.
    assert {group: sorted(e.samples) for (group, _), e in found.items()} == {
        "scale": list(range(10)),
        "channels": [0, 2, 3, 5, 7, 8],
    }


def test_delays_compare_what_both_forecasts_are_about() -> None:
    """A forecast that counts its own steps is off by the delay, at all steps it has in common with the delayed one."""

    def counting(batch: Any) -> Tensor:
        return torch.arange(HORIZON).double().expand(*batch.past.shape[:2], -1)

    batch = windows((1,) * 6)
    scale = normalised(batch, torch.ones_like(batch.past)) - normalised(batch, torch.zeros_like(batch.past))
    for group, patch, possible in (
        ("delay", None, range(1, HORIZON)),
        ("patches", PATCH, range(PATCH, HORIZON, PATCH)),
    ):
        (found,) = measure_forecasts(counting, [batch], [group], normalised, patch, 300).values()
        off = np.sqrt(found.squares / HORIZON) / scale[:, 0, :1].numpy()
        assert sorted(set(off.round(6).ravel())) == list(possible)


@pytest.mark.parametrize("name", SERIES_MODELS)
def test_architectures_have_the_symmetries_they_claim(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        smallest = next(iter(registry.get(name).SIZES))
        model = registry.build_forecaster(name, CONTEXT, HORIZON, **registry.preset(name, smallest)).double().eval()
        for parameter in model.parameters():
            # Heads that begin at zero would have every symmetry.
            torch.nn.init.normal_(parameter, std=0.3) if parameter.abs().max() == 0 else None
    with torch.no_grad():
        found = errors(lambda batch: centre(model(batch)), windows((3, 5, 1, 3), missing=0.1))
    claimed = {group for group, claim in model.symmetry.items() if claim == "exact"}
    assert {group: error for group, error in found.items() if group in claimed and error > 1e-9} == {}
    if model.symmetry["channels"] == "none":
        assert found["channels"] > 1e-4


def test_unknown_group_names_the_closest() -> None:
    with pytest.raises(UserError, match="did you mean 'delay'"):
        measure_forecasts(last, [windows()], ["delays"], normalised)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, rng = tmp_path_factory.mktemp("rings") / "data.h5", np.random.default_rng(0)
    with StoreWriter(path, "series") as writer:
        for k in range(24):
            series = rng.normal(size=(5, 40)).cumsum(axis=1) * 10.0 ** rng.integers(-3, 4)
            writer.append(SeriesSample(series, 0, "h"), f"ring {k}")
        for name, part in {"train": range(16), "val": range(16, 20), "test": range(20, 24)}.items():
            writer.split(name, np.array(part), "none", disjoint=name != "train")
    return path


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    options = {"architecture": "fernn", "size": "3k", "context": 12, "horizon": 6, "symmetry_samples": 4}
    fit(
        [
            *("fit", f"--data.dataset={store}", f"--runs={runs}", "--trainer.max_steps=3"),
            *("--trainer.val_check_interval=3", "--trainer.enable_progress_bar=false"),
            *(f"--model.{name}={value}" for name, value in options.items()),
        ]
    )
    (folder,) = runs.iterdir()
    return folder


def test_runs_record_symmetry_errors_by_split(run: Path) -> None:
    result = SimpleNamespace(**pd.read_json(run / "result.json", typ="series"))
    assert result.status == "ok"
    found = {name: metric["value"] for name, metric in result.splits["test"]["metrics"].items() if "symmetry" in name}
    groups = [group for group in SERIES_GROUPS if group != "patches"]
    assert set(found) == {f"symmetry_{group}_forecast{p}" for group in groups for p in ("", "_float64")} <= set(METRICS)
    for group in ("scale", "offset"):
        assert found[f"symmetry_{group}_forecast_float64"] < 1e-12 < found[f"symmetry_{group}_forecast"] < 1e-4
    # Five sensors and seven velocities: there is no edge.
    assert found["symmetry_flow_forecast_float64"] < 1e-12
    assert found["symmetry_channels_forecast_float64"] > 1e-2


def test_measure_prints_and_writes_every_group(
    run: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    main(["measure", str(run), "--data", str(store), "--split", "val", "test", "--out", str(tmp_path / "a.csv")])
    shown, table = capsys.readouterr().out, pd.read_csv(tmp_path / "a.csv")
    assert "flow forecast" in shown
    relative = table[table.statistic == "relative"].set_index(["split", "group"]).value
    assert set(relative.index.get_level_values("split")) == {"val", "test"}
    assert set(relative.index.get_level_values("group")) == {"scale", "offset", "delay", "channels", "flow"}
    assert (relative.xs("channels", level="group") > 1e-2).all()
    worst = table[(table.statistic == "worst") & (table.split == "test")]
    assert set(worst["sample"]) <= set(range(20, 24))


def test_groups_of_space_are_refused_for_series(run: Path, store: Path) -> None:
    with pytest.raises(UserError, match="unknown symmetry group of series 'rotation'"):
        measured(str(run), str(store), ["test"], ["rotation"])


def test_groups_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["groups"])
    shown = capsys.readouterr().out
    assert all(group in shown for group in ABOUT)
    assert set(ABOUT) == set(SERIES_GROUPS)
