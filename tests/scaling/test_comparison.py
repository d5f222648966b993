"""Differences, the shared exponent, crossovers, hold-outs, forecasts, shapes and lines, against closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import linalg, stats

from scisci.contracts.errors import UserError
from scisci.scaling.clusters import cr2
from scisci.scaling.comparison import difference, shared_exponent
from scisci.scaling.crossing import crossover
from scisci.scaling.fitted import Fit
from scisci.scaling.fitting import fit
from scisci.scaling.forecasting import forecast
from scisci.scaling.law import law
from scisci.scaling.resampling import bootstrap, paired_bootstrap
from scisci.scaling.robustness import robustness
from scisci.scaling.table import Points, points
from scisci.scaling.trends import trend
from scisci.scaling.validation import held_out, holdout

from .tables import power_table, results_table


def table_points(**options: float) -> Points:
    table = power_table(**options)  # type: ignore[arg-type]
    table["run"] = np.array([f"{run}-{sorted(options.items())}" for run in table["run"]])
    return points(table, {"N": "params"}, "loss", cluster="run")


def fitted(name: str = "power", **options: float) -> Fit:
    return fit(name, table_points(**options), delta=np.inf)


def test_independent_difference_is_welch() -> None:
    a, b = fitted(seed=1, noise=0.05), fitted(seed=2, noise=0.01, sizes=5)
    found = difference(a, b)
    lines = [stats.linregress(np.log(f.points.x[0]), f.points.log_y) for f in (a, b)]
    va, vb = (line.stderr**2 for line in lines)
    na, nb = len(a.points) - 2, len(b.points) - 2
    dof = (va + vb) ** 2 / (va**2 / na + vb**2 / nb)
    half = stats.t.ppf(0.975, dof) * np.sqrt(va + vb)
    value = lines[1].slope - lines[0].slope
    assert (found.value, found.low, found.high) == pytest.approx((value, value - half, value + half), rel=1e-6)


def test_paired_bootstrap_is_that_of_the_slope_of_the_ratio() -> None:
    """Power laws over the same runs: on every draw, the difference of slopes is the slope of ln(y_a / y_b)."""
    rng = np.random.default_rng(0)
    n = np.repeat(np.geomspace(1e3, 1e6, 8), 3)
    shared, runs = 0.1 * rng.normal(size=24), [f"r{i}" for i in range(24)]
    losses = [30 * n**-alpha * np.exp(shared + 0.02 * rng.normal(size=24)) for alpha in (0.3, 0.2)]
    a, b = (
        fit("power", {"N": n, "y": y, "run": np.array(runs)}, x={"N": "N"}, y="y", cluster="run", delta=np.inf)
        for y in losses
    )
    low, high = paired_bootstrap(a, b, 4000, seed=1)
    ratio, slopes = np.log(losses[0] / losses[1]), []
    for _ in range(4000):
        picks = rng.integers(0, 24, 24)
        slopes.append(-np.polyfit(np.log(n[picks]), ratio[picks], 1)[0])
    expected = np.quantile(slopes, [0.025, 0.975])
    assert [low, high] == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))
    # What the runs share cancels: drawn apart, the interval is several times wider.
    apart = fit("power", {"N": n, "y": losses[1]}, x={"N": "N"}, y="y", delta=np.inf)
    wide = paired_bootstrap(a, apart, 4000, seed=1)
    assert wide[1] - wide[0] > 3 * (high - low)


def test_difference_of_offset_laws_holds_the_truth_and_antisymmetric() -> None:
    a = fitted("power_offset", alpha=0.5, offset=0.3, noise=0.01, seed=3)
    b = fitted("power_offset", alpha=0.35, offset=0.3, noise=0.01, seed=4)
    one, other = difference(a, b), difference(b, a)
    assert one.low < 0.15 < one.high
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_a_fit_that_is_not_identified_has_no_difference() -> None:
    few = fitted("power_offset", sizes=3, seeds=3)
    found = difference(few, fitted("power_offset", offset=0.5, seed=5))
    assert found.verdict == "not identified"
    assert np.isnan(found.value)


def test_slope_or_offset_agrees_with_analysis_of_covariance() -> None:
    same = [fitted(seed=s, noise=0.02) for s in (1, 2, 3)]
    other = [fitted(seed=1, noise=0.02), fitted(alpha=0.4, seed=2, noise=0.02)]
    assert shared_exponent(same).verdict == "offset"
    assert shared_exponent(other).verdict == "slope"
    found = shared_exponent(same)
    z = np.concatenate([np.log(f.points.x[0]) for f in same])
    target = np.concatenate([f.points.log_y for f in same])
    group = np.repeat(np.arange(3), [len(f.points) for f in same])
    own = (group[:, None] == np.arange(3)).astype(float)
    shared = np.column_stack([own, z])
    separate = np.column_stack([own, own * z[:, None]])
    sums, slopes = [], []
    for design in (shared, separate):
        coefficient = np.linalg.lstsq(design, target, rcond=None)[0]
        sums.append(((target - design @ coefficient) ** 2).sum())
        slopes.append(coefficient)
    ratio = ((sums[0] - sums[1]) / 2) / (sums[1] / (len(z) - 6))
    assert found.p_value == pytest.approx(stats.f.sf(ratio, 2, len(z) - 6), rel=1e-4)
    assert found.value == pytest.approx(-slopes[0][-1], rel=1e-4)
    assert found.delta_bic == pytest.approx(len(z) * np.log(sums[1] / sums[0]) + 2 * np.log(len(z)), abs=1e-3)


def test_crossover_set_is_fiellers() -> None:
    a, b = fitted(alpha=0.4, noise=0.02, seed=1), fitted(alpha=0.2, noise=0.02, seed=2)
    shifted = Points(b.points.x, b.points.y * 0.15, b.points.cluster, b.points.runs)
    b = fit("power", shifted)
    found = crossover(a, b)
    assert found.verdict == "crossover"
    # the ends solve (da + db z)^2 = t^2 var(z) with z = ln x: a quadratic, for equal designs and pooled dof
    u = a.internal - b.internal
    va, vb = a.spread.unit * a.scale.variance, b.spread.unit * b.scale.variance
    for end in (found.low, found.high):
        row = np.array([1.0, -np.log(end)])
        wa, wb = row @ va @ row, row @ vb @ row
        dof = (wa + wb) ** 2 / (wa**2 / 14 + wb**2 / 14)
        assert abs(row @ u) == pytest.approx(stats.t.ppf(0.975, dof) * np.sqrt(wa + wb), rel=0.1)
    assert found.value == pytest.approx(np.exp(u[0] / u[1]), rel=1e-3)
    assert found.quantiles[0] < found.value < found.quantiles[2]


def test_parallel_curves_do_not_cross_and_noise_does_not_decide() -> None:
    a = fitted(alpha=0.3, noise=0.01, seed=1)
    low = Points(a.points.x, a.points.y * 0.5, a.points.cluster, a.points.runs)
    assert crossover(a, fit("power", low)).verdict == "no crossover"
    near = fitted(alpha=0.3, noise=0.01, seed=2)
    assert crossover(a, near).verdict == "undecided"
    with pytest.raises(UserError, match="one variable"):
        n = np.geomspace(1e4, 1e8, 8)
        grid = {"N": np.repeat(n, 8), "D": np.tile(n, 8)}
        grid["L"] = law("chinchilla").value(grid["N"], grid["D"], 1.8, 400.0, 2000.0, 0.3, 0.3)
        two = fit("chinchilla", grid, {"N": "N", "D": "D"}, "L")
        crossover(two, two)


def test_cluster_robust_variance_is_exact_where_theory_is() -> None:
    """For the mean of balanced groups CR2 is the between-group variance with groups - 1 degrees of freedom."""
    rng = np.random.default_rng(0)
    groups, rows = 6, 4
    y = np.repeat(rng.normal(size=groups), rows) + 0.1 * rng.normal(size=groups * rows)
    cluster = np.repeat(np.arange(groups), rows)
    design = np.ones((groups * rows, 1))
    unit = np.linalg.inv(design.T @ design)
    variance, dof = cr2(design, y - y.mean(), cluster, unit, np.ones((1, 1)))
    means = y.reshape(groups, rows).mean(1)
    assert variance[0] == pytest.approx(means.var(ddof=1) / groups)
    assert dof[0] == pytest.approx(groups - 1)


def test_cr2_is_that_of_the_whole_matrices() -> None:
    """Bell and McCaffrey's formulas with every n by n matrix written out: adjustment, variance, Satterthwaite."""
    rng = np.random.default_rng(4)
    for _ in range(20):
        cluster = rng.permutation(np.repeat(np.arange(7), rng.integers(2, 9, 7)))
        n = len(cluster)
        design, residual = rng.normal(size=(n, 3)) * [1, 10, 0.1], rng.normal(size=n)
        unit = np.linalg.inv(design.T @ design)
        contrast = np.concatenate([np.eye(3), rng.normal(size=(1, 3))])
        variance, dof = cr2(design, residual, cluster, unit, contrast)
        whole = np.eye(n) - design @ unit @ design.T
        for k, c in enumerate(contrast):
            columns, total = [], 0.0
            for g in range(7):
                at = np.flatnonzero(cluster == g)
                adjusted = linalg.inv(linalg.sqrtm(whole[np.ix_(at, at)])).real @ design[at] @ unit @ c
                columns.append(whole[:, at] @ adjusted)
                total += float(residual[at] @ adjusted) ** 2
            gram = np.array(columns) @ np.array(columns).T
            assert variance[k] == pytest.approx(total, rel=1e-6)
            assert dof[k] == pytest.approx(np.trace(gram) ** 2 / (gram**2).sum(), rel=1e-6)


