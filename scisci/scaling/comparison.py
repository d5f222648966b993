"""Do two groups differ in slope or only in offset? Exponent differences and the test of a shared exponent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from scisci.contracts.errors import UserError
from scisci.scaling.clusters import quantile
from scisci.scaling.fitted import Fit
from scisci.scaling.fitting import fit
from scisci.scaling.law import Array
from scisci.scaling.solve import solve


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

    Fits that share runs (one model on two splits) are paired: what the residuals of a run share cancels.
    For power laws with a row a run the interval is Student's t (paired, or Welch's), exact for the slope of
    ln(y_a / y_b); otherwise both profile intervals are combined with their correlation (MOVER; Zou and
    Donner 2008). `siblings` are further pairs of the same two groups over which a paired scale is pooled.
    """
    if a.law.name != b.law.name:
        raise UserError(f"cannot compare exponents of {a.law.name!r} and {b.law.name!r}; fit one law to both")
    name = a.law.exponent
    if not (a.identified and b.identified):
        return Difference(name, np.nan, np.nan, np.nan, "none", "not identified")
    value = a.parameters[name] - b.parameters[name]
    shared = sorted(set(a.points.runs) & set(b.points.runs))
    if a.law.log_linear and a.spread.design is None and b.spread.design is None and np.isinf(a.delta):
        half, method = _student(a, b, shared, siblings)
        low, high = value - half, value + half
    else:
        correlation = _correlation(a, b, shared)
        (below_a, above_a), (below_b, above_b) = _arms(a, b, paired=bool(shared))
        low = value - _combine(below_a, above_b, correlation)
        high = value + _combine(above_a, below_b, correlation)
        paired = f", correlation {correlation:.2f} over {len(shared)} shared runs" if shared else ""
        method = f"{a.interval.method} intervals combined (MOVER){paired}"
    verdict = "steeper" if low > 0 else "shallower" if high < 0 else "no difference detected"
    return Difference(name, value, low, high, method, verdict)


def _arms(a: Fit, b: Fit, paired: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    """How far each exponent's interval reaches below and above it.

    Student intervals of independent fits are first brought to the joint degrees of freedom of Welch, since
    two quantiles for few runs each would make the difference too wide.
    """
    name = a.law.exponent
    arms = [(f.parameters[name] - f.intervals[name][0], f.intervals[name][1] - f.parameters[name]) for f in (a, b)]
    if paired or not (np.isinf(a.delta) and np.isinf(b.delta)):
        return arms[0], arms[1]
    dofs = [f.interval.dof for f in (a, b)]
    squares = [(sum(arm) / 2 / float(quantile(dof))) ** 2 for arm, dof in zip(arms, dofs, strict=True)]
    joint = sum(squares) ** 2 / max(sum(s**2 / dof for s, dof in zip(squares, dofs, strict=True)), 1e-300)
    factors = [float(quantile(joint) / quantile(dof)) for dof in dofs]
    (one, other), (k, m) = arms, factors
    return (one[0] * k, one[1] * k), (other[0] * m, other[1] * m)


def _combine(one: float, other: float, correlation: float) -> float:
    return float(np.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0)))


def _student(a: Fit, b: Fit, shared: Sequence[str], siblings: Sequence[tuple[Fit, Fit]]) -> tuple[float, str]:
    """Half-width of the t interval of the difference, and its name."""
    ga, gb = _influence(a), _influence(b)
    if shared:
        saa, sab, sbb, dof = _residual_covariance([(a, b), *siblings])
        across = float(_by_run(a, ga, shared) @ _by_run(b, gb, shared))
        variance = saa * _norm(a, ga) + sbb * _norm(b, gb) - 2 * sab * across
        return float(quantile(dof) * np.sqrt(max(variance, 0.0))), f"paired t by run, {dof} degrees of freedom"
    va, vb = a.scale.variance * _norm(a, ga), b.scale.variance * _norm(b, gb)
    total = va + vb
    welch = total**2 / (va**2 / a.scale.dof + vb**2 / b.scale.dof) if total > 0 else a.scale.dof
    return float(quantile(welch) * np.sqrt(total)), f"Welch t, {welch:.1f} degrees of freedom"


def _influence(fit: Fit) -> Array:
    """How far each log residual [n] moves the exponent: row of (J' W J)^-1 J' W."""
    _, jacobian = fit.law.log_predict(fit.points.x, fit.internal)
    return fit.spread.unit[fit.law.index(fit.law.exponent)] @ (jacobian * fit.weight[:, None]).T


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
    if dof == 0:
        return np.nan, np.nan, np.nan, 0
    return saa / dof, sab / dof, sbb / dof, dof


def _correlation(a: Fit, b: Fit, shared: Sequence[str]) -> float:
    """Correlation of the two exponent estimates, from their influences on the shared runs."""
    if not shared:
        return 0.0
    pa, pb = (_by_run(f, _influence(f) * f.residuals, f.points.runs) for f in (a, b))
    norm = float(np.sqrt((pa @ pa) * (pb @ pb)))
    sa, sb = (_by_run(f, _influence(f) * f.residuals, shared) for f in (a, b))
    return float(sa @ sb) / norm if norm > 0 else 0.0


