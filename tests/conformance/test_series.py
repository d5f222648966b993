"""Every registered architecture for time series forecasts what a forecaster may, from what it may see."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scisci.data.ragged import Ragged
from scisci.data.series import series_batch
from scisci.models import registry
from scisci.models.blocks.mixture import StudentMixture
from scisci.symmetry.series import act_on_series
from scisci.tasks.series import SeriesStatistics, SeriesTask

CONTEXT, HORIZON = 96, 40
ARCHITECTURES = registry.architectures("series")
# Linear maps of a whole context are for that context alone.
ANY_CONTEXT = [name for name in ARCHITECTURES if name != "dlinear"]
EXACT = 1e-9
# Medians, which a decoder goes on from, are found to 1e-9 in probability only.
EXACT_FORECAST = 1e-7
SINGLE = 1e-3


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def batch_of(targets: list[np.ndarray], context: int = CONTEXT, dtype: type = np.float64) -> Any:
    """The last window of each target [C, T]."""
    values = [target.ravel().astype(dtype) for target in targets]
    count = len(targets)
    ragged = Ragged(
        np.cumsum([0, *map(len, values)]),
        {"values": np.concatenate(values)},
        {
            "channels": np.array([len(target) for target in targets]),
            "known": np.zeros(count, dtype=np.int64),
            "start": np.zeros(count, dtype=np.int64),
            "group": np.arange(count),
        },
    )
    return series_batch(ragged, ["h"] * count, context, HORIZON, dtype=dtype)


def waves(channels: int, times: int, seed: int = 0) -> np.ndarray:
    """[C, T] noisy waves of several amplitudes and levels."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (channels, 1)) + np.arange(times) * 2 * np.pi / rng.uniform(8, 30, (channels, 1))
    level = rng.normal(size=(channels, 1)) * 5
    return level + rng.uniform(0.5, 3, (channels, 1)) * (np.sin(phase) + 0.1 * rng.normal(size=(channels, times)))


def ragged_targets() -> list[np.ndarray]:
    """Series of several lengths and numbers of channels, with gaps."""
    targets = [waves(c, t, seed) for seed, (c, t) in enumerate([(3, 200), (1, 136), (2, 90), (4, 47), (3, 136)])]
    targets[0][1, 100:140] = np.nan
    targets[4][2, :] = np.nan
    targets[4][0, :100] = np.nan
    targets[1][0, ::7] = np.nan
    return targets


def made(name: str, context: int = CONTEXT) -> nn.Module:
    """In float64, untrained."""
    sizes = registry.get(name).SIZES
    options = registry.options(name, "3k" if "3k" in sizes else next(iter(sizes)))
    return registry.build_forecaster(name, context, HORIZON, **options).double()


def said(outputs: dict[str, Tensor]) -> Tensor:
    """[B, C, S] points, or the means of mixtures."""
    return outputs["point"] if "point" in outputs else StudentMixture.of(outputs).mean()


def forecast(model: nn.Module, batch: Any) -> Tensor:
    """[B, C, H]"""
    with torch.no_grad():
        return said(model.eval()(batch))