def test_cr2_of_many_runs_and_of_long_ones_is_the_plain_variance_they_tend_to() -> None:
    """Independent rows: the matrices of 40,000 runs, or of runs of 5,000 rows, are never formed."""
    rng = np.random.default_rng(5)
    for runs, rows in ((40_000, 2), (16, 5_000)):
        cluster = np.repeat(np.arange(runs), rows)
        design = np.stack([np.ones(cluster.size), rng.normal(size=cluster.size)], 1)
        unit = np.linalg.inv(design.T @ design)
        variance, dof = cr2(design, rng.normal(size=cluster.size), cluster, unit, np.eye(2))
        assert variance == pytest.approx(np.diag(unit), rel=0.05 if runs > 100 else 1.5)
        assert (dof < runs).all()
        assert (dof > 0.4 * runs).all()


def test_seeds_as_clusters_widen_nothing_they_should_not() -> None:
    """A shift common to all sizes of a seed moves A, not alpha: alpha stays sharp, A does not."""
    table = power_table(noise=0.005, sizes=8, seeds=5)
    shift = np.tile(0.2 * np.random.default_rng(1).normal(size=5), 8)
    table["loss"] = table["loss"] * np.exp(shift)
    table["seed"] = np.tile(np.arange(5), 8)
    clustered = fit("power", table, {"N": "params"}, "loss", cluster="seed")
    naive = fit("power", table, {"N": "params"}, "loss")
    low, high = clustered.intervals["alpha"]
    assert low < 0.3 < high
    assert high - low < 0.2 * (naive.intervals["alpha"][1] - naive.intervals["alpha"][0])


