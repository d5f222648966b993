"""DLinear against the published layer written out, and what it promises of gaps and of units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scisci.contracts.errors import UserError
from scisci.models import registry
from scisci.models.conformance.systems import CONTEXT, HORIZON, time_series
from scisci.models.dlinear import DLinear, carried_forward
from scisci.symmetry.series import act_on_series


@pytest.fixture
def model() -> DLinear:
    torch.manual_seed(0)
    return DLinear(CONTEXT, HORIZON, kernel=7).double().eval()


def test_the_forecast_is_that_of_the_published_layer(model: DLinear) -> None:
    """Moving average of the series padded by its ends, and two linear maps, in numpy."""
    batch = time_series(np.random.default_rng(0))
    batch.past = torch.where(batch.past_observed, batch.past, 0.3)
    batch.past_observed = torch.ones_like(batch.past_observed)
    found = model(batch)["point"][1, 2].detach().numpy()
    x = batch.past[1, 2].numpy()
    mean, scale = x.mean(), x.std()
    x = (x - mean) / scale
    padded = np.concatenate([[x[0]] * 3, x, [x[-1]] * 3])
    trend = np.array([padded[t : t + 7].mean() for t in range(CONTEXT)])
    maps = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in (model.trend, model.remainder)]
    expected = sum(w @ part + b for (w, b), part in zip(maps, (trend, x - trend), strict=True))
    np.testing.assert_allclose(found, mean + scale * expected, rtol=1e-10)


def test_gaps_take_the_last_observed_value() -> None:
    nan = np.nan
    rows = torch.tensor([[nan, 1, nan, nan, 4, nan], [nan] * 6, [1, 2, 3, 4, 5, 6]])
    observed = ~rows.isnan()
    found = carried_forward(torch.where(observed, rows, 0), observed)
    assert found.tolist() == [[1, 1, 1, 1, 4, 4], [0] * 6, [1, 2, 3, 4, 5, 6]]


def test_what_is_not_observed_does_not_matter(model: DLinear) -> None:
    batch = time_series(np.random.default_rng(1))
    expected = model(batch)["point"]
    batch.past = torch.where(batch.past_observed, batch.past, 1e6)
    batch.future = batch.future + 1e6
    torch.testing.assert_close(model(batch)["point"], expected)


@pytest.mark.parametrize("group", ["scale", "offset", "channels"])
def test_claims_of_symmetry_are_exact(model: DLinear, group: str) -> None:
    batch = time_series(np.random.default_rng(2))
    assert DLinear.symmetry[group] == "exact"
    plain = model(batch)["point"]
    batch.past, batch.past_observed, undo = act_on_series(
        group, batch.past, np.random.default_rng(3), batch.past_observed
    )
    acted = model(batch)["point"]
    assert not torch.allclose(acted, plain)
    # What nobody observed has no place of its own.
    some = batch.past_observed.any(dim=-1).all(dim=-1)
    torch.testing.assert_close(undo(acted)[some], plain[some], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e12])
def test_forecasts_and_gradients_are_finite_at_any_size(size: float) -> None:
    model, batch = DLinear(CONTEXT, HORIZON), time_series(np.random.default_rng(4))
    batch.past = (size * batch.past).float()
    point = model(batch)["point"]
    (point / max(size, 1.0)).square().sum().backward()
    assert point.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(UserError, match=r"dlinear cannot be built with \{'kernel': 4\}: kernel \(4\) must be odd"):
        registry.build_forecaster("dlinear", 8, 2, **registry.options("dlinear", "linear", {"kernel": 4}))
    with pytest.raises(UserError, match="unknown option of dlinear 'context'"):
        registry.options("dlinear", "linear", {"context": 4})
