"""Mixtures of Student t, held to scipy.stats; instance normalisation, to its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from scisci.models.blocks.instance_norm import instance
from scisci.models.blocks.mixture import StudentMixture

DECILES = [k / 10 for k in range(1, 10)]


def mixture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> StudentMixture:
    """Components far apart and close together, narrow and wide, with few and many degrees of freedom."""
    rng = np.random.default_rng(seed)
    parts = (
        rng.normal(size=shape),
        10 ** rng.uniform(0.1, 4, shape),
        rng.normal(size=shape) * 10 ** rng.uniform(-1, 1, shape),
        10 ** rng.uniform(-2, 1, shape),
    )
    return StudentMixture(*(torch.from_numpy(a).to(dtype) for a in parts))


def weighted(mixture: StudentMixture, function: str, x: np.ndarray) -> np.ndarray:
    """The weighted sum over components of a function of `scipy.stats.t`."""
    weights, df, loc, scale = (a.double().numpy() for a in (mixture.weights, mixture.df, mixture.loc, mixture.scale))
    return (weights * getattr(stats.t, function)(x[..., None], df, loc, scale)).sum(axis=-1)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 2e-3)])
def test_density_and_distribution_are_those_of_scipy(dtype: torch.dtype, close: float) -> None:
    found = mixture(50, 4, dtype=dtype)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=50) * 5).to(dtype)
    np.testing.assert_allclose(found.log_prob(x).exp(), weighted(found, "pdf", x.numpy()), rtol=close)
    np.testing.assert_allclose(found.cdf(x), weighted(found, "cdf", x.numpy()), rtol=close)


@given(st.floats(0.05, 1e9))
def test_normalisation_at_any_degrees_of_freedom(df: float) -> None:
    one = StudentMixture(*(torch.tensor([v], dtype=torch.float64) for v in (0.0, df, 0.0, 1.0)))
    assert float(one.log_prob(torch.tensor(0.5, dtype=torch.float64))) == pytest.approx(
        stats.t.logpdf(0.5, df), abs=1e-9
    )


def test_density_integrates_to_one_and_to_the_mean() -> None:
    found = mixture(4, seed=3)
    found = StudentMixture(found.logits, 2 + found.df, found.loc, found.scale)
    density = lambda x: float(found.log_prob(torch.tensor(x, dtype=torch.float64)).exp())
    peaks = sorted(found.loc.tolist())
    for power, expected in ((0, 1.0), (1, float(found.mean()))):
        inner, _ = integrate.quad(lambda x, power=power: density(x) * x**power, -2e3, 2e3, points=peaks, limit=2000)
        assert inner == pytest.approx(expected, rel=1e-4)


def test_quantiles_invert_the_distribution() -> None:
    found = mixture(60, 5, 4)
    levels = [1e-4, *DECILES, 0.9999]
    quantiles = found.quantile(levels)
    assert quantiles.shape == (60, 5, 11)
    assert (quantiles.diff(dim=-1) > 0).all()
    back = np.stack([weighted(found, "cdf", quantiles[..., k].numpy()) for k in range(11)], axis=-1)
    np.testing.assert_allclose(back, np.broadcast_to(levels, back.shape), atol=2e-9)


def test_the_quantiles_of_one_component_are_those_of_scipy() -> None:
    one = StudentMixture(*(torch.full((1,), v, dtype=torch.float64) for v in (0.0, 3.0, -2.0, 0.5)))
    np.testing.assert_allclose(one.quantile(DECILES), stats.t.ppf(DECILES, 3.0, -2.0, 0.5), atol=1e-8)


def test_a_quantile_between_components_that_are_far_apart() -> None:
    far = StudentMixture(
        *(torch.tensor(v, dtype=torch.float64) for v in ([0.0, 0.0], [5.0] * 2, [-1e6, 1e6], [1.0] * 2))
    )
    low, middle, high = far.quantile([0.25, 0.5, 0.75])
    assert float(low) == pytest.approx(-1e6, abs=1e-3)
    assert float(high) == pytest.approx(1e6, abs=1e-3)
    assert float(far.cdf(middle)) == pytest.approx(0.5, abs=1e-9)


def test_draws_are_from_the_distribution() -> None:
    found = mixture(3, 4, seed=5)
    draws = found.sample(4000, torch.Generator().manual_seed(0))
    assert draws.shape == (4000, 3)
    for k in range(3):
        at = lambda x, k=k: weighted(StudentMixture(*(a[k] for a in vars(found).values())), "cdf", x)
        assert stats.kstest(draws[:, k].numpy(), at).pvalue > 1e-3
    assert torch.equal(draws, found.sample(4000, torch.Generator().manual_seed(0)))


def test_an_affine_map_moves_the_distribution() -> None:
    found = mixture(20, 4)
    moved = found.affine(torch.tensor(-7.0), torch.tensor(3.0))
    x = torch.linspace(-5, 5, 20, dtype=torch.float64)
    torch.testing.assert_close(moved.log_prob(-7 + 3 * x), found.log_prob(x) - np.log(3))
    torch.testing.assert_close(moved.quantile(DECILES), -7 + 3 * found.quantile(DECILES), atol=1e-5, rtol=1e-7)


def test_gradients_are_those_of_finite_differences() -> None:
    parts = [a.requires_grad_() for a in vars(mixture(5, 3)).values()]
    values = torch.linspace(-3, 3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *a: StudentMixture(*a).log_prob(values), parts, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e12, -1e30])
def test_density_and_gradients_are_finite_however_far_out(value: float) -> None:
    parts = [a.requires_grad_() for a in vars(mixture(5, 4, dtype=torch.float32)).values()]
    density = StudentMixture(*parts).log_prob(torch.full((5,), value))
    density.sum().backward()
    assert density.isfinite().all()
    assert all(a.grad.isfinite().all() for a in parts)


def test_no_mean_without_more_than_one_degree_of_freedom() -> None:
    heavy = StudentMixture(*(torch.tensor([v]) for v in (0.0, 1.0, 0.0, 1.0)))
    assert heavy.mean().isnan()


@given(st.floats(-1e3, 1e3), st.floats(-2, 5).map(lambda e: 10**e))
def test_instances_are_affine_equivariant(offset: float, factor: float) -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(size=(3, 2, 40)))
    observed = torch.from_numpy(rng.random((3, 2, 40)) < 0.7)
    plain, moved = instance(values, observed), instance(offset + factor * values, observed)
    torch.testing.assert_close(moved.mean, offset + factor * plain.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moved.scale, factor * plain.scale, rtol=1e-6, atol=0)
    chosen = values[1, 0][observed[1, 0]].numpy()
    assert float(plain.mean[1, 0]) == pytest.approx(chosen.mean())
    assert float(plain.scale[1, 0]) == pytest.approx(chosen.std())


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_instances_hold_at_any_size(size: float) -> None:
    shape = torch.tensor([[[1.0, 2.0, 4.0, 1.0]]])
    found = instance(size * shape, torch.ones_like(shape, dtype=torch.bool))
    assert float(found.scale) == pytest.approx(size * float(shape.std(correction=0)), rel=1e-6)
    flat = instance(size * torch.ones(1, 1, 7), torch.ones(1, 1, 7, dtype=torch.bool))
    assert float(flat.scale) == pytest.approx(size)
    torch.testing.assert_close(flat.restore(flat.normalise(torch.tensor([[[size]]]))), torch.tensor([[[size]]]))


def test_what_is_not_observed_does_not_matter() -> None:
    values = torch.tensor([[[1.0, torch.nan, 3.0], [9.0, 9.0, 9.0]]])
    observed = torch.tensor([[[True, False, True], [False, False, False]]])
    found = instance(values, observed)
    assert found.mean.flatten().tolist() == [2.0, 0.0]
    assert found.scale.flatten().tolist() == [1.0, 1.0]