def test_holdout_by_share_and_by_condition() -> None:
    data = table_points(alpha=0.4, offset=0.5, noise=0.005)
    assert held_out(law("power"), data, "0.25").sum() == 4
    assert held_out(law("power"), data, "N>1e5").sum() == (data.x[0] > 1e5).sum()
    pure = holdout(law("power"), data, "0.25", np.inf)
    offset = holdout(law("power_offset"), data, "0.25", np.inf)
    assert pure.bias < -0.01  # a law without the floor forecasts too low a loss
    assert offset.error < pure.error
    exponents = [step[1] for step in pure.drift]
    assert exponents == sorted(exponents, reverse=True)  # the local exponent falls as the floor nears
    low, high, _ = offset.left_out
    assert 0.37 < low < high < 0.43
    for rule, message in (
        ("M>3", "unknown variable"),
        ("big", "cannot read"),
        ("1.5", "between"),
        ("N>1e99", "holds out 0"),
    ):
        with pytest.raises(UserError, match=message):
            held_out(law("power"), data, rule)


def test_forecast_is_the_prediction_interval_of_regression() -> None:
    found = fitted(noise=0.03)
    z, log_y = np.log(found.points.x[0]), found.points.log_y
    at = 3e6
    s2 = found.scale.variance
    of_curve = s2 * (1 / len(z) + (np.log(at) - z.mean()) ** 2 / ((z - z.mean()) ** 2).sum())
    t = stats.t.ppf(0.975, len(z) - 2)
    value = np.polyval(np.polyfit(z, log_y, 1), np.log(at))
    ahead = forecast(found, {"N": at})
    assert np.log(ahead.curve) == pytest.approx([value - t * of_curve**0.5, value + t * of_curve**0.5], rel=1e-6)
    further = (of_curve + s2) ** 0.5
    assert np.log(ahead.run) == pytest.approx([value - t * further, value + t * further], rel=1e-6)
    assert ahead.beyond == pytest.approx(at / found.points.x[0].max())
    refitted = forecast(found, {"N": at}, refits=bootstrap(found, 2000))
    assert refitted.curve[0] == pytest.approx(ahead.curve[0], rel=0.02)
    with pytest.raises(UserError, match="times beyond the data"):
        forecast(found, {"N": 1e12})
    with pytest.raises(UserError, match="is forecast at N="):
        forecast(found, {"D": 1e5})
    few = fitted("power_offset", sizes=3, seeds=3)
    with pytest.raises(UserError, match="not identified"):
        forecast(few, {"N": 3e6})
    assert forecast(few, {"N": 1e5}).value > 0