def trained_on(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Outputs in training; what is drawn is the same each time."""
    torch.manual_seed(5)
    return model.train()(batch)


def scored_times(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """At which time [B, C, S] of the window each output of training is scored, and whether it counts."""
    clock, times = (
        copy.copy(batch),
        torch.arange(CONTEXT + HORIZON, dtype=torch.float64).expand(*batch.past.shape[:2], -1),
    )
    clock.past, clock.future = times[..., :CONTEXT] * batch.past_observed, times[..., CONTEXT:] * batch.future_observed
    outputs = trained_on(model, clock)
    return outputs.get("values", clock.future), outputs.get("weights", batch.future_observed) > 0


def changed_from(batch: Any, time: int) -> Any:
    """The batch with other values from a time of the window on."""
    other, times = copy.copy(batch), torch.arange(CONTEXT + HORIZON)
    rng = np.random.default_rng(1)
    for name, part in (("past", times[:CONTEXT]), ("future", times[CONTEXT:])):
        noise = torch.from_numpy(rng.normal(scale=5, size=batch[name].shape))
        other[name] = torch.where((part >= time) & batch[f"{name}_observed"], noise, batch[name])
    return other


def task_of(name: str, dtype: torch.dtype = torch.float32) -> SeriesTask:
    """A task with a fresh model, as `scisci fit` builds it."""
    sizes = registry.get(name).SIZES
    size = "3k" if "3k" in sizes else next(iter(sizes))
    task = SeriesTask(architecture=name, size=size, context=CONTEXT, horizon=HORIZON)
    task.build(SeriesStatistics(4))
    return task.to(dtype)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_not_observed_never_matters(name: str) -> None:
    model, batch = made(name), batch_of(ragged_targets())
    before, learnt = forecast(model, batch), trained_on(model, batch)
    filled = copy.copy(batch)
    for part in ("past", "future"):
        filled[part] = torch.where(batch[f"{part}_observed"], batch[part], 1e3)
    assert torch.equal(forecast(model, filled), before)
    after = trained_on(model, filled)
    counts = learnt["weights"] > 0 if "weights" in learnt else batch.future_observed
    assert torch.equal(said(after)[counts], said(learnt)[counts])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_forecast_is_made_from_the_past_alone(name: str) -> None:
    model, batch = made(name), batch_of(ragged_targets())
    before = forecast(model, batch)
    assert before.shape == batch.future.shape
    assert torch.equal(forecast(model, changed_from(batch, CONTEXT)), before)
    assert not torch.equal(forecast(model, changed_from(batch, CONTEXT - 1)), before)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_scored_in_training_is_not_seen(name: str) -> None:
    """Nobody sees what it is scored on; a causal model nothing after it either, in one pass over all."""
    model, batch = made(name), batch_of(ragged_targets())
    times, counts = scored_times(model, batch)
    before = said(trained_on(model, batch))
    causal = getattr(model, "causal", False)
    first = int(times[counts].min())
    for time in sorted({first, int(times[counts].median()), int(times[counts].max())}) if causal else [first]:
        after = said(trained_on(model, changed_from(batch, time)))
        early = counts & (times <= time) if causal else counts
        assert early.any()
        torch.testing.assert_close(after[early], before[early], rtol=EXACT, atol=EXACT)
    after = said(trained_on(model, changed_from(batch, first - 1)))
    assert (after != before)[counts].any()


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if getattr(registry.get(name), "causal", False)])
def test_gradients_of_causal_models_reach_back_only(name: str) -> None:
    model, batch = made(name), batch_of([waves(2, 200)])
    times, counts = scored_times(model, batch)
    for part in ("past", "future"):
        batch[part] = batch[part].clone().requires_grad_()
    outputs = said(trained_on(model, batch))[0, 0]
    for s in np.random.default_rng(0).choice(np.flatnonzero(counts[0, 0]), 8, replace=False):
        found = torch.autograd.grad(outputs[s], (batch.past, batch.future), retain_graph=True, materialize_grads=True)
        reach, time = torch.cat(found, dim=2)[0, 0], int(times[0, 0, s])
        assert reach[:time].any()
        assert not reach[time:].any()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_series_of_a_batch_do_not_see_each_other(name: str) -> None:
    model, targets = made(name), ragged_targets()
    together = forecast(model, batch_of(targets))
    for row, target in enumerate(targets):
        alone = forecast(model, batch_of([target]))[0]
        torch.testing.assert_close(together[row, : len(target)], alone, rtol=EXACT_FORECAST, atol=EXACT_FORECAST)


@pytest.mark.parametrize("name", ANY_CONTEXT)
def test_time_before_a_series_begins_is_nothing(name: str) -> None:
    targets = [waves(2, 100, seed) for seed in (1, 2)]
    model = made(name)
    found = forecast(model, batch_of(targets))
    padded = forecast(model, batch_of(targets, context=CONTEXT + 45))
    torch.testing.assert_close(padded, found, rtol=EXACT_FORECAST, atol=EXACT_FORECAST)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("group", ["scale", "offset", "channels"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_claims_of_symmetry(name: str, group: str, dtype: torch.dtype) -> None:
    """Equivariance errors relative to the spread of the data, where the claim is exact; and that they can be seen."""
    model, precise = made(name).to(dtype), np.float64 if dtype == torch.float64 else np.float32
    batch = batch_of([waves(3, 200, seed) for seed in range(4)], dtype=precise)
    target, mask, undo = act_on_series(group, batch.past, np.random.default_rng(0), batch.past_observed)
    acted = copy.copy(batch)
    acted.past, acted.past_observed = target.to(dtype), mask
    before, after = forecast(model, batch), forecast(model, acted)
    spread = batch.past.std(dim=2, keepdim=True)
    error = float(((undo(after) - before) / spread).square().mean().sqrt())
    if registry.get(name).symmetry[group] == "exact":
        assert error < (EXACT_FORECAST if dtype == torch.float64 else SINGLE)
    assert float(((after - before) / spread).square().mean().sqrt()) > 10 * SINGLE


EXTREMES = {
    "zero": np.zeros((1, 200)),
    "constant": np.full((1, 200), -7.3),
    "constant, then not": np.where(np.arange(200) < 150, 2.0, waves(1, 200)),
    "zero, then huge": np.where(np.arange(200) < 150, 0.0, 1e12 * waves(1, 200)),
    "tiny": 1e-12 * waves(1, 200),
    "huge": 1e12 * waves(1, 200),
    "tiny on a level": 5.0 + 1e-12 * waves(1, 200),
    "one observation": np.where(np.arange(200) == 120, 3.0, np.nan)[None],
    "short": waves(1, 41),
    "nothing in the past": np.where(np.arange(200) < 160, np.nan, 1.0)[None],
    "nothing at all": np.full((2, 200), np.nan),
}


@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_extremes_are_finite(name: str, kind: str) -> None:
    """Forecasts, loss and gradients, in float32: of the series alone and beside an ordinary one."""
    task = task_of(name)
    for targets in ([EXTREMES[kind]], [EXTREMES[kind], waves(2, 200)]):
        batch = batch_of(targets, dtype=np.float32)
        task.eval()
        with torch.no_grad():
            outputs = task.model(batch)
        assert all(part.isfinite().all() for part in outputs.values())
        assert all((outputs[part] > 0).all() for part in ("scale", "df") if part in outputs)
        task.train()
        task.zero_grad()
        for seed in range(3):
            torch.manual_seed(seed)
            loss = task.loss(task.model(batch), batch)
            assert loss.isfinite()
            loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_batch_is_learnt_by_all_parameters(name: str) -> None:
    """The loss of one batch falls: of points by a third, of distributions by more than half a nat a step."""
    task, batch = task_of(name), batch_of([waves(2, 200, seed) for seed in range(4)], dtype=np.float32)
    task.train()
    optimizer = torch.optim.Adam(task.parameters(), lr=2e-2)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        outputs = task.model(batch)
        loss = task.loss(outputs, batch)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in task.parameters())
    first, last = np.mean(losses[:5]), np.mean(losses[-10:])
    assert last < (0.7 * first if "point" in outputs else first - 0.5)
