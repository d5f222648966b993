"""Differences of exponents with their uncertainty, paired by run where the runs are shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from scisci.scaling.fitting import Fit
from scisci.scaling.intervals import LEVEL, covariance
from scisci.scaling.law import Array


@dataclass(frozen=True)
class Difference:
    """One exponent minus another: `value` with its 95 % interval; NaN where either is not identified."""

    parameter: str
    value: float
    low: float
    high: float
    method: str
    verdict: str


def difference(a: Fit, b: Fit, siblings: Sequence[tuple[Fit, Fit]] = ()) -> Difference:
    """Exponent of `a` minus that of `b`, fits of the same law.

    Fits that share runs (one model on two splits) are paired: the residuals of a run on both are correlated,
    and what they share cancels. Fits that share none are independent, with the degrees of freedom of Welch
    and Satterthwaite. `siblings` are further pairs of the same two groups over which the residual scale is
    pooled, as the fits themselves were. For a power law fitted to the same runs the paired interval is
    exact: that of the slope of ln(y_a / y_b).
    """
    assert a.law.name == b.law.name, "only exponents of one law can be compared"
    name = a.law.exponent
    if not (a.identified and b.identified):
        return Difference(name, np.nan, np.nan, np.nan, "none", "not identified")
    ga, gb = _influence(a), _influence(b)
    dof: float
    shared = sorted(set(a.points.runs) & set(b.points.runs))
    if shared:
        saa, sab, sbb, dof = _residual_covariance([(a, b), *siblings])
        ga_runs, gb_runs = _by_run(a, ga, shared), _by_run(b, gb, shared)
        variance = saa * _norm(a, ga) + sbb * _norm(b, gb) - 2 * sab * float(ga_runs @ gb_runs)
        method = f"paired t by run, {dof} degrees of freedom"
    else:
        va, vb = a.scale.variance * _norm(a, ga), b.scale.variance * _norm(b, gb)
        variance = va + vb
        dof = variance**2 / (va**2 / a.scale.dof + vb**2 / b.scale.dof) if variance > 0 else a.scale.dof
        method = f"Welch t, {dof:.1f} degrees of freedom"
    value = a.parameters[name] - b.parameters[name]
    half = float(stats.t.ppf(0.5 + LEVEL / 2, dof) * np.sqrt(max(variance, 0.0)))
    low, high = value - half, value + half
    verdict = "steeper" if low > 0 else "shallower" if high < 0 else "no difference detected"
    return Difference(name, value, low, high, method, verdict)


def _influence(fit: Fit) -> Array:
    """How far each log residual [n] moves the exponent: row of (J' W J)^-1 J' W."""
    _, jacobian = fit.law.log_predict(fit.points.x, fit.internal)
    spread = covariance(fit.law, fit.points.x, fit.weight, fit.internal)
    return spread[fit.law.index(fit.law.exponent)] @ (jacobian * fit.weight[:, None]).T


def _norm(fit: Fit, influence: Array) -> float:
    return float((influence**2 / fit.weight).sum())


def _by_run(fit: Fit, values: Array, runs: Sequence[str]) -> Array:
    total = dict(zip(fit.points.runs, np.bincount(fit.points.cluster, values), strict=True))
    return np.array([total[run] for run in runs])


def _residual_covariance(pairs: Sequence[tuple[Fit, Fit]]) -> tuple[float, float, float, int]:
    """Pooled variances and covariance of the residuals of both fits, and the degrees of freedom."""
    saa = sab = sbb = 0.0
    dof = 0
    for a, b in pairs:
        shared = sorted(set(a.points.runs) & set(b.points.runs))
        free = len(shared) - len(a.law.names)
        if free < 1:
            continue
        ra = _by_run(a, np.sqrt(a.weight) * a.residuals, shared)
        rb = _by_run(b, np.sqrt(b.weight) * b.residuals, shared)
        saa, sab, sbb, dof = saa + float(ra @ ra), sab + float(ra @ rb), sbb + float(rb @ rb), dof + free
    return saa / dof, sab / dof, sbb / dof, dof
