"""The compute frontier, the critical batch size, intrinsic dimension, and what metrics allow: known truths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scisci.contracts.errors import UserError
from scisci.scaling.critical_batch import contours, fit_critical_batch, minimum_steps, stepwise
from scisci.scaling.dimension import intrinsic_dimension, regime
from scisci.scaling.fitting import fit
from scisci.scaling.frontier import compute_exponents_agree, frontier
from scisci.scaling.law import law
from scisci.scaling.resampling import REFERENCE_SEED, bootstrap
from scisci.scaling.sanity import metric_warnings
from scisci.scaling.table import points

E, A, B, ALPHA, BETA = 1.8, 480.0, 2100.0, 0.35, 0.37


def budgets(noise: float = 0.002) -> dict[str, np.ndarray]:
    """Nine budgets with nine sizes each, around the optimum."""
    rng = np.random.default_rng(0)
    compute = np.repeat(np.geomspace(1e18, 1e22, 9), 9)
    optimum = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (compute / 6) ** (BETA / (ALPHA + BETA))
    n = optimum * np.tile(np.geomspace(0.2, 5, 9), 9) * np.exp(rng.uniform(-0.2, 0.2, 81))
    d = compute / 6 / n
    loss = law("chinchilla").value(n, d, E, A, B, ALPHA, BETA) * np.exp(noise * rng.normal(size=n.size))
    return {"params": n, "data": d, "loss": loss, "flops": compute}


def test_all_three_approaches_find_the_true_allocation() -> None:
    truth = BETA / (ALPHA + BETA)
    envelope, parabola, parametric = frontier(budgets(), "loss")
    for found in (envelope, parabola, parametric):
        assert found.low < truth < found.high, found.name
        assert found.bias
    assert parametric.high - parametric.low < envelope.high - envelope.low
    implied = ALPHA * BETA / (ALPHA + BETA)
    for found in (envelope, parabola, parametric):
        assert found.loss_exponent is not None
        assert found.loss_exponent[1] < implied < found.loss_exponent[2]


def test_a_given_compute_column_is_used_and_one_budget_refused() -> None:
    table = budgets()
    with_column = frontier(table, "loss", C="flops")
    assert with_column[1].value == pytest.approx(frontier(table, "loss")[1].value, rel=1e-6)
    one = {name: values[:9] for name, values in table.items()}
    with pytest.raises(UserError, match="vary the budget"):
        frontier(one, "loss", C="flops")


@pytest.mark.parametrize("count", [4, 5, 7, 9])
def test_the_budgets_of_an_iso_flop_grid_are_found(count: int) -> None:
    """Whole steps leave a few per cent between runs of one budget; equal bins would cut such budgets in two."""
    rng = np.random.default_rng(1)
    planned = np.repeat(np.geomspace(1e18, 1e22, count), 6)
    optimum = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (planned / 6) ** (BETA / (ALPHA + BETA))
    n = optimum * np.tile(np.geomspace(0.3, 3.5, 6), count)
    spent = planned * rng.uniform(0.97, 1.03, planned.size)
    loss = law("chinchilla").value(n, spent / 6 / n, E, A, B, ALPHA, BETA)
    table = {"params": n, "data": spent / 6 / n, "loss": loss, "flops": spent}
    envelope, parabola, _ = frontier(table, "loss", C="flops")
    assert parabola.points is not None
    assert envelope.points is not None
    assert len(parabola.points) == len(envelope.points) == count
    assert parabola.points[:, 0] == pytest.approx(np.geomspace(1e18, 1e22, count), rel=0.03)
    assert parabola.low < BETA / (ALPHA + BETA) < parabola.high


def test_compute_exponents_are_checked_against_the_parametric_law() -> None:
    approaches = frontier(budgets(), "loss")
    lines = compute_exponents_agree(approaches)
    assert len(lines) == 2
    assert all("agrees with" in line for line in lines)
    wrong = replace(approaches[0], loss_exponent=(0.4, 0.38, 0.42))
    assert "contradicts" in compute_exponents_agree([wrong, approaches[2]])[0]


def test_derived_exponent_by_delta_method_agrees_with_its_bootstrap() -> None:
    found = fit("chinchilla", budgets(0.005), {"N": "params", "D": "data"}, "loss")
    refits = bootstrap(found, 2000)
    for name in ("a", "c"):
        value, low, high = found.derived[name]
        slow = refits.derived(name)
        assert low < value < high
        assert (low, high) == pytest.approx(slow, abs=0.35 * (high - low))


def test_bootstrap_draws_whole_runs_with_a_frozen_stream() -> None:
    """The draws are RandomState(seed).choice(runs, (resamples, runs)), in order: published ones come back."""
    table = budgets(0.01)
    found = fit("chinchilla", table, {"N": "params", "D": "data"}, "loss")
    refits = bootstrap(found, 150, seed=REFERENCE_SEED)
    draw = np.random.RandomState(REFERENCE_SEED)
    for k in range(3):
        pick = draw.choice(81, 81)
        once = {name: values[pick] * (1 + 1e-13 * np.arange(81)) for name, values in table.items()}
        again = fit("chinchilla", once, {"N": "params", "D": "data"}, "loss")
        np.testing.assert_allclose(refits.parameters[k], list(again.parameters.values()), rtol=1e-3)


def curves(sizes: tuple[float, ...], batches: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Noise-free curves of L = A N^-aN + C S_min^-aS with S = S_min (1 + B_crit(L) / B)."""
    rows = []
    for n in sizes:
        for batch in batches:
            fewest = np.geomspace(300, 3e5, 60)
            loss = 11.0 * n**-0.08 + 330.0 * fewest**-0.76
            steps = fewest * (1 + 2e8 * loss ** (-1 / 0.21) / batch)
            rows.append(np.stack([np.full(60, n), steps, np.full(60, batch), loss]))
    return dict(zip(("N", "S", "B", "L"), np.concatenate(rows, axis=1), strict=True))


