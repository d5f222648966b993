"""Many small robust fits at once: a batched Levenberg-Marquardt on the sum of Huber of log residuals.

Shapes: B problems, n points, p parameters. Problems may differ in start, target, weights and in which
parameters are held fixed, so multistart, bootstrap and profiles are all one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scisci.scaling.law import Array, Law

_MAX_STEPS = 300
_CHUNK = 4_000_000  # numbers of one Jacobian held at a time


@dataclass(frozen=True)
class Solution:
    """What `solve` found: internal parameters [B, p], objective [B], projected gradient [B, p], steps [B]."""

    internal: Array
    objective: Array
    gradient: Array
    steps: np.ndarray

    def best(self) -> int:
        """The problem with the lowest objective."""
        return int(np.argmin(np.where(np.isfinite(self.objective), self.objective, np.inf)))


def huber(residual: Array, delta: float) -> Array:
    """Huber's rho: r^2/2 up to `delta`, linear beyond (Huber 1964); `delta` inf is least squares."""
    size = np.abs(residual)
    if np.isinf(delta):
        return 0.5 * residual**2
    return np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))


def objective(law: Law, x: Sequence[Array], log_y: Array, weight: Array, delta: float, u: Array) -> Array:
    """SUM over points of weight * Huber_delta(ln L(u) - ln y), one per problem; inf where L <= 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        residual = np.log(law.predict(x, u)) - log_y
    total = (weight * huber(residual, delta)).sum(-1)
    return np.where(np.isfinite(total), total, np.inf)


def solve(
    law: Law,
    x: Sequence[Array],
    log_y: Array,
    start: Array,
    *,
    weight: Array | float = 1.0,
    delta: float = np.inf,
    free: np.ndarray | None = None,
    max_steps: int = _MAX_STEPS,
    tolerance: float = 1e-15,
) -> Solution:
    """Minimise from each row of `start` [B, p] (internal parameters), within the law's bounds.

    `log_y` and `weight` are [n] or [B, n]; `free` [B, p] or [p] marks the parameters that may move.
    A problem is done when a step promises to reduce the objective by less than `tolerance` of it.
    """
    batch, p = start.shape
    n = log_y.shape[-1]
    target = np.broadcast_to(log_y, (batch, n))
    weights = np.broadcast_to(np.asarray(weight, float), (batch, n))
    mask = np.broadcast_to(np.ones(p, bool) if free is None else free, (batch, p))
    rows = max(1, _CHUNK // (n * p))
    parts = [
        _solve(
            law,
            x,
            target[i : i + rows],
            weights[i : i + rows],
            delta,
            start[i : i + rows],
            mask[i : i + rows],
            max_steps,
            tolerance,
        )
        for i in range(0, batch, rows)
    ]
    return Solution(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _solve(
    law: Law,
    x: Sequence[Array],
    target: Array,
    weight: Array,
    delta: float,
    start: Array,
    free: np.ndarray,
    max_steps: int,
    tolerance: float,
) -> tuple[Array, Array, Array, np.ndarray]:
    batch, p = start.shape
    lower, upper = law.bounds()
    u = np.clip(start, lower, upper)
    u[~free] = start[~free]
    value = objective(law, x, target, weight, delta, u)
    gradient = np.full((batch, p), np.nan)
    damping = np.full(batch, 1e-4)
    steps = np.zeros(batch, int)
    active = np.flatnonzero(np.isfinite(value))
    floor = 1e-28 * weight.sum(-1)  # an exact fit has nothing left to reduce
    for _ in range(max_steps):
        if not active.size:
            break
        gradient[active], hessian = _derivatives(law, x, target[active], weight[active], delta, u[active])
        open_ = _movable(u[active], gradient[active], free[active], lower, upper)
        gradient[active] *= open_
        step, decrease = _step(gradient[active], hessian, open_, damping[active])
        done = decrease <= tolerance * value[active] + floor[active]
        trial = np.clip(u[active] + step, lower, upper)
        trial = np.where(open_, trial, u[active])
        trial_value = objective(law, x, target[active], weight[active], delta, trial)
        better = (trial_value <= value[active]) & ~done
        moved = active[better]
        u[moved], value[moved] = trial[better], trial_value[better]
        damping[active] = np.where(better, np.maximum(damping[active] * 0.2, 1e-14), damping[active] * 6.0)
        steps[active] += 1
        active = active[~done & (damping[active] < 1e14)]
    if active.size:  # out of steps: the gradient must belong to the last point
        last, _ = _derivatives(law, x, target[active], weight[active], delta, u[active])
        gradient[active] = last * _movable(u[active], last, free[active], lower, upper)
    return u, value, gradient, steps


def _derivatives(
    law: Law, x: Sequence[Array], target: Array, weight: Array, delta: float, u: Array
) -> tuple[Array, Array]:
    """Gradient [B, p] and the reweighted Gauss-Newton Hessian [B, p, p]."""
    log_value, jacobian = law.log_predict(x, u)
    residual = log_value - target
    curvature = weight
    if not np.isinf(delta):
        curvature = weight * np.minimum(1.0, delta / np.maximum(np.abs(residual), 1e-300))
    with np.errstate(over="ignore", invalid="ignore"):
        weighted = jacobian * curvature[..., None]
        gradient = np.einsum("bnp,bn->bp", weighted, residual)
        hessian = np.swapaxes(weighted, -1, -2) @ jacobian
    # where the law overflows there is no direction to take: such a start stays where it is and is discarded
    broken = ~(np.isfinite(gradient).all(-1) & np.isfinite(hessian).all((-1, -2)))
    gradient[broken], hessian[broken] = 0.0, np.eye(u.shape[-1])
    return gradient, hessian


def _movable(u: Array, gradient: Array, free: np.ndarray, lower: Array, upper: Array) -> np.ndarray:
    """Parameters that are free and not pressed against a bound by their gradient."""
    return free & ~((u <= lower) & (gradient > 0)) & ~((u >= upper) & (gradient < 0))


def _step(gradient: Array, hessian: Array, open_: np.ndarray, damping: Array) -> tuple[Array, Array]:
    """The damped step [B, p] and the decrease [B] the quadratic model promises without damping."""
    p = gradient.shape[-1]
    scale = np.sqrt(np.maximum(np.einsum("bpp->bp", hessian), 1e-300))
    pair = open_[:, :, None] & open_[:, None, :]
    scaled = np.where(pair, hessian / (scale[:, :, None] * scale[:, None, :]), 0.0)
    slope = np.where(open_, gradient / scale, 0.0)
    eye = np.eye(p)
    ridge = damping[:, None, None] * eye + np.where(open_, 0.0, 1.0)[:, None, :] * eye
    step = -np.linalg.solve(scaled + ridge + 1e-15 * eye, slope[..., None])[..., 0]
    decrease = -0.5 * (slope * step).sum(-1) * (1.0 + damping)
    return np.where(open_, step / scale, 0.0), decrease
