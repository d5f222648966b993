from __future__ import annotations

import numpy as np
import pytest

from scisci.tasks.base import relative_rate
from scisci.tasks.metrics import ratio_estimate


def test_ratio_and_its_error_agree_with_resampling() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(3, 40, 500).astype(float)
    numerators = weights * rng.gamma(2.0, 1.0, 500)
    estimate = ratio_estimate(numerators, weights, np.arange(500))
    draws = rng.integers(0, 500, (4000, 500))
    bootstrap = (numerators[draws].sum(1) / weights[draws].sum(1)).std()
    assert estimate.value == pytest.approx(numerators.sum() / weights.sum())
    assert estimate.se == pytest.approx(bootstrap, rel=0.1)
    # With every sample its own group, groups and samples are the same sampling units.
    assert estimate.se_groups == pytest.approx(estimate.se)


def test_equal_weights_give_the_error_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(size=80)
    estimate = ratio_estimate(values, np.ones(80), np.zeros(80, int))
    assert estimate.se == pytest.approx(values.std(ddof=1) / np.sqrt(80))
    assert estimate.se_groups is None


def test_identical_samples_within_groups_carry_the_information_of_the_groups_alone() -> None:
    means = np.random.default_rng(2).normal(size=10)
    estimate = ratio_estimate(np.repeat(means, 50), np.ones(500), np.repeat(np.arange(10), 50))
    assert estimate.se_groups == pytest.approx(means.std(ddof=1) / np.sqrt(10))
    assert estimate.se < estimate.se_groups / 5


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_schedule_rises_to_one_and_ends_near_zero(schedule: str) -> None:
    rates = [relative_rate(step, 1000, 0.1, schedule) for step in range(1001)]
    assert max(rates) == pytest.approx(1.0)
    assert np.argmax(rates) == 100
    assert (np.diff(rates[:101]) > 0).all()
    assert (np.diff(rates[100:]) < 0).all()
    assert rates[-1] == 0
