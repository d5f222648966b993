"""Many small robust fits at once: a batched Levenberg-Marquardt on the sum of Huber of log residuals.

Shapes: B problems, n points, p parameters. Problems may differ in start, target, weights and in which
parameters are held fixed, so multistart, bootstrap and profiles are all one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scisci.scaling.law import Array, Law

_MAX_STEPS = 300
_CHUNK = 400_000  # numbers of one Jacobian held at a time: what fits a cache


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
        return _total(residual, np.asarray(weight), delta)


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
    lower, upper = law.bounds()
    u = np.where(free, np.clip(start, lower, upper), start)
    batch, p = u.shape
    residual, jacobian = _residuals(law, x, target, u)
    value = _total(residual, weight, delta)
    gradient = np.zeros((batch, p))
    damping = np.full(batch, 1e-4)
    share = np.ones(batch)
    steps = np.zeros(batch, int)
    active = np.flatnonzero(np.isfinite(value))
    floor = 1e-28 * weight.sum(-1)  # an exact fit has nothing left to reduce
    for _ in range(max_steps):
        if not active.size:
            break
        some: Any = slice(None) if active.size == batch else active  # a slice makes no copy
        g, hessian = _derivatives(residual[some], jacobian[some], weight[some], delta, share[some])
        at = u[active]
        open_ = free[active] & ~((at <= lower) & (g > 0)) & ~((at >= upper) & (g < 0))
        g *= open_
        gradient[active] = g
        step, decrease = _step(g, hessian, open_, damping[active])
        trial = np.where(open_, np.clip(at + step, lower, upper), at)
        new_residual, new_jacobian = _residuals(law, x, target[some], trial)
        new_value = _total(new_residual, weight[some], delta)
        done = decrease <= tolerance * value[active] + floor[active]
        better = (new_value <= value[active]) & ~done
        moved = active[better]
        u[moved], value[moved] = trial[better], new_value[better]
        residual[moved], jacobian[moved] = new_residual[better], new_jacobian[better]
        # a step that fails first returns to the majorising weights, then to a shorter step
        shorter = ~better & (share[active] >= 1.0)
        damping[active] *= np.where(better, 0.2, np.where(shorter, 8.0, 1.0))
        damping[active] = np.maximum(damping[active], 1e-14)
        share[active] = np.where(better, share[active] * 0.1, 1.0)
        steps[active] += 1
        active = active[~done & (damping[active] < 1e14)]
    return u, value, gradient, steps


def _residuals(law: Law, x: Sequence[Array], target: Array, u: Array) -> tuple[Array, Array]:
    """ln L(u) - ln y [B, n] and its Jacobian [B, n, p]."""
    log_value, jacobian = law.log_predict(x, u)
    return log_value - target, jacobian


def _total(residual: Array, weight: Array, delta: float) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):  # a trial step may leave the range of numbers
        total = (weight * huber(residual, delta)).sum(-1)
    return np.where(np.isfinite(total), total, np.inf)


def _derivatives(residual: Array, jacobian: Array, weight: Array, delta: float, share: Array) -> tuple[Array, Array]:
    """Gradient [B, p] and a Gauss-Newton Hessian [B, p, p].

    Points beyond `delta` have no curvature of their own. With `share` 1 they get that of the quadratic that
    majorises Huber's line (reweighted least squares: safe, slow); with `share` near 0 almost none (Newton).
    """
    pull = weight * residual
    curvature = weight
    if not np.isinf(delta):
        ratio = delta / np.maximum(np.abs(residual), delta)
        pull = pull * ratio
        curvature = weight * np.where(ratio < 1.0, ratio * share[:, None], 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        gradient = (pull[:, None, :] @ jacobian)[:, 0]
        hessian = np.swapaxes(jacobian * curvature[..., None], -1, -2) @ jacobian
    # where the law overflows there is no direction to take: such a start stays where it is and is discarded
    broken = ~(np.isfinite(gradient).all(-1) & np.isfinite(hessian).all((-1, -2)))
    gradient[broken], hessian[broken] = 0.0, np.eye(jacobian.shape[-1])
    return gradient, hessian


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