@dataclass(frozen=True)
class SharedExponent:
    """Slope or offset: one exponent for all groups against one for each.

    `delta_bic` is BIC(separate) - BIC(shared): positive favours the shared exponent. `p_value` is that of the
    F test. `held_out` are the rms log errors (shared, separate) at every group's largest size, predicted
    from the others; NaN where too few sizes remain. `verdict` is "slope", "offset" or "undecided".
    """

    parameter: str
    value: float
    delta_bic: float
    p_value: float
    held_out: tuple[float, float]
    verdict: str
    words: str


def shared_exponent(fits: Sequence[Fit]) -> SharedExponent:
    """Test whether fits of one law to several groups share their exponent."""
    law = fits[0].law
    if len(fits) < 2 or any(each.law.name != law.name for each in fits):
        raise UserError("a shared exponent needs two or more groups fitted with one law; check --by")
    if any(np.isfinite(each.delta) for each in fits):  # BIC and F are those of least squares
        fits = [fit(law, each.points, delta=np.inf) for each in fits]
    value, shared = _shared_fit(fits)
    separate = sum(2 * each.objective for each in fits)
    n = sum(len(each.points) for each in fits)
    parameters = sum(len(each.law.names) for each in fits)
    extra = len(fits) - 1
    tiny = 1e-24 * n
    delta_bic = n * np.log((separate + tiny) / (shared + tiny)) + extra * np.log(n)
    dof = n - parameters
    ratio = ((shared - separate) / extra) / ((separate + tiny) / dof) if dof > 0 else np.nan
    p_value = float(stats.f.sf(max(ratio, 0.0), extra, dof)) if dof > 0 else np.nan
    if any(not each.identified for each in fits):
        verdict, words = "undecided", f"{law.exponent} is not identified in every group"
    elif delta_bic < -2 and p_value < 0.05:
        verdict = "slope"
        words = f"slope: the groups differ in {law.exponent} (delta BIC {delta_bic:.1f}, p = {p_value:.2g})"
    elif delta_bic > 2 and p_value > 0.05:
        verdict = "offset"
        words = f"offset: one {law.exponent} serves all groups (delta BIC {delta_bic:.1f}, p = {p_value:.2g})"
    else:
        verdict = "undecided"
        words = (
            f"undecided: the data allow one {law.exponent} or several (delta BIC {delta_bic:.1f}, p = {p_value:.2g})"
        )
    return SharedExponent(law.exponent, value, float(delta_bic), p_value, _held_out(fits), verdict, words)


def _shared_fit(fits: Sequence[Fit]) -> tuple[float, float]:
    """The shared exponent and the sum of squares with it, by a narrowing grid over the profiles."""
    index = fits[0].law.index(fits[0].law.exponent)
    values = np.array([each.internal[index] for each in fits])
    low, high = values.min(), values.max()
    if high - low < 1e-12:
        return float(low), sum(2 * each.objective for each in fits)
    for _ in range(5):
        grid = np.linspace(low, high, 25)
        total = sum(_held(each, index, grid) for each in fits)
        best = int(np.argmin(total))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 24)]
    return float(grid[best]), float(np.asarray(total)[best])


def _held(fit: Fit, index: int, values: Array) -> Array:
    """Sum of squares [k] with one internal parameter held at each of `values` [k]."""
    start = np.broadcast_to(fit.internal, (len(values), len(fit.internal))).copy()
    start += fit.spread.unit[index] / fit.spread.unit[index, index] * (values - fit.internal[index])[:, None]
    start[:, index] = values
    free = np.arange(len(fit.internal)) != index
    data = fit.points
    return 2 * solve(fit.law, data.x, data.log_y, start, weight=fit.weight, free=free, delta=fit.delta).objective


def _held_out(fits: Sequence[Fit]) -> tuple[float, float]:
    law = fits[0].law
    kept = []
    errors_shared: list[Array] = []
    errors_separate: list[Array] = []
    for each in fits:
        largest = each.points.x[0] == each.points.x[0].max()
        try:
            kept.append((each, largest, fit(law, each.points.take(~largest), delta=each.delta)))
        except UserError:  # too few sizes remain: there is no held-out error to give
            return np.nan, np.nan
    value, _ = _shared_fit([small for _, _, small in kept])
    index = law.index(law.exponent)
    for each, largest, small in kept:
        data = each.points.take(largest)
        start = small.internal.copy()
        start[index] = value
        free = np.arange(len(start)) != index
        held = solve(law, small.points.x, small.points.log_y, start[None], free=free, delta=small.delta).internal[0]
        for internal, errors in ((held, errors_shared), (small.internal, errors_separate)):
            errors.append(np.log(law.predict(data.x, internal)) - data.log_y)
    rms = [float(np.sqrt(np.mean(np.concatenate(e) ** 2))) for e in (errors_shared, errors_separate)]
    return rms[0], rms[1]