def test_stepwise_estimation_recovers_every_constant() -> None:
    table = curves((1e6, 1e7, 1e8, 1e9), (3e4, 3e5, 3e6))
    at = table["N"] == 1e7
    found = contours(table["S"][at], table["B"][at], table["L"][at], np.geomspace(3.2, 5.0, 8))
    critical = fit_critical_batch(found)
    assert critical.parameters["alpha_B"] == pytest.approx(0.21, rel=0.02)
    assert critical.parameters["B_star"] == pytest.approx(2e8, rel=0.1)
    least = minimum_steps(table["S"], table["B"], table["L"], critical)
    np.testing.assert_allclose(least[:60], np.geomspace(300, 3e5, 60), rtol=0.05)
    whole = stepwise(table["N"], table["S"], table["B"], table["L"], np.geomspace(3.2, 5.0, 8), 1e7)
    assert whole.joint.parameters["alpha_N"] == pytest.approx(0.08, rel=0.02)
    assert whole.joint.parameters["alpha_S"] == pytest.approx(0.76, rel=0.03)
    with pytest.raises(UserError, match="loss levels"):
        contours(table["S"][at], np.full(at.sum(), 1e5), table["L"][at], np.array([4.0]))


def test_intrinsic_dimension_is_that_of_the_manifold_not_of_the_space() -> None:
    rng = np.random.default_rng(0)
    latent = rng.uniform(size=(3000, 2))
    u, v = latent.T
    embedded = np.stack([u, v, np.sin(3 * u), (u + v) ** 2, v**3], 1)
    found = intrinsic_dimension(embedded)
    assert found.low < 2.05
    assert found.high > 1.95
    with pytest.raises(UserError, match="repeated"):
        intrinsic_dimension(np.repeat(embedded[:20], 2, axis=0))


def test_regimes_are_named() -> None:
    n = np.geomspace(1e3, 1e6, 10)
    noise = np.exp(0.02 * np.random.default_rng(0).normal(size=10))
    steep = fit("power", {"n": n, "y": 1e3 / n * noise}, {"N": "n"}, "y")
    shallow = fit("power", {"n": n, "y": n**-0.3 * noise}, {"N": "n"}, "y")
    assert "variance-limited" in regime(steep)
    ten = intrinsic_dimension(np.random.default_rng(1).normal(size=(2000, 8)))
    assert "resolution-limited" in regime(shallow, ten)


def test_an_exponent_without_a_natural_zero_comes_with_its_unit_dependence() -> None:
    n = np.geomspace(1e3, 1e7, 10)
    table = {"n": n, "nll": 5 * n**-0.03, "force_mae": 5 * n**-0.03}
    (warning,) = metric_warnings(fit("power", table, {"N": "n"}, "nll"))
    moved = fit("power", table | {"up": table["nll"] + 1}, {"N": "n"}, "up").parameters["alpha"]
    assert f"from 0.030 to {moved:.3f}" in warning
    assert "with an offset" in warning
    assert metric_warnings(fit("power", table, {"N": "n"}, "force_mae")) == []
    assert metric_warnings(fit("power_offset", table, {"N": "n"}, "nll")) == []


def test_a_jumping_metric_is_named() -> None:
    n = np.geomspace(1e3, 1e7, 12)
    y = np.repeat([0.9, 0.8, 0.1], 4)
    (warning,) = metric_warnings(fit("power", points({"n": n, "error": y}, {"N": "n"}, "error")))
    assert "only 3 values" in warning


def test_a_loss_that_does_not_fall_is_said_so() -> None:
    n = np.repeat(np.geomspace(1e3, 1e6, 6), 2)
    noise = np.exp(0.02 * np.random.default_rng(3).normal(size=12))
    for slope, word in ((0.2, "rising"), (0.0, "flat"), (-0.2, None)):
        found = metric_warnings(fit("power", {"n": n, "y": n**slope * noise}, {"N": "n"}, "y"))
        assert (word in found[0]) if word else found == []
