"""The compute-optimal frontier by the three approaches of Hoffmann et al. 2022, with what biases each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scisci.contracts.errors import UserError
from scisci.scaling.clusters import quantile
from scisci.scaling.fitting import fit
from scisci.scaling.law import Array
from scisci.scaling.resampling import bootstrap, quote
from scisci.scaling.table import points, read_table

BIASES = {
    1: "the lower envelope of noisy losses is chosen by luck as well as by size, and sparse sizes make it a staircase",
    2: "a parabola in ln N is only right near its minimum: wide or off-centre budgets shift it",
    3: "assumes the parametric law over the whole range; its exponents trade off against E, A and B",
}

# A training of ten steps or more is within 5 % of its budget.
SAME_BUDGET = 0.1


@dataclass(frozen=True)
class Approach:
    """N_opt proportional to C^a by one approach, with its 95 % interval (NaN: not identified) and known bias.

    `points` are the (C, N_opt, L) the exponent rests on, [m, 3]; empty for the parametric approach.
    `loss_exponent` is c of the reducible loss L ~ C^-c along the frontier with its interval, where known.
    """

    number: int
    name: str
    value: float
    low: float
    high: float
    bias: str
    reason: str = ""
    points: Array | None = None
    loss_exponent: tuple[float, float, float] | None = None


def frontier(
    source: Any,
    y: str,
    N: str = "params",
    D: str = "data",
    C: str | None = None,
    *,
    kappa: float = 6.0,
    budgets: int = 9,
    where: str | None = None,
    resamples: int = 1000,
    seed: int = 42,
) -> list[Approach]:
    """All three approaches on a table of runs (or of checkpoints of runs).

    `C` names the compute column; without it C = kappa N D. Budgets are those of an iso-FLOP grid where the runs lie in
    groups of one compute and several sizes, else `budgets` equal bins of ln C.
    An approach that cannot work on these points says why in `reason`.
    """
    table = read_table(source)
    columns = {"N": N, "D": D} | ({"C": C} if C else {})
    data = points(table, columns, y, where=where)
    n, d = data.x[:2]
    compute = data.x[2] if C else kappa * n * d
    bins = _bins(n, compute, budgets)
    return [
        _envelope(n, compute, data.y, bins),
        _iso_flop(n, compute, data.y, bins),
        _parametric(table, N, D, y, where, resamples, seed),
    ]


def compute_exponents_agree(approaches: Sequence[Approach]) -> list[str]:
    """Whether the exponent of the loss along each empirical frontier agrees with alpha beta / (alpha + beta)."""
    implied = approaches[-1].loss_exponent
    if implied is None:
        return []
    lines = []
    for each in approaches[:-1]:
        if each.loss_exponent is None:
            continue
        value, low, high = each.loss_exponent
        relation = "agrees with" if low <= implied[2] and implied[1] <= high else "contradicts"
        lines.append(
            f"approach {each.number}: the loss falls as C^-{value:.3f} [{low:.3f}, {high:.3f}], which {relation} "
            f"alpha beta/(alpha+beta) = {implied[0]:.3f} [{implied[1]:.3f}, {implied[2]:.3f}]"
        )
    return lines


def _bins(n: Array, compute: Array, budgets: int) -> np.ndarray:
    """Number of the budget that each run belongs to: that of an iso-FLOP grid, else one of equal bins of ln C."""
    log_c = np.log(compute)
    width = np.ptp(log_c) / budgets
    if width == 0:
        raise UserError("all runs spent the same compute, so there is no frontier; vary the budget")
    planned = _planned(n, log_c)
    return np.minimum(((log_c - log_c.min()) / width).astype(int), budgets - 1) if planned is None else planned


def _planned(n: Array, log_c: Array) -> np.ndarray | None:
    """Budgets that runs were planned by; None unless all runs lie in groups of one compute and three sizes or more."""
    ascending = np.sort(log_c)
    starts = ascending[1:][np.diff(ascending) > SAME_BUDGET]
    groups = np.searchsorted(starts, log_c, side="right")
    for group in range(len(starts) + 1):
        at = groups == group
        if np.ptp(log_c[at]) > SAME_BUDGET or len(np.unique(n[at])) < 3:
            return None
    return groups if len(starts) else None


def _envelope(n: Array, compute: Array, loss: Array, bins: np.ndarray) -> Approach:
    chosen = [np.flatnonzero(bins == b)[np.argmin(loss[bins == b])] for b in np.unique(bins)]
    best = np.minimum.accumulate(loss[chosen])
    kept = [i for i, value in zip(chosen, best, strict=True) if loss[i] <= value]
    # the optimum is only known to the spacing of the sizes tried in its budget
    spacing = [np.ptp(np.log(n[bins == bins[i]])) / max(len(np.unique(n[bins == bins[i]])) - 1, 1) for i in kept]
    table = np.stack([compute[kept], n[kept], loss[kept]], 1)
    return _slope(1, "minimum over runs in each budget", table, least=float(np.mean(spacing)) ** 2 / 12)


def _iso_flop(n: Array, compute: Array, loss: Array, bins: np.ndarray) -> Approach:
    minima = []
    for b in np.unique(bins):
        at = bins == b
        z = np.log(n[at])
        if len(np.unique(z)) < 4:
            continue
        # losses inside a bin are compared at its mean compute, along the local slope in ln C
        center = z.mean()
        log_c = np.log(compute[at])
        design = np.stack([np.ones_like(z), z - center, (z - center) ** 2, log_c - log_c.mean()], 1)
        if len(z) < 5 or np.ptp(log_c) < 1e-9:
            design = design[:, :3]
        coefficient, *_ = np.linalg.lstsq(design, np.log(loss[at]), rcond=None)
        if coefficient[2] <= 0:
            continue
        best = center - coefficient[1] / (2 * coefficient[2])
        if z.min() < best < z.max():
            value = coefficient[0] - coefficient[1] ** 2 / (4 * coefficient[2])
            minima.append((np.exp(log_c.mean()), np.exp(best), np.exp(value)))
    return _slope(2, "parabola in ln N at each budget", np.array(minima).reshape(-1, 3))


def _slope(number: int, name: str, table: Array, least: float = 0.0) -> Approach:
    """Slope of ln N_opt on ln C with its t interval; `least` is the smallest variance of a single ln N_opt."""
    if len(table) < 3 or np.ptp(np.log(table[:, 1])) == 0:
        reason = f"only {len(table)} budgets have an optimum inside their range"
        if len(table) >= 3:
            reason = "one size is optimal at every budget"
        return Approach(number, name, np.nan, np.nan, np.nan, BIASES[number], reason, table)
    z, target = np.log(table[:, 0]), np.log(table[:, 1])
    design = np.stack([np.ones_like(z), z], 1)
    coefficient, *_ = np.linalg.lstsq(design, target, rcond=None)
    residual = target - design @ coefficient
    dof = len(z) - 2
    variance = max(float(residual @ residual) / dof, least)
    se = float(np.sqrt(variance * np.linalg.inv(design.T @ design)[1, 1]))
    half = float(quantile(dof)) * se
    value = float(coefficient[1])
    loss = _reducible(table)
    return Approach(number, name, value, value - half, value + half, BIASES[number], "", table, loss)


def _reducible(table: Array) -> tuple[float, float, float] | None:
    """Exponent c of L = E + K C^-c along the frontier, where the points identify it."""
    if len(table) < 5:
        return None
    curve = fit("power_offset", {"C": table[:, 0], "L": table[:, 2]}, {"N": "C"}, "L", delta=np.inf)
    if not curve.identified:
        return None
    return (curve.parameters["alpha"], *curve.intervals["alpha"])


def _parametric(table: Any, N: str, D: str, y: str, where: str | None, resamples: int, seed: int) -> Approach:
    name = "parametric law L(N, D)"
    try:
        found = fit("chinchilla", table, {"N": N, "D": D}, y, where=where)
    except UserError as error:
        return Approach(3, name, np.nan, np.nan, np.nan, BIASES[3], str(error))
    if np.isfinite(found.delta):
        found = quote(found, bootstrap(found, resamples, seed))
    if not found.identified:
        return Approach(3, name, np.nan, np.nan, np.nan, BIASES[3], "; ".join(found.audit.reasons))
    return Approach(3, name, *found.derived["a"], BIASES[3], loss_exponent=found.derived["c"])
