"""Actions on time series: group laws, and the symmetries that known functions of series have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import avg_pool1d

from scisci.contracts.errors import UserError
from scisci.symmetry.series import SERIES, Affine, Delay, Flow, act_on_series, apply_to_series

BATCH, CHANNELS, TIMES = 4, 5, 12
seeds = st.integers(0, 2**32 - 1)


def series(seed: int = 0, channels: int = CHANNELS, times: int = TIMES) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(3.0, 2.0, (BATCH, channels, times)))


@pytest.mark.parametrize("group", SERIES)
@given(seed=seeds)
def test_group_laws(group: str, seed: int) -> None:
    rng, target = np.random.default_rng(seed), series(seed)
    a, b, c = (SERIES[group](target, rng) for _ in range(3))
    torch.testing.assert_close((a @ b)(target), a(b(target)))
    torch.testing.assert_close(((a @ b) @ c)(target), (a @ (b @ c))(target))
    torch.testing.assert_close(a.inverse()(a(target)), target)
    torch.testing.assert_close((a @ a.inverse())(target), target)
    # At any time, the element is the same.
    torch.testing.assert_close(a(target, 7), (a @ b)(b.inverse()(target, 7), 7))


@pytest.mark.parametrize("group", SERIES)
def test_elements_differ_and_change_the_series(group: str) -> None:
    target = series()
    acted, mask, _ = act_on_series(group, target, np.random.default_rng(1))
    assert mask.all()
    changed = (acted != target).any(dim=2).any(dim=1)
    assert changed.sum() >= 3


@pytest.mark.parametrize("group", ["scale", "offset", "delay", "channels"])
@given(seed=seeds, width=st.integers(1, TIMES))
def test_moving_average_around_the_window_commutes(group: str, seed: int, width: int) -> None:
    target = series(seed)

    def average(values: Tensor) -> Tensor:
        return avg_pool1d(torch.cat([values[:, :, TIMES - width + 1 :], values], dim=2), width, stride=1)

    element = SERIES[group](target, np.random.default_rng(seed))
    torch.testing.assert_close(average(element(target)), element(average(target)))


def last_value(target: Tensor, horizon: int) -> Tensor:
    return target[:, :, -1:].expand(-1, -1, horizon)


def one_period_before(target: Tensor, horizon: int) -> Tensor:
    return target[:, :, torch.arange(horizon) % target.shape[2]]


def drifting_pattern(target: Tensor, horizon: int) -> Tensor:
    """Finds by how many channels the last column is the one before, moved around the ring, and lets it move on."""
    before, last = target[:, :, -2], target[:, :, -1]
    misfit = torch.stack([(last - before.roll(v, 1)).square().sum(1) for v in range(target.shape[1])])
    velocities = misfit.argmin(0).tolist()
    steps = range(1, horizon + 1)
    return torch.stack([torch.stack([last[b].roll(v * h) for h in steps], dim=1) for b, v in enumerate(velocities)])


@pytest.mark.parametrize("horizon", [7, TIMES, 2 * TIMES + 3])
@pytest.mark.parametrize(
    ("forecast", "symmetries"),
    [
        (last_value, {"scale", "offset", "channels"}),
        (one_period_before, {"scale", "offset", "delay", "channels"}),
        (drifting_pattern, {"scale", "offset", "flow"}),
    ],
)
def test_known_forecasts_have_their_symmetries_and_no_others(
    forecast: Callable[[Tensor, int], Tensor], symmetries: set[str], horizon: int
) -> None:
    shape = series()[:, :, :1]
    drift = torch.tensor([0, 1, 2, 4])[:, None, None] * torch.arange(TIMES)
    around = (torch.arange(CHANNELS)[:, None] - drift) % CHANNELS
    target = torch.gather(shape.expand(-1, -1, TIMES), 1, around)
    kept = set()
    for group in SERIES:
        rng = np.random.default_rng(1)
        plain, good = forecast(target, horizon), True
        for _ in range(5):
            acted, _, undo = act_on_series(group, target, rng)
            back = undo(forecast(acted, horizon))
            known = back.isfinite()
            assert known.all() or (group == "delay" and horizon < TIMES)
            good &= bool(torch.allclose(back[known], plain[known]))
        kept |= {group} if good else set()
    # A travelling pattern of five channels is not a signal with the window's period, and order matters to it.
    assert kept == symmetries


def test_delay_moves_a_periodic_signal_and_its_forecast() -> None:
    """In closed form: a sine of the window's period, at all times."""
    times = torch.arange(3 * TIMES).double()
    element = Delay(torch.tensor([0, 1, 5, 11]), TIMES)

    def sine(t: Tensor) -> Tensor:
        return torch.sin(2 * np.pi * t / TIMES).expand(BATCH, 2, -1)

    torch.testing.assert_close(
        element(sine(times[:TIMES])), torch.stack([sine(times[:TIMES] - k)[0] for k in (0, 1, 5, 11)])
    )
    late = torch.stack([sine(times[TIMES : TIMES + 4] - k)[0] for k in (0, 1, 5, 11)])
    back = element.inverse()(late, TIMES)
    known = back.isfinite()
    # Three, two and one of four steps have a counterpart, after a delay by 1, by 5 = 12 - 7, and by 11 = 12 - 1.
    assert known[:, 0].sum(1).tolist() == [4, 3, 0, 3]
    torch.testing.assert_close(back[known], sine(times[TIMES : TIMES + 4])[known])


