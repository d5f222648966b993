"""Fits against closed forms, scipy and slow twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from scisci.contracts.errors import UserError
from scisci.scaling.audit import judge
from scisci.scaling.fitted import Fit
from scisci.scaling.fitting import fit
from scisci.scaling.resampling import bootstrap
from scisci.scaling.solve import huber
from scisci.scaling.table import points

from .tables import power_table

N = {"N": "params"}


def power_fit(table: dict[str, np.ndarray], name: str = "power", **options: object) -> Fit:
    return fit(name, points(table, N, "loss", cluster="run"), **options)  # type: ignore[arg-type]


def test_power_is_the_line_of_linregress_with_its_t_interval() -> None:
    table = power_table(noise=0.05)
    found = power_fit(table)
    line = stats.linregress(np.log(table["params"]), np.log(table["loss"]))
    half = stats.t.ppf(0.975, len(table["loss"]) - 2) * line.stderr
    assert found.parameters["alpha"] == pytest.approx(-line.slope, rel=1e-10)
    assert found.intervals["alpha"] == pytest.approx((-line.slope - half, -line.slope + half), rel=2e-3)
    assert found.audit.verdict == "identified"
    assert found.audit.gradient_norm < 1e-9
    assert found.audit.starts_converged > 0.9


def test_band_of_the_curve_is_that_of_the_regression_line() -> None:
    table = power_table(noise=0.05)
    found = power_fit(table)
    curve = found.curve(count=5)
    assert curve is not None
    z, log_y = np.log(table["params"]), np.log(table["loss"])
    residual = log_y - np.polyval(np.polyfit(z, log_y, 1), z)
    s2 = residual @ residual / (len(z) - 2)
    at = np.log(curve["x"])
    half = stats.t.ppf(0.975, len(z) - 2) * np.sqrt(
        s2 * (1 / len(z) + (at - z.mean()) ** 2 / ((z - z.mean()) ** 2).sum())
    )
    np.testing.assert_allclose(np.log(curve["hi"]) - np.log(curve["value"]), half, rtol=1e-6)


def test_power_offset_agrees_with_scipy_least_squares() -> None:
    table = power_table(alpha=0.4, offset=0.5, noise=0.01)
    found = power_fit(table, "power_offset")

    def residuals(u: np.ndarray) -> np.ndarray:
        return np.log(u[0] + np.exp(u[1]) * table["params"] ** -u[2]) - np.log(table["loss"])

    peer = optimize.least_squares(residuals, [0.4, 3.0, 0.5], x_scale=[0.1, 1, 0.1], xtol=1e-15, ftol=1e-15)
    assert found.objective <= peer.cost * (1 + 1e-10)
    np.testing.assert_allclose(found.internal, peer.x, rtol=1e-5)


def test_profile_interval_of_power_offset_is_where_a_slow_profile_crosses() -> None:
    """The slow twin refits with scipy at the quoted ends: the excess there must be s^2 t^2."""
    table = power_table(alpha=0.4, offset=0.5, noise=0.02)
    found = power_fit(table, "power_offset")
    z, log_y = np.log(table["params"]), np.log(table["loss"])

    def held(alpha: float) -> float:
        def residuals(u: np.ndarray) -> np.ndarray:
            return np.log(np.exp(u[0]) + np.exp(u[1] - alpha * z)) - log_y

        tries = [optimize.least_squares(residuals, [e, 3.0]).cost for e in (-1.0, -4.0)]
        return 2 * min(tries)

    threshold = found.scale.variance * stats.t.ppf(0.975, found.scale.dof) ** 2
    for end in found.intervals["alpha"]:
        assert held(end) - 2 * found.objective == pytest.approx(threshold, rel=0.02)


def test_robust_fit_reaches_the_minimum_nelder_mead_finds_and_ignores_an_outlier() -> None:
    table = power_table(noise=0.01)
    table["loss"][3] *= 3.0
    found = power_fit(table, delta=1e-3)

    def total(u: np.ndarray) -> float:
        return float(huber(u[0] - u[1] * np.log(table["params"]) - np.log(table["loss"]), 1e-3).sum())

    peer = optimize.minimize(
        total,
        found.internal + 0.01,
        method="Nelder-Mead",
        options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 9999},
    )
    assert found.objective <= peer.fun * (1 + 1e-6)
    assert abs(found.parameters["alpha"] - 0.3) < 0.01 < abs(power_fit(table).parameters["alpha"] - 0.3)


def test_known_standard_errors_weight_as_weighted_least_squares_does() -> None:
    table = power_table(noise=0.0, seeds=1, sizes=9)
    rng = np.random.default_rng(0)
    log_se = np.geomspace(0.01, 0.2, 9)
    table["loss"] = table["loss"] * np.exp(0.3 * log_se * rng.normal(size=9))  # less scatter than stated
    table["se"] = table["loss"] * log_se
    found = fit("power", table, N, "loss", se="se")
    slope = np.polyfit(np.log(table["params"]), np.log(table["loss"]), 1, w=1 / log_se)[0]
    assert found.parameters["alpha"] == pytest.approx(-slope, rel=1e-8)
    # the stated errors are a floor: the interval is that of their covariance, not of the smaller scatter
    design = np.stack([np.ones(9), np.log(table["params"])], 1) / log_se[:, None]
    se = np.sqrt(np.linalg.inv(design.T @ design)[1, 1])
    low, high = found.intervals["alpha"]
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 7) * se, rel=5e-3)


def test_bootstrap_percentiles_agree_with_a_loop_over_linregress() -> None:
    table = power_table(noise=0.05, sizes=10)
    low, high = bootstrap(power_fit(table), 4000, seed=1).interval("alpha")
    rng = np.random.default_rng(7)
    z, log_y = np.log(table["params"]), np.log(table["loss"])
    slopes = []
    for _ in range(4000):
        pick = rng.integers(len(z), size=len(z))
        slopes.append(-stats.linregress(z[pick], log_y[pick]).slope)
    slow = np.quantile(slopes, [0.025, 0.975])
    np.testing.assert_allclose([low, high], slow, atol=0.06 * (slow[1] - slow[0]))


def test_rows_of_one_run_count_once() -> None:
    """Copying every run's measurement with tiny jitter must not narrow the interval."""
    table = power_table(noise=0.05)
    jitter = 1 + 1e-9 * np.arange(5)
    many = {
        "params": np.repeat(table["params"], 5),
        "loss": (table["loss"][:, None] * jitter).ravel(),
        "run": np.repeat(table["run"], 5),
    }
    assert power_fit(many).intervals["alpha"] == pytest.approx(power_fit(table).intervals["alpha"], rel=1e-6)