def shaped(slope: float, bend: float = 0.0, noise: float = 0.01) -> Points:
    rng = np.random.default_rng(2)
    n = np.repeat(np.geomspace(1e3, 1e6, 9), 2)
    z = np.log(n) - np.log(n).mean()
    y = np.exp(slope * z + bend * z**2 + noise * rng.normal(size=n.size))
    return points({"n": n, "y": y}, {"N": "n"}, "y")


def test_shapes_are_told_apart() -> None:
    assert trend(shaped(-0.2)).shape == "falls"
    assert trend(shaped(0.2)).shape == "rises"
    assert trend(shaped(0.0)).shape == "flat"
    assert trend(shaped(0.0, 0.05)).shape == "U-shaped"
    assert trend(shaped(0.0, -0.05)).shape == "peaked"
    assert trend(shaped(-0.6, 0.05)).shape == "falls"  # bent, but falling throughout
    rising = trend(shaped(0.2))
    assert rising.law == ""
    assert "no power law" in rising.warnings[0]


def test_a_break_is_only_preferred_where_it_predicts() -> None:
    n = np.repeat(np.geomspace(1e3, 1e9, 24), 2)
    rng = np.random.default_rng(0)
    broken = law("bnsl_1").value(n, 0.0, 10.0, 0.1, 0.4, 1e5, 0.2) * np.exp(0.005 * rng.normal(size=n.size))
    plain = 10 * n**-0.2 * np.exp(0.005 * rng.normal(size=n.size))
    found = trend(points({"n": n, "y": broken}, {"N": "n"}, "y"))
    assert found.law == "bnsl_1"
    assert any("exponent changes" in warning for warning in found.warnings)
    assert trend(points({"n": n, "y": plain}, {"N": "n"}, "y")).law != "bnsl_1"


def test_robustness_line_is_that_of_linregress(tmp_path: Path) -> None:
    path = results_table(tmp_path / "results.parquet")
    from scisci.scaling.table import read_table, select_metric

    (hot, _) = robustness(path, "force_mae")
    rows = select_metric(read_table(path), "force_mae")
    scores = {
        split: dict(zip(part.column("run").tolist(), np.log(part.numbers("value")), strict=True))
        for split in ("test", "ood_hot")
        for part in [rows.where(f"split=={split}")]
    }
    runs = sorted(scores["test"])
    line = stats.linregress([scores["test"][r] for r in runs], [scores["ood_hot"][r] for r in runs])
    assert hot.split == "ood_hot"
    assert hot.slope == pytest.approx(line.slope)
    assert hot.runs == len(runs)
    assert set(hot.effective) == {"alpha_net", "beta_net"}
    with pytest.raises(UserError, match="logit"):
        robustness(path, "force_mae", scale="logit")
