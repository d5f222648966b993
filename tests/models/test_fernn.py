"""The flow-equivariant recurrent network: its equations, and what a flow around the ring does to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scisci.models.fernn import FERNN, MOST, SMALLEST, over_velocities
from scisci.symmetry.series import Flow, act_on_series

BATCH, SENSORS, TIMES, LATER = 3, 11, 6, 4
seeds = st.integers(0, 2**32 - 1)


def made(dtype: torch.dtype = torch.float64, **options: Any) -> FERNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = FERNN(TIMES, LATER, **{"channels": 5, "width": 5, "velocities": 2, **options})
        # Far from the identity at which training begins.
        torch.nn.init.normal_(model.recurrence.weight, std=0.25)
    return model.to(dtype).eval()


def rings(seed: int = 0, dtype: torch.dtype = torch.float64, sensors: int = SENSORS) -> tuple[Tensor, Tensor]:
    """Values and which of them are observed, some are not."""
    rng = np.random.default_rng(seed)
    shape = (BATCH, sensors, TIMES)
    return torch.from_numpy(rng.normal(2.0, 3.0, shape)).to(dtype), torch.from_numpy(rng.random(shape) < 0.8)


def sizes(*sensors: int) -> Tensor:
    return torch.tensor(sensors or (SENSORS,) * BATCH)


def slow_forecast(model: FERNN, past: np.ndarray, observed: np.ndarray, horizon: int) -> np.ndarray:
    """The equations for one ring [N, T], one number at a time in space."""
    n, half = len(past), model.width // 2
    u, w, d1, d2 = (
        m.weight.detach().double().numpy() for m in (model.inputs, model.recurrence, model.decoder[0], model.decoder[1])
    )
    b1, b2 = (m.bias.detach().double().numpy() for m in model.decoder)  # type: ignore[union-attr]

    def convolved(kernel: np.ndarray, x: np.ndarray) -> np.ndarray:
        found = np.zeros((len(kernel), n))
        for place in range(n):
            for tap in range(model.width):
                found[:, place] += kernel[:, :, tap] @ x[:, (place + tap - half) % n]
        return found

    offset, scale = past[observed].mean(), past[observed].std()
    states = {int(v): np.zeros((len(w), n)) for v in model.velocities}
    forecast = []
    for time in range(past.shape[1] + horizon):
        for v, state in states.items():
            moved = np.array([state[:, (place - v) % n] for place in range(n)]).T
            update = convolved(w, moved)
            left = (np.maximum(update, 0) ** 2).sum()
            update *= min(np.sqrt(((state**2).sum() + SMALLEST) / (left + SMALLEST)), MOST)
            if time < past.shape[1]:
                seen = observed[:, time]
                update += convolved(u, np.array([np.where(seen, (past[:, time] - offset) / scale, 0), seen]))
            states[v] = np.maximum(update, 0)
        if time >= past.shape[1]:
            size = {v: np.sqrt((state**2).sum()) for v, state in states.items()}
            largest = np.max([(size[v] / max(size.values())) ** 8 * state for v, state in states.items()], axis=0)
            hidden = np.maximum(convolved(d1, largest) + b1[:, None], 0)
            forecast.append(offset + scale * (convolved(d2, hidden)[0] + b2))
    return np.array(forecast).T


@pytest.mark.parametrize("velocities", [0, 1, 3])
def test_forecasts_are_those_of_the_equations_one_number_at_a_time(velocities: int) -> None:
    model, (past, observed) = made(velocities=velocities), rings()
    found = model.forecast(past, observed, sizes(), 7).detach().numpy()
    for k in range(BATCH):
        np.testing.assert_allclose(found[k], slow_forecast(model, past[k].numpy(), observed[k].numpy(), 7), rtol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 4e-15)])
@given(seed=seeds, flow=st.integers(-5, 5), velocities=st.integers(0, 3))
def test_flow_of_the_input_permutes_velocities_of_the_hidden_state_exactly(
    dtype: torch.dtype, tolerance: float, seed: int, flow: int, velocities: int
) -> None:
    model, (past, observed) = made(dtype, velocities=velocities), rings(seed, dtype)
    moving = Flow(torch.full((BATCH,), flow))
    plain = model.states(past, observed, sizes(), LATER)
    acted = model.states(moving(past), moving(observed), sizes(), LATER)
    inside = [v for v in range(-velocities, velocities + 1) if abs(v - flow) <= velocities]
    for time, (h, flown) in enumerate(zip(plain, acted, strict=True)):
        for v in inside:
            expected = h[:, v - flow + velocities].roll(flow * time, 2)
            worst = (flown[:, v + velocities] - expected).abs().max() / h.abs().max()
            assert worst <= tolerance, (time, v)


def test_a_hidden_state_beyond_the_edge_is_another_one() -> None:
    model, (past, observed) = made(velocities=1), rings()
    moving = Flow(torch.ones(BATCH, dtype=torch.int64))
    *_, h = model.states(past, observed, sizes())
    *_, flown = model.states(moving(past), moving(observed), sizes())
    # Velocity -1 of the flowing input is velocity -2 of the input, which is not among the three.
    apart = [(flown[:, 0] - h[:, v].roll(TIMES - 1, 2)).norm() / h.norm() for v in range(3)]
    assert min(apart) > 0.05


def flow_error(model: FERNN, sensors: int = SENSORS) -> float:
    """Relative rms of f(g x) - g f(x) over random flows."""
    past, observed = rings(sensors=sensors)
    plain, error = model.forecast(past, observed, sizes(*[sensors] * BATCH), LATER), 0.0
    for seed in range(8):
        acted, seen, undo = act_on_series("flow", past, np.random.default_rng(seed), observed)
        back = undo(model.forecast(acted, seen, sizes(*[sensors] * BATCH), LATER))
        error = max(error, ((back - plain).norm() / plain.norm()).item())
    return error


@pytest.mark.parametrize(("sensors", "velocities"), [(11, 5), (11, 7), (10, 5), (5, 2), (1, 0)])
def test_with_a_velocity_per_sensor_forecasts_flow_with_the_input(sensors: int, velocities: int) -> None:
    assert flow_error(made(velocities=velocities), sensors) < 1e-13


@pytest.mark.parametrize("velocities", [0, 2, 4])
def test_with_fewer_velocities_or_none_the_edge_shows(velocities: int) -> None:
    assert flow_error(made(velocities=velocities)) > 1e-3


def test_twin_has_the_same_parameters_and_is_told_apart_by_its_claim() -> None:
    model, twin = made(), made(velocities=0)
    assert {n: p.shape for n, p in twin.state_dict().items()} == {n: p.shape for n, p in model.state_dict().items()}
    assert (model.symmetry["flow"], twin.symmetry["flow"]) == ("approximate", "none")


@pytest.mark.parametrize("size", FERNN.SIZES)
def test_sizes_have_as_many_parameters_as_they_say(size: str) -> None:
    count = sum(p.numel() for p in FERNN(10, 20, **FERNN.SIZES[size]).parameters())
    named = float(size.replace("k", "e3").replace("M", "e6"))
    assert count == pytest.approx(named, rel=0.03)


def test_rings_of_different_sizes_share_a_batch() -> None:
    model, (past, observed) = made(), rings()
    counts = (SENSORS, 7, 2)
    for k, count in enumerate(counts):
        past[k, count:], observed[k, count:] = 0, False
    together = model.forecast(past, observed, sizes(*counts), LATER)
    for k, count in enumerate(counts):
        alone = model.forecast(past[k : k + 1, :count], observed[k : k + 1, :count], sizes(count), LATER)
        torch.testing.assert_close(together[k : k + 1, :count], alone, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_a_state_that_nothing_drives_neither_grows_nor_fades(dtype: torch.dtype, tolerance: float) -> None:
    model, (past, observed) = made(dtype), rings(dtype=dtype)
    squares = torch.stack([h.square().sum(dim=(2, 3)) for h in model.states(past, observed, sizes(), 300)])
    assert squares[TIMES - 1].min() > 1
    torch.testing.assert_close(squares[TIMES:], squares[TIMES - 1].expand(300, -1, -1), rtol=300 * tolerance, atol=0)


def test_a_state_that_the_recurrence_would_extinguish_is_let_go() -> None:
    model, (past, observed) = made(), rings()
    with torch.no_grad():
        model.recurrence.weight.copy_(-model.recurrence.weight.abs())
    *_, last = model.states(past, observed, sizes(), LATER)
    assert (last == 0).all()
    assert model.forecast(past, observed, sizes(), LATER).isfinite().all()


def test_forecasts_read_the_velocity_in_which_a_pattern_adds_up() -> None:
    """Of a recurrence that forgets nothing."""
    model, rng = made(torch.float64, velocities=3), np.random.default_rng(0)
    with torch.no_grad():
        model.recurrence.weight.zero_()[:, :, 2] = torch.eye(5)
    for v in range(-3, 4):
        shape = torch.from_numpy(rng.normal(size=(BATCH, SENSORS)))
        past = torch.stack([shape.roll(v * t, 1) for t in range(TIMES)], dim=2)
        *_, last = model.states(past, torch.ones_like(past, dtype=torch.bool), sizes())
        sums = last.norm(dim=(2, 3))
        assert (sums.argmax(dim=1) == v + 3).all(), v
        expected = (last * (sums / sums.amax(dim=1, keepdim=True))[..., None, None] ** 8).amax(dim=1)
        torch.testing.assert_close(over_velocities(last, sizes()), expected)


def test_values_that_are_not_observed_make_no_difference() -> None:
    model, (past, observed) = made(), rings()
    torch.testing.assert_close(
        model.forecast(past, observed, sizes(), LATER),
        model.forecast(torch.where(observed, past, 1e6), observed, sizes(), LATER),
    )


@pytest.mark.parametrize("group", ["scale", "offset"])
@given(seed=seeds)
def test_forecasts_keep_the_unit_of_the_data(group: str, seed: int) -> None:
    model, (past, observed) = made(), rings(seed)
    acted, _, undo = act_on_series(group, past, np.random.default_rng(seed), observed)
    plain = model.forecast(past, observed, sizes(), LATER)
    back = undo(model.forecast(acted, observed, sizes(), LATER))
    assert (back - plain).norm() / plain.norm() < 1e-12


@pytest.mark.parametrize("value", [0.0, 7.0, 1e-12, 1e12])
@pytest.mark.parametrize("kind", ["constant", "random", "missing"])
def test_forecasts_are_finite_whatever_the_size_of_the_values(value: float, kind: str) -> None:
    past, observed = rings(dtype=torch.float32)
    past = torch.full_like(past, value) if kind == "constant" else past * value
    observed = observed & (kind != "missing")
    assert made(torch.float32).forecast(past, observed, sizes(), LATER).isfinite().all()


def window(training: bool) -> tuple[FERNN, Any, dict[str, Tensor]]:
    model, (past, observed) = made(torch.float32).train(training), rings(dtype=torch.float32)
    future, known = past[..., :LATER] + 1, observed[..., :LATER]
    batch = SimpleNamespace(past=past, past_observed=observed, channels=sizes(), future=future, future_observed=known)
    return model, batch, model(batch)


def test_training_scores_the_future_and_reaches_every_parameter() -> None:
    model, batch, outputs = window(training=True)
    assert torch.equal(outputs["values"], batch.future)
    assert torch.equal(outputs["weights"] > 0, batch.future_observed)
    (outputs["weights"] * (outputs["point"] - outputs["values"])).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_evaluation_sees_the_past_alone() -> None:
    model, batch, outputs = window(training=False)
    assert list(outputs) == ["point"]
    assert outputs["point"].shape == (BATCH, SENSORS, LATER)
    del batch.future, batch.future_observed
    assert torch.equal(model(batch)["point"], outputs["point"])
    longer = model.forecast(batch.past, batch.past_observed, sizes(), 3 * LATER)
    assert torch.equal(longer[..., :LATER], outputs["point"])


@pytest.mark.parametrize("options", [{"width": 4}, {"velocities": -1}])
def test_impossible_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be odd, and velocities at least 0"):
        made(**options)
