"""Lines against the fits that they stand for, and against regressions of each model's logarithms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scisci.contracts.errors import UserError
from scisci.leaderboard.analysis import line_of
from scisci.leaderboard.board import Estimate
from scisci.leaderboard.exponents import Line, against, exponents, forecast
from scisci.scaling.comparison import difference
from scisci.scaling.fitted import Fit
from scisci.scaling.fitting import fit
from scisci.scaling.forecasting import forecast as scaling_forecast

LINES = st.builds(
    Line,
    n=st.integers(3, 20),
    dof=st.floats(1, 18),
    variance=st.floats(1e-6, 0.1),
    alpha=st.floats(-0.5, 1.0),
    mean_log_x=st.floats(9, 11),
    mean_log_y=st.floats(-1, 1),
    sxx=st.floats(1, 100),
    x_min=st.floats(1e2, 1e4),
    x_max=st.floats(2e4, 1e7),
)
SWAPPED = {"steeper": "shallower", "shallower": "steeper", "less": "more", "more": "less"}


def power(
    alpha: float,
    scale: float = 30.0,
    noise: float = 0.03,
    seed: int = 0,
    low: float = 1e3,
    high: float = 1e6,
    sizes: int = 5,
) -> Fit:
    rng = np.random.default_rng(seed)
    x = np.repeat(np.geomspace(low, high, sizes), 2)
    y = scale * x**-alpha * np.exp(noise * rng.normal(size=x.size))
    runs = np.array([f"{seed}-{i}" for i in range(x.size)])
    return fit("power", {"x": x, "y": y, "run": runs}, {"N": "x"}, "y", cluster="run", delta=np.inf)


@pytest.mark.parametrize("compute", [3e4, 1e6, 9e7, 20.0])
def test_a_forecast_is_that_of_the_fit(compute: float) -> None:
    found = power(0.3)
    expected = scaling_forecast(found, {"N": compute})
    ours = forecast(line_of(found), compute)
    assert isinstance(ours, Estimate)
    assert [ours.value, ours.low, ours.high] == pytest.approx([expected.value, *expected.run], rel=1e-6)


@pytest.mark.parametrize("compute", [1.1e8, 9.0])
def test_no_forecast_reaches_beyond_what_the_fit_would_say(compute: float) -> None:
    with pytest.raises(UserError, match="a forecast reaches 100 times"):
        scaling_forecast(power(0.3), {"N": compute})
    assert "a forecast reaches 100 times" in str(forecast(line_of(power(0.3)), compute))


@pytest.mark.parametrize(("alpha", "verdict"), [(0.2, "slope"), (0.3, "offset")])
def test_a_slope_is_told_apart_as_the_fits_tell_it(alpha: float, verdict: str) -> None:
    one, other = power(0.3), power(alpha, scale=60.0, noise=0.06, seed=1, sizes=3)
    expected = difference(one, other)
    assert (expected.verdict != "no difference detected") == (verdict == "slope")
    found, words = against("params", line_of(one), line_of(other), "mpnn")
    assert found == verdict
    assert f"difference {expected.value:.3f} [{expected.low:.3f}, {expected.high:.3f}]" in words


def test_a_level_is_that_of_two_regressions_at_the_middle_of_the_common_range() -> None:
    """The intercept of a regression on ln x - ln middle is the line's value there, with its standard error."""
    one, other = power(0.3, low=1e3, high=1e5), power(0.3, scale=50.0, noise=0.05, seed=1, low=1e4, high=1e7, sizes=3)
    middle = math.sqrt(1e4 * 1e5)
    a, b = (stats.linregress(np.log(each.points.x[0] / middle), each.points.log_y) for each in (one, other))
    variance = a.intercept_stderr**2 + b.intercept_stderr**2
    welch = variance**2 / (a.intercept_stderr**4 / 8 + b.intercept_stderr**4 / 4)
    half = stats.t.ppf(0.975, welch) * math.sqrt(variance)
    level = np.exp(a.intercept - b.intercept + np.array([0.0, -half, half]))
    found, words = against("params", line_of(one), line_of(other), "mpnn")
    assert found == "offset"
    assert words.startswith("less error than mpnn at a slope not told apart: ")
    assert "{:.3f} [{:.3f}, {:.3f}] times its error at 31.6k parameters".format(*level) in words


