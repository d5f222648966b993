"""What is said of measured errors: intervals that cover, components of variance, the worst case, angles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from scisci.symmetry.groups import cubic_matrices, random_improper, random_rotations
from scisci.symmetry.measure import Errors
from scisci.symmetry.summary import QUANTILES, angles, estimate, interval, summary, variance_components


def errors(squares: np.ndarray, matrices: torch.Tensor | None = None, **columns: Any) -> Errors:
    """Of samples with an f of rms 1 and three entries each, unless columns say otherwise."""
    n, elements = squares.shape
    matrices = torch.eye(3).expand(n, elements, 3, 3) if matrices is None else matrices
    columns = {"signals": np.full(n, 3.0), "entries": np.full(n, 3.0), "groups": np.arange(n), **columns}
    return Errors(
        squares, samples=np.arange(n), matrices=matrices.numpy(), shifts=np.zeros((n, elements, 3)), **columns
    )


def find(rows: list[dict[str, Any]], statistic: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["statistic"] == statistic]


@pytest.mark.parametrize(("n", "least"), [(16, 0.89), (64, 0.91)])
def test_interval_covers_the_true_error(n: int, least: float) -> None:
    """Samples of unequal size with skewed errors, whose true ratio is 1: 95 % is meant, and never too wide to use."""
    rng, hits, widths = np.random.default_rng(0), 0, []
    for seed in range(400):
        signals = rng.gamma(4.0, 0.25, n)
        found = interval(signals * rng.exponential(1.0, n), signals, seed=seed)
        hits += found["low"] <= 1 <= found["high"]
        widths.append(found["high"] - found["low"])
    assert least < hits / 400 < 0.985
    # Twice two standard errors, sqrt(1 + 1/4) / sqrt(n) / 2 of the root.
    assert np.median(widths) < 1.6 * 4 * np.sqrt(1.25 / n) / 2


def test_interval_over_groups_covers_where_samples_repeat_each_other() -> None:
    """Twelve molecules of twenty frames whose errors are the molecule's: frames say less than they seem to."""
    rng, hits = np.random.default_rng(0), {"samples": 0, "groups": 0}
    groups = np.repeat(np.arange(12), 20)
    for _ in range(150):
        found = estimate(np.repeat(rng.exponential(1.0, 12), 20), np.ones(240), groups)
        hits["samples"] += found["low"] <= 1 <= found["high"]
        hits["groups"] += found["low_groups"] <= 1 <= found["high_groups"]
    assert hits["groups"] / 150 > 0.87
    assert hits["samples"] / 150 < 0.5


def test_interval_of_few_samples_or_none_in_error() -> None:
    assert interval(np.ones(4), np.ones(4)) == {"low": None, "high": None}
    assert interval(np.zeros(30), np.ones(30)) == {"low": 0.0, "high": 0.0}
    same = interval(np.full(30, 4.0), np.ones(30))
    assert (same["low"], same["high"]) == pytest.approx((2.0, 2.0))


def test_variance_components_are_those_of_the_population() -> None:
    rng = np.random.default_rng(0)
    values = 5 + 0.7 * rng.normal(size=(3000, 1)) + 0.4 * rng.normal(size=(3000, 6))
    assert variance_components(values) == pytest.approx((0.7, 0.4), rel=0.05)
    between, within = variance_components(5 + 0.4 * rng.normal(size=(3000, 6)))
    assert between < 0.1
    assert within == pytest.approx(0.4, rel=0.05)
    assert variance_components(values[:, :1])[1] is None


def test_estimates_by_hand() -> None:
    """Two samples, of one and of two atoms, under two elements."""
    found = summary(
        errors(
            np.array([[0.0, 6.0], [12.0, 24.0]]),
            signals=np.array([12.0, 24.0]),
            entries=np.array([3.0, 6.0]),
            missed=np.array([3.0, 1.0]),
        )
    )
    value = {s: find(found, s)[0]["value"] for s in ("relative", "absolute", "over_label_error")}
    assert value == pytest.approx(
        {"relative": np.sqrt(21 / 36), "absolute": np.sqrt(21 / 9), "over_label_error": np.sqrt(21 / 4)}
    )
    # In units of the rms of f, which is 2: squares per entry are 0 and 2, 2 and 4.
    assert [row["value"] for row in find(found, "element_quantile") if row["at"] == 0.5] == [
        pytest.approx(np.sqrt(0.5))
    ]
    assert [row["at"] for row in find(found, "sample_quantile")] == list(QUANTILES)
    (worst,) = find(found, "worst")
    assert (worst["value"], worst["sample"]) == (pytest.approx(1.0), 1)
    assert not find(found, "angle")
    assert {(row["samples"], row["elements"]) for row in found} == {(2, 2)}


def test_no_ratio_to_an_output_of_zero() -> None:
    found = summary(errors(np.ones((6, 2)), signals=np.zeros(6)))
    assert [row["statistic"] for row in found] == ["absolute"]


def test_worst_case_names_sample_and_element() -> None:
    rng = np.random.default_rng(0)
    matrices = random_rotations(40, rng).reshape(8, 5, 3, 3)
    squares = rng.random((8, 5))
    squares[6, 2] = 9.0
    (worst,) = find(summary(errors(squares, matrices)), "worst")
    assert (worst["sample"], worst["value"]) == (6, pytest.approx(np.sqrt(3.0)))
    np.testing.assert_allclose(np.array(worst["matrix"].split(), float), matrices[6, 2].flatten(), atol=1e-5)


@pytest.mark.parametrize("draw", [random_rotations, random_improper])
def test_angle_dependence_of_a_fixed_vector(draw: Any) -> None:
    """|v - R v|² is (4/3) (1 - cos θ) |v|² on average over axes; about an improper element -R, |v + R v|²."""
    rng, v = np.random.default_rng(0), np.array([0.0, 0.6, 0.8])
    matrices = draw(200 * 40, rng).reshape(200, 40, 3, 3)
    squares = np.square(v - matrices.numpy() @ v).sum(axis=2)
    rows = find(summary(errors(squares, matrices, signals=np.ones(200))), "angle")
    assert [row["at"] for row in rows] == [15, 45, 75, 105, 135, 165]
    for row in rows:
        t = np.radians(np.linspace(row["at"] - 15, row["at"] + 15, 1001))
        density = 1 - np.cos(t)
        # E[v·Rv] = (1 + 2 cos θ) / 3, so |v ∓ Rv|² is 2 ∓ 2 (1 + 2 cos θ) / 3.
        sign = 1 if draw is random_rotations else -1
        expected = ((2 - sign * 2 * (1 + 2 * np.cos(t)) / 3) * density).sum() / density.sum()
        assert row["value"] == pytest.approx(np.sqrt(expected), rel=0.06)
        assert row["low"] < row["value"] < row["high"]


def test_angles_of_the_cube() -> None:
    """Identity, 6 quarter turns, 3 + 6 half turns and 8 thirds of a turn, each also with the inversion."""
    found, counts = np.unique(angles(cubic_matrices().numpy()).round(6), return_counts=True)
    assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == {0: 2, 90: 12, 120: 16, 180: 18}
    drawn = Rotation.random(100, rng=np.random.default_rng(0))
    np.testing.assert_allclose(angles(drawn.as_matrix()), np.degrees(drawn.magnitude()), atol=1e-5)