def test_flow_gives_a_travelling_wave_another_speed() -> None:
    """x(c, t) = w(c - u t) becomes w(c - (u + v) t), in the window and after it."""
    wave = torch.randn(CHANNELS, dtype=torch.float64)

    def travelling(speed: int, times: Tensor) -> Tensor:
        return wave[(torch.arange(CHANNELS)[:, None] - speed * times) % CHANNELS].expand(BATCH, -1, -1)

    window, later = torch.arange(TIMES), torch.arange(TIMES, TIMES + 9)
    element = Flow(torch.full((BATCH,), 3))
    assert torch.equal(element(travelling(-1, window)), travelling(2, window))
    _, _, undo = apply_to_series(element, travelling(-1, window), torch.ones(BATCH, CHANNELS, TIMES, dtype=torch.bool))
    assert torch.equal(undo(travelling(2, later)), travelling(-1, later))


@pytest.mark.parametrize("group", SERIES)
def test_mask_moves_with_what_it_hides_and_padding_stays(group: str) -> None:
    rng = np.random.default_rng(2)
    target, mask = series(), torch.from_numpy(rng.random((BATCH, CHANNELS, TIMES)) < 0.6)
    poisoned = target.where(mask, 1e9)
    acted, shown, _ = act_on_series(group, poisoned, np.random.default_rng(3), mask)
    assert torch.equal(shown, acted.abs() < 1e6)
    assert torch.equal(acted[~shown], torch.full_like(acted[~shown], 1e9))
    assert torch.equal(shown.sum(dim=(1, 2)), mask.sum(dim=(1, 2)))


def test_draws_are_uniform_and_offsets_have_the_scale_of_the_series() -> None:
    rng, many = np.random.default_rng(0), torch.randn(6000, 3, 4, dtype=torch.float64)
    many = many * torch.logspace(-3, 3, 6000)[:, None, None]
    delays, velocities = SERIES["delay"](many, rng), SERIES["flow"](many, rng)
    assert isinstance(delays, Delay)
    assert isinstance(velocities, Flow)
    for drawn, count in ((delays.steps, 4), (velocities.velocity, 3)):
        shares = torch.bincount(drawn, minlength=count) / len(drawn)
        assert shares == pytest.approx([1 / count] * count, abs=0.03)
    offsets, scales = SERIES["offset"](many, rng), SERIES["scale"](many, rng)
    assert isinstance(offsets, Affine)
    assert isinstance(scales, Affine)
    ratio = offsets.offset[:, 0, 0] / many.flatten(1).std(dim=1, correction=0)
    assert ratio.abs().max() <= 10
    assert ratio.std() == pytest.approx(10 / np.sqrt(3), rel=0.05)
    logarithms = scales.scale.log10()
    assert logarithms.abs().max() <= 1
    assert logarithms.std() == pytest.approx(1 / np.sqrt(3), rel=0.05)


def test_unknown_group_names_the_closest() -> None:
    with pytest.raises(UserError, match="did you mean 'delay'"):
        act_on_series("delays", series(), np.random.default_rng(0))