def test_three_sizes_do_not_identify_an_offset() -> None:
    found = power_fit(power_table(sizes=3, seeds=3), "power_offset")
    assert found.audit.verdict == "not identified"
    assert "3 distinct x for 3 parameters" in found.audit.reasons[0]


def test_pure_power_data_leave_the_offset_interval_at_zero() -> None:
    found = power_fit(power_table(offset=0.0, noise=0.03), "power_offset")
    assert found.intervals["E"][0] == 0.0
    assert any("E = 0" in reason for reason in found.audit.reasons)


@pytest.mark.parametrize(("dof", "half"), [(1, 0.6), (3, 0.3 * 3.182446 / 1.959964), (20, 0.3 * 2.085963 / 1.959964)])
def test_a_verdict_falls_where_the_uncertainty_exceeds_the_exponent(dof: int, half: float) -> None:
    """Without the part of Student's quantile (of tables) that pays for unknown scatter, and never beyond twice."""
    found = power_fit(power_table(sizes=dof + 2, seeds=1, alpha=0.3, noise=1e-6))
    alpha = found.parameters["alpha"]
    scale = alpha / 0.3

    def judged(width: float) -> str:
        ends = (alpha - width * scale, alpha + width * scale)
        return judge(replace(found, intervals=found.intervals | {"alpha": ends}), dof + 2)[0]

    assert found.interval.dof == dof
    assert (judged(0.999 * half), judged(1.001 * half)) == ("identified", "weak")