def test_models_of_one_law_are_rarely_told_apart() -> None:
    """Two intervals of 95 % in turn: of 1,000 pairs of equal models about 5 % differ in slope, 5 % of the rest else."""
    rng = np.random.default_rng(0)
    x = np.repeat(np.geomspace(1e3, 1e6, 4), 2)
    log_x = np.log(x) - np.log(x).mean()
    sxx = float((log_x**2).sum())

    def line(noise: float) -> Line:
        y = -0.3 * log_x + noise * rng.normal(size=x.size)
        alpha = -float(log_x @ y) / sxx
        variance = float(((y - y.mean() + alpha * log_x) ** 2).sum()) / 6
        return Line(8, 6.0, variance, alpha, float(np.log(x).mean()), float(y.mean()), sxx, 1e3, 1e6)

    found = [against("params", line(0.02), line(0.06), "mpnn")[0] for _ in range(1000)]
    assert 0.03 < found.count("slope") / 1000 < 0.07
    assert 0.03 < found.count("offset") / 1000 < 0.07
    assert found.count("none") == 1000 - found.count("slope") - found.count("offset")


@given(LINES, LINES)
def test_the_verdict_is_the_same_from_the_other_side(one: Line, other: Line) -> None:
    found, words = against("params", one, other, "it")
    again, swapped = against("params", other, one, "it")
    assert found == again
    if found in ("slope", "offset"):
        assert swapped.split()[0] == SWAPPED[words.split()[0]]


@given(LINES, st.floats(0.1, 10.0))
def test_a_model_that_is_better_everywhere_by_a_factor_is_never_another_slope(one: Line, factor: float) -> None:
    shifted = Line(**{**vars(one), "mean_log_y": one.mean_log_y + math.log(factor)})
    assert against("params", shifted, one, "it")[0] in ("offset", "none")


def test_ranges_that_do_not_meet_tell_nothing() -> None:
    low, high = line_of(power(0.3, low=1e2, high=1e3)), line_of(power(0.1, low=1e4, high=1e6, seed=1))
    assert against("data", low, high, "mpnn") == (
        "undecided",
        "the runs share no range of training samples with those of mpnn",
    )


def record(axis: str, line: Line | None) -> dict[str, Any]:
    exponent = None if line is None else {"value": line.alpha, "low": line.alpha - 0.1, "high": line.alpha + 0.1}
    return {
        "axis": axis,
        "split": "test",
        "verdict": "not identified" if line is None else "identified",
        "reason": "too few" if line is None else "",
        "fixed": "size s",
        "exponent": exponent,
        "held_out": None if line is None else 0.1,
        "line": None if line is None else vars(line),
    }


def test_what_a_board_shows_of_every_axis() -> None:
    line, other = line_of(power(0.3)), line_of(power(0.1, seed=1))
    mine = [record("params", line), record("data", None), record("flops", line)]
    reference = {("params", "test"): record("params", None), ("flops", "test"): record("flops", other)}
    params, data, flops = exponents(mine, 1e7, "mpnn", reference)
    assert (params.estimate, params.held_out) == (Estimate(line.alpha, line.alpha - 0.1, line.alpha + 0.1), 0.1)
    assert (params.forecast, params.forecast_reason) == (None, "")
    assert (params.against_reference, params.against_reference_words) == (
        "undecided",
        "the exponent of mpnn is not identified",
    )
    assert (data.estimate, data.verdict, data.reason) == (None, "not identified", "too few")
    assert data.against_reference_words == "the exponent is not identified"
    assert flops.against_reference == "slope"
    assert flops.forecast == forecast(line, 1e7)


def test_what_a_board_shows_without_reference_compute_or_line() -> None:
    line = line_of(power(0.3))
    (plain,) = exponents([record("flops", line)], None, None, {})
    assert (plain.against_reference, plain.against_reference_words) == ("undecided", "no reference was chosen")
    assert (plain.forecast, plain.forecast_reason) == (None, "")
    (far,) = exponents([record("flops", line)], 1e12, None, {})
    assert far.forecast is None
    assert "1e+06 times beyond the runs" in far.forecast_reason
    (nothing,) = exponents([record("flops", None)], 1e7, None, {})
    assert nothing.forecast_reason == "the exponent is not identified"
    (itself,) = exponents([record("flops", line)], None, "mpnn", {}, is_reference=True)
    assert itself.against_reference == "is the reference"
