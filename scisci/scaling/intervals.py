"""Intervals of a fit: the profile of the sum of squares for few runs, the sandwich for a robust loss.

For parameter j the interval is every value v with S(v) - S_min <= s^2 t^2, where S(v) is the sum of squares
with parameter j held at v and all others refitted, s^2 the residual variance and t the quantile for its
degrees of freedom (Bates and Watts 1988, section 6.1). It is exact for a linear model with normal errors,
follows the curvature of a non-linear one, and has an open end where the data do not bound the parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scisci.scaling.clusters import LEVEL, Scale, Spread, quantile
from scisci.scaling.law import Array, Law
from scisci.scaling.solve import solve
from scisci.scaling.table import Points

_REACH = np.geomspace(0.05, 60.0, 40)  # how far the profile looks, in Wald half-widths


@dataclass(frozen=True)
class Interval:
    """Which interval is quoted: `method`, `level`, degrees of freedom and a sentence for the reader."""

    method: str
    level: float
    dof: float
    words: str


def covariance(law: Law, x: Sequence[Array], weight: Array, internal: Array) -> Array:
    """(J' W J)^-1 [p, p] of the internal parameters; a direction without information gets a huge variance."""
    _, jacobian = law.log_predict(x, internal)
    hessian = (jacobian * weight[:, None]).T @ jacobian
    scale = np.sqrt(np.maximum(np.diag(hessian), 1e-60))
    values, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
    return (vectors / np.maximum(values, 1e-14)) @ vectors.T / np.outer(scale, scale)


def spread_of(law: Law, data: Points, weight: Array, internal: Array, scale: Scale) -> Spread:
    """The `Spread` of a least-squares fit: cluster-robust where runs have several rows."""
    unit = covariance(law, data.x, weight, internal)
    if len(data.runs) == len(data):
        return Spread(unit, scale)
    log_value, jacobian = law.log_predict(data.x, internal)
    root = np.sqrt(weight)
    return Spread(unit, scale, jacobian * root[:, None], (log_value - data.log_y) * root, data.cluster)


def profile_intervals(
    law: Law, data: Points, weight: Array, internal: Array, spread: Spread
) -> tuple[dict[str, tuple[float, float]], Interval]:
    """The interval of every parameter in natural units, NaN where an end does not exist.

    With several rows a run, the excess S - S_min is measured against the cluster-robust variance.
    """
    words = "profile of the sum of squares with Student's t, over runs, for the evaluated samples as they are"
    if spread.scale.pooled_over > 1:
        words += f", residual scale pooled over {spread.scale.pooled_over} slices"
    if spread.design is not None:
        words += ", variance and degrees of freedom cluster-robust (CR2)"
    variance, dof = spread.of(np.eye(len(law.names)))
    kind = Interval("profile-t", LEVEL, float(dof[law.index(law.exponent)]), words)
    if spread.scale.dof < 1:
        return dict.fromkeys(law.names, (np.nan, np.nan)), kind
    per_unit = np.maximum(variance / np.diag(spread.unit), 1e-24)
    ends = _ends(law, data, weight, internal, spread.unit, per_unit * quantile(dof) ** 2)
    return {name: (float(lo), float(hi)) for name, (lo, hi) in zip(law.names, ends, strict=True)}, kind


def robust_spread(law: Law, data: Points, weight: Array, internal: Array, delta: float) -> Spread:
    """The `Spread` of a Huber fit, clustered by run (Huber 1967): H^-1 (sum over runs g g') H^-1.

    Only points within `delta` carry curvature H. Where those are few, H is taken from all points within a
    bandwidth of the scatter, scaled down: the density of residuals at zero, as for quantile regression.
    """
    log_value, jacobian = law.log_predict(data.x, internal)
    residual = log_value - data.log_y
    size = np.abs(residual)
    band = max(delta, 1.06 * 1.4826 * float(np.median(size)) * len(size) ** -0.2)
    hessian = (jacobian * (weight * (size <= band))[:, None]).T @ jacobian * (delta / band)
    pull = jacobian * (weight * np.clip(residual, -delta, delta))[:, None]
    scores = np.stack([np.bincount(data.cluster, column) for column in pull.T], 1)
    inverse = np.linalg.pinv(hessian, rcond=1e-14, hermitian=True)
    return Spread(inverse @ (scores.T @ scores) @ inverse, Scale(1.0, len(data.runs) - len(law.names)))


def sandwich_intervals(law: Law, internal: Array, spread: Spread) -> tuple[dict[str, tuple[float, float]], Interval]:
    """Large-sample intervals of a Huber fit; only a first look, which the bootstrap replaces."""
    half = spread.half_width(np.eye(len(law.names)))
    lower, upper = law.bounds()
    ends = [law.natural(np.clip(end, lower, upper)) for end in (internal - half, internal + half)]
    words = "large-sample sandwich by run; the bootstrap is the interval to quote"
    pairs = zip(law.names, *(end.tolist() for end in ends), strict=True)
    return {name: (low, high) for name, low, high in pairs}, Interval("sandwich", LEVEL, spread.scale.dof, words)


def derived_intervals(law: Law, internal: Array, spread: Spread) -> dict[str, tuple[float, float, float]]:
    """Value and interval of every derived quantity (all positive), by the delta method in its logarithm."""
    result = {}
    for name, formula in law.derived.items():

        def log_value(u: Array, formula: Callable[..., Array] = formula) -> Array:
            with np.errstate(all="ignore"):
                named = dict(zip(law.names, np.moveaxis(law.natural(u), -1, 0), strict=True))
                return np.asarray(np.log(formula(named)))

        center = float(log_value(internal))
        if not np.isfinite(center):  # such as 1 / 0: the quantity does not exist at this optimum
            result[name] = (np.nan, np.nan, np.nan)
            continue
        step = 1e-6 * np.maximum(np.abs(internal), 1e-3)
        with np.errstate(invalid="ignore"):
            slope = (log_value(internal + np.diag(step)) - log_value(internal - np.diag(step))) / (2 * step)
        half = float(spread.half_width(slope[None])[0])
        with np.errstate(all="ignore"):
            value, low, high = np.exp(np.array([center, center - half, center + half])).tolist()
        result[name] = (value, low, high)
    return result


def _ends(law: Law, data: Points, weight: Array, internal: Array, spread: Array, threshold: Array) -> Array:
    """Both ends [p, 2] in natural units; every parameter and side is one track, all solved together.

    `threshold` [p] is the excess of the sum of squares at the ends.
    """
    p = len(internal)
    half = np.sqrt(np.diag(spread) * threshold)
    lower, upper = law.bounds()
    index = np.repeat(np.arange(p), 2)
    sign = np.tile([-1.0, 1.0], p)
    best = _excess(law, data, weight, internal[None], np.ones((1, p), bool))[0][0]
    direction = (spread[index] / np.diag(spread)[index][:, None])[:, None, :]

    def excess(value: Array) -> Array:
        """S - S_min [tracks, k] with parameter `index` held at `value` [tracks, k]."""
        tracks, k = value.shape
        start = internal + direction * (value - internal[index][:, None])[..., None]
        start = np.clip(start, lower, upper)
        rows = np.arange(tracks)
        start[rows, :, index] = value
        free = np.ones((tracks, p), bool)
        free[rows, index] = False
        free = np.repeat(free, k, axis=0)
        found, u = _excess(law, data, weight, start.reshape(-1, p), free)
        # a second try from the neighbour nearer to the optimum follows a bent valley
        again = np.concatenate([u.reshape(tracks, k, p)[:, :1], u.reshape(tracks, k, p)[:, :-1]], axis=1)
        again[rows, :, index] = value
        second, _ = _excess(law, data, weight, again.reshape(-1, p), free)
        return np.minimum(found, second).reshape(tracks, k) - best

    near = internal[index]
    reach = near[:, None] + sign[:, None] * half[index][:, None] * _REACH
    reach = np.clip(reach, np.maximum(lower[index], near - 700)[:, None], np.minimum(upper[index], near + 700)[:, None])
    open_ended: np.ndarray = np.zeros(2 * p, bool)
    for depth in range(3):  # each pass narrows the bracket of the crossing
        above = ~(excess(reach) < threshold[index][:, None])
        crossed = above.any(1)
        at = np.where(crossed, above.argmax(1), reach.shape[1] - 1)
        high = np.take_along_axis(reach, at[:, None], 1)[:, 0]
        low = np.where(at > 0, np.take_along_axis(reach, np.maximum(at - 1, 0)[:, None], 1)[:, 0], near)
        low = np.where(crossed, low, high)
        near, reach = low, low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, 17)[1:]
        if depth == 0:
            open_ended = np.asarray(~crossed)
    ends = np.where(open_ended, np.nan, 0.5 * (reach[:, 0] + reach[:, -1]))
    shifted = np.array(internal)[None].repeat(2 * p, 0)
    shifted[np.arange(2 * p), index] = ends
    natural = law.natural(shifted)[np.arange(2 * p), index]
    # zero is where an offset ends by its meaning, not for want of data
    floor = np.array([parameter.lower for parameter in law.parameters])[index]
    natural = np.where(open_ended & (sign < 0) & (floor == 0.0), 0.0, natural)
    return natural.reshape(p, 2)


def _excess(law: Law, data: Points, weight: Array, start: Array, free: np.ndarray) -> tuple[Array, Array]:
    found = solve(law, data.x, data.log_y, start, weight=weight, free=free, max_steps=60, tolerance=1e-7)
    return 2.0 * found.objective, found.internal