def test_a_bent_curve_is_not_called_a_power_law() -> None:
    found = power_fit(power_table(alpha=0.8, offset=0.02, noise=0.005, decades=4))
    assert found.audit.verdict == "weak"
    assert "bend" in found.audit.reasons[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": np.nan}, "NaN"),
        ({"loss": 0.0}, "zero or negative"),
        ({"loss": -1.0}, "zero or negative"),
        ({"loss": np.inf}, "infinite"),
        ({"params": np.nan}, "NaN"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(change: dict[str, float], message: str) -> None:
    table = power_table()
    for column, value in change.items():
        table[column][2] = value
    with pytest.raises(UserError, match=f"{message} in 1 of 16 rows .first: row 3"):
        power_fit(table)


def test_one_size_and_too_few_points_are_refused() -> None:
    with pytest.raises(UserError, match="needs two or more"):
        power_fit(power_table(sizes=1, seeds=5))
    with pytest.raises(UserError, match="has 3 parameters"):
        power_fit(power_table(sizes=2, seeds=1), "power_offset")


def test_duplicated_rows_and_mixed_units_are_refused() -> None:
    table = power_table()
    double = {name: np.concatenate([values, values[:1]]) for name, values in table.items()}
    with pytest.raises(UserError, match="rows 1 and 17 are the same"):
        power_fit(double)
    mixed = table | {"unit": np.array(["meV"] * 15 + ["eV"])}
    with pytest.raises(UserError, match="mix several values of 'unit'"):
        power_fit(mixed)


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'power'"):
        power_fit(power_table(), "powr")
    with pytest.raises(UserError, match="did you mean 'params'"):
        points(power_table(), {"N": "parms"}, "loss")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_table_gives_finite_records_or_a_sentence(data: st.DataObject) -> None:
    from scisci.scaling.records import fit_record

    rows = data.draw(st.integers(1, 8))
    number = st.floats(allow_nan=True, allow_infinity=True) | st.floats(1e-6, 1e12)
    table = {
        "params": np.array(data.draw(st.lists(number, min_size=rows, max_size=rows))),
        "loss": np.array(data.draw(st.lists(number, min_size=rows, max_size=rows))),
    }
    name = data.draw(st.sampled_from(["power", "power_offset"]))
    outcome: Fit | str
    try:
        outcome = fit(name, table, N, "loss")
    except UserError as error:
        outcome = str(error)
    if isinstance(outcome, str):
        assert outcome
        assert "\n" not in outcome
        return
    found = outcome
    record = fit_record(found, {})
    assert np.isfinite(found.objective)
    if found.identified:
        assert all(entry["value"] is not None for entry in record["parameters"].values())
    else:
        assert record["text"] == "not identified"
        assert all(entry["value"] is None for entry in record["parameters"].values())


def test_x_so_small_that_its_powers_overflow_is_no_crash() -> None:
    found = fit("power_offset", {"N": [1.0, 2.0, 2e-45], "y": [1.0, 1.0, 1.0]}, {"N": "N"}, "y")
    assert found.audit.verdict == "not identified"
    assert np.isfinite(found.objective)


def test_seed_noise_bootstrap_is_the_spread_of_fresh_seeds() -> None:
    """The slope's standard deviation for seed noise s is s / sqrt(Sxx), whatever the misfit of the line."""
    table = power_table(noise=0.03, sizes=6, seeds=6, offset=0.3)  # a pure power law misfits this
    found = power_fit(table)
    refits = bootstrap(found, 3000, noise="seeds")
    z = np.log(table["params"])
    log_y = np.log(table["loss"]).reshape(6, 6)
    seed_sd = np.sqrt(((log_y - log_y.mean(1, keepdims=True)) ** 2).sum() / 30)
    expected = seed_sd / np.sqrt(((z - z.mean()) ** 2).sum())
    assert refits.parameters[:, 1].std() == pytest.approx(expected, rel=0.06)
    with pytest.raises(UserError, match="add seeds"):
        bootstrap(power_fit(power_table(seeds=1)), 500, noise="seeds")


def test_frame_and_chart_show_only_what_is_identified() -> None:
    good, bad = power_fit(power_table(seed=2)), power_fit(power_table(sizes=3, seeds=3), "power_offset")
    frame = good.to_frame()
    assert list(frame.columns) == ["value", "low", "high"]
    assert frame.loc["alpha", "low"] < 0.3 < frame.loc["alpha", "high"]
    assert bad.to_frame().isna().all().all()
    chart = good.plot().to_dict()
    assert "0.30" in chart["title"]
    assert [layer["mark"]["type"] for layer in chart["layer"]] == ["area", "line", "point"]
    assert "not identified" in bad.plot().to_dict()["title"]


def test_conditions_may_name_the_laws_variables() -> None:
    table = power_table()
    by_variable = points(table, N, "loss", where="N>1e5 and loss>0")
    by_column = points(table, N, "loss", where="params>1e5")
    assert len(by_variable) == len(by_column) == (table["params"] > 1e5).sum()
    with pytest.raises(UserError, match="holds numbers"):
        points(table, N, "loss", where="N>big")
    with pytest.raises(UserError, match="can only use =="):
        points(table, N, "loss", where="run>r3")
