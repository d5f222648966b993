"""Fit a law to points: variable-projected starts, one batched solve, then an audit of what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import brentq

from scisci.contracts.errors import UserError
from scisci.scaling.audit import judge
from scisci.scaling.clusters import LEVEL, Scale, Spread
from scisci.scaling.fitted import Audit, Fit
from scisci.scaling.intervals import (
    Interval,
    covariance,
    derived_intervals,
    profile_intervals,
    robust_spread,
    sandwich_intervals,
    spread_of,
)
from scisci.scaling.law import Array, Law
from scisci.scaling.law import law as find_law
from scisci.scaling.solve import objective, solve
from scisci.scaling.starts import starts
from scisci.scaling.table import Points, points

ROBUST_DELTA = 1e-3  # Hoffmann et al. 2022, appendix D.3
_SEARCHED = 2000
ROBUST_FROM = 200  # residual degrees of freedom from which the robust loss is the default


def fit(
    law: Law | str,
    source: Any,
    x: Mapping[str, str] | None = None,
    y: str | None = None,
    *,
    cluster: str | None = None,
    se: str | None = None,
    where: str | None = None,
    delta: float | None = None,
    scale: Scale | None = None,
) -> Fit:
    """Fit a law by minimising the SUM of Huber_delta of ln L(theta) - ln y.

    `source` is `Points` or a table (see `points`; then `x` maps variables to columns and `y` names the loss).
    `delta` inf is least squares on ln L; by default it is inf below 200 residual degrees of freedom, where
    a threshold far below the noise would turn the fit into a median of few points, and 1e-3 from there on.
    `scale` overrides the residual variance, for one pooled over several fits. Errors: `UserError` for every
    fault of the data and for fewer points than parameters.
    """
    law = find_law(law) if isinstance(law, str) else law
    if not isinstance(source, Points):
        if x is None or y is None:
            raise UserError("say which columns to fit: x={'N': 'params'} and y='loss'")
        columns, zero = match_variables(law, x), law.zero_allowed
        source = points(source, columns, y, cluster=cluster, se=se, where=where, zero_allowed=zero)
    data = _one_row_per_run(source)
    distinct = _check_enough(law, data)
    if delta is None:
        delta = ROBUST_DELTA if len(data.runs) - len(law.names) >= ROBUST_FROM else np.inf
    if not delta > 0:
        raise UserError(f"delta is {delta:g}; it must be positive (inf for least squares)")
    weight, (internal, value, gradient, converged, unmoved) = _weighted_optimum(law, data, delta)
    own = _scatter(law, data, weight, internal)
    scale = scale or own
    spread, intervals, interval = _uncertainty(law, data, weight, internal, delta, scale, distinct)
    correlation, condition = _correlation(law, data, weight, internal)
    lower, upper = law.bounds()
    at_bounds = tuple(np.array(law.names)[(internal <= lower) | (internal >= upper)].tolist())
    audit = Audit("", (), float(np.linalg.norm(gradient)), converged, unmoved, condition, correlation, at_bounds)
    derived = derived_intervals(law, internal, spread)
    result = Fit(law, data, delta, weight, internal, value, scale, intervals, interval, audit, derived)
    verdict, reasons = judge(result, distinct)
    return replace(result, audit=replace(audit, verdict=verdict, reasons=tuple(reasons)))


def _weighted_optimum(law: Law, data: Points, delta: float) -> tuple[Array, tuple[Array, float, Array, float, int]]:
    """Weights of the points and the optimum with them; known standard errors need a first fit for theirs."""
    weight = np.ones(len(data))
    solution = _optimum(law, data, weight, delta)
    if data.se is not None:
        weight = _known_error_weights(law, data, solution[0])
        solution = _optimum(law, data, weight, delta)
    return weight, solution


def _scatter(law: Law, data: Points, weight: Array, internal: Array) -> Scale:
    log_value, jacobian = law.log_predict(data.x, internal)
    if not np.isfinite(jacobian).all():
        raise UserError(f"the law {law.name!r} leaves the range of numbers on these points; check the units of x and y")
    dof = len(data) - len(law.names)
    total = float((weight * (log_value - data.log_y) ** 2).sum())
    variance = total / dof if dof else float("nan")
    # stated errors are a floor: luck does not make measurements better than they are
    return Scale(variance if data.se is None else max(variance, 1.0), dof)


def _uncertainty(
    law: Law, data: Points, weight: Array, internal: Array, delta: float, scale: Scale, distinct: int
) -> tuple[Spread, dict[str, tuple[float, float]], Interval]:
    if np.isfinite(delta):
        spread = robust_spread(law, data, weight, internal, delta)
    else:
        spread = spread_of(law, data, weight, internal, scale)
    if distinct <= len(law.names):
        return spread, dict.fromkeys(law.names, (np.nan, np.nan)), Interval("none", LEVEL, scale.dof, "no interval")
    if np.isfinite(delta):
        return spread, *sandwich_intervals(law, internal, spread)
    return spread, *profile_intervals(law, data, weight, internal, spread)


def match_variables(law: Law, x: Mapping[str, str]) -> dict[str, str]:
    """`x` (variable -> column) in the law's order; other variables than the law's are a `UserError`."""
    if set(x) != set(law.variables):
        wanted = ",".join(f"{name}=COLUMN" for name in law.variables)
        raise UserError(
            f"the law {law.name!r} has the variables {', '.join(law.variables)}, not {', '.join(x)}; write --x {wanted}"
        )
    return {name: x[name] for name in law.variables}


def _one_row_per_run(data: Points) -> Points:
    """Average ln y over the rows of a run that share one x: a run is one piece of evidence."""
    count = np.bincount(data.cluster)
    if (count == 1).all():
        return data
    first = np.unique(data.cluster, return_index=True)[1]
    if any((values != values[first][data.cluster]).any() for values in data.x):
        return data
    mean = np.exp(np.bincount(data.cluster, data.log_y) / count)
    kept = data.take(first)
    # rows of a run share their test set, so their mean is no more certain than one of them
    se = None if data.se is None else np.bincount(data.cluster, data.se / data.y) / count * mean
    return replace(kept, y=mean, se=se)


def _check_enough(law: Law, data: Points) -> int:
    """The number of distinct x; too few for the law is a `UserError`."""
    for name, values in zip(law.variables, data.x, strict=True):
        if np.ptp(values) < 1e-3 * np.abs(values).max():
            raise UserError(f"all {len(data)} points have {name} = {values[0]:g}; a law in {name} needs two or more")
    distinct = len(np.unique(np.stack(data.x, 1), axis=0))
    least = len(law.names)
    if len(data.runs) < 2:
        raise UserError("all rows belong to one run, so nothing tells how far runs scatter; add runs")
    if min(len(data), distinct) < least:
        raise UserError(
            f"the law {law.name!r} has {least} parameters, but the table offers {len(data)} points at "
            f"{distinct} distinct x; add runs or choose a smaller law"
        )
    return distinct


def _optimum(law: Law, data: Points, weight: Array, delta: float) -> tuple[Array, float, Array, float, int]:
    """Parameters, objective, gradient, share of starts that got there, and starts that never moved.

    Starts are searched on at most `_SEARCHED` points, the best is then fitted to all.
    """
    some = np.arange(len(data))
    if len(data) > _SEARCHED:
        some = np.sort(np.random.default_rng(0).choice(len(data), _SEARCHED, replace=False))
    x, log_y = tuple(values[some] for values in data.x), data.log_y[some]
    begin = starts(law, x, log_y)
    if not len(begin):
        raise UserError(f"the law {law.name!r} gives no finite loss on these points; check the units of x and y")
    found = solve(law, x, log_y, begin, weight=weight[some], delta=delta)
    best = found.best()
    if not np.isfinite(found.objective[best]):
        raise UserError(f"the law {law.name!r} cannot be fitted to these points; check the units of x and y")
    floor = 1e-20 * weight.sum()
    reached = found.objective <= found.objective[best] * (1 + 1e-6) + floor
    before = objective(law, x, log_y, weight[some], delta, begin)
    stuck = (np.abs(found.internal - begin).max(-1) == 0) & (before > found.objective[best] * (1 + 1e-6) + floor)
    share, unmoved = float(reached.mean()), int(stuck.sum())
    if len(data) > _SEARCHED:
        found = solve(law, data.x, data.log_y, found.internal[[best]], weight=weight, delta=delta)
        best = 0
    return found.internal[best], float(found.objective[best]), found.gradient[best], share, unmoved


def _known_error_weights(law: Law, data: Points, internal: Array) -> Array:
    """Weights 1 / (s_i^2 + tau^2) with the excess scatter tau^2 of Paule and Mandel 1982."""
    assert data.se is not None
    variance = (data.se / data.y) ** 2
    dof = max(len(data) - len(law.names), 1)
    at = {"internal": internal}

    def excess(tau2: float) -> float:
        weight = 1.0 / (variance + tau2)
        at["internal"] = solve(law, data.x, data.log_y, at["internal"][None], weight=weight, delta=np.inf).internal[0]
        residual = np.log(law.predict(data.x, at["internal"])) - data.log_y
        return float((weight * residual**2).sum() - dof)

    if excess(0.0) <= 0:
        return 1.0 / variance
    high = float(variance.max()) + 1e-12
    while excess(high) > 0:
        high *= 4.0
    return 1.0 / (variance + brentq(excess, 0.0, high, xtol=1e-12, rtol=1e-8))


def _correlation(law: Law, data: Points, weight: Array, internal: Array) -> tuple[dict[str, float], float]:
    """Correlations of the estimates by pair of names, and the condition number of the scaled Hessian."""
    _, jacobian = law.log_predict(data.x, internal)
    hessian = (jacobian * weight[:, None]).T @ jacobian
    scale = np.sqrt(np.maximum(np.diag(hessian), 1e-60))
    scaled = hessian / np.outer(scale, scale)
    spread = covariance(law, data.x, weight, internal)
    sd = np.sqrt(np.diag(spread))
    pairs = {
        f"{a},{b}": float(np.clip(spread[i, j] / (sd[i] * sd[j]), -1, 1))
        for i, a in enumerate(law.names)
        for j, b in enumerate(law.names)
        if i < j
    }
    return pairs, float(np.linalg.cond(scaled))
