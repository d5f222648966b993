"""Where a fit starts: variable projection over the linear parameters, a grid or a scatter over the rest.

Golub and Pereyra 1973: for fixed non-linear parameters the non-negative coefficients are a small linear
problem, so only the non-linear ones are searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.stats import qmc

from scisci.scaling.law import Array, Law

_GRID = {1: 96, 2: 24, 3: 10}  # points per axis of the grid, by number of non-linear parameters


def starts(law: Law, x: Sequence[Array], log_y: Array, count: int = 24) -> Array:
    """The `count` most promising starts [count, p] in internal parameters, best first."""
    if law.starts is not None:
        return _ranked(law, x, log_y, law.starts(x, log_y), count)
    nonlinear = [i for i, parameter in enumerate(law.parameters) if not parameter.linear]
    nodes = _nodes(law, x, nonlinear)
    theta = np.ones((len(nodes), len(law.parameters)))
    theta[:, nonlinear] = nodes
    linear = [i for i, parameter in enumerate(law.parameters) if parameter.linear]
    if linear:
        theta[:, linear] = _coefficients(law, x, log_y, theta, linear)
    return _ranked(law, x, log_y, theta, count)


def _ranked(law: Law, x: Sequence[Array], log_y: Array, theta: Array, count: int) -> Array:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_value = np.log(law.predict(x, law.internal(theta)))
        loss = np.abs(log_value - log_y).sum(-1)
    order = np.argsort(np.where(np.isfinite(loss), loss, np.inf), kind="stable")
    usable = order[np.isfinite(loss[order])]
    # half of them the best, half spread over the rest, so that agreement between starts means something
    best, rest = usable[: count // 2], usable[count // 2 :]
    spread = rest[np.linspace(0, len(rest) - 1, min(count - len(best), len(rest))).astype(int)]
    return law.internal(theta[np.concatenate([best, spread])])


def _nodes(law: Law, x: Sequence[Array], nonlinear: list[int]) -> Array:
    """Grid (up to three non-linear parameters) or Sobol points (more) [m, k], natural units."""
    ranges = []
    for i in nonlinear:
        parameter = law.parameters[i]
        assert parameter.start is not None, f"{law.name}: {parameter.name} needs a start range"
        low, high = parameter.start
        if parameter.start_within is not None:
            observed = np.log(x[law.variables.index(parameter.start_within)])
            low, high = np.exp(observed.min() + np.array(parameter.start) * np.ptp(observed))
        ranges.append((parameter.transform, low, high))
    if not ranges:
        return np.empty((1, 0))
    if len(ranges) in _GRID:
        unit = np.linspace(0.0, 1.0, _GRID[len(ranges)])
        points = np.stack(np.meshgrid(*[unit] * len(ranges), indexing="ij"), -1).reshape(-1, len(ranges))
    else:
        points = qmc.Sobol(len(ranges), seed=0).random_base2(11)
    columns = [
        np.exp(np.log(low) + points[:, k] * np.log(high / low))
        if transform == "log"
        else low + points[:, k] * (high - low)
        for k, (transform, low, high) in enumerate(ranges)
    ]
    return np.stack(columns, -1)


def _coefficients(law: Law, x: Sequence[Array], log_y: Array, theta: Array, linear: list[int]) -> Array:
    """Non-negative coefficients [m, k] that best fit L / y = 1 at each node.

    The law is linear in them, so its gradient by them is the basis. With at most a handful, every subset of
    non-zero coefficients is solved and the best feasible one kept: an exact NNLS for all nodes at once.
    """
    columns = np.moveaxis(theta[..., None], -2, 0)
    with np.errstate(over="ignore", under="ignore"):
        gradient = law.gradient(*x, *columns)
    shape = (len(theta), log_y.shape[-1])
    basis = np.stack([np.broadcast_to(gradient[i], shape) for i in linear], -1) / np.exp(log_y)[:, None]
    with np.errstate(over="ignore"):
        scale = np.sqrt(np.maximum((basis**2).sum(1), 1e-300))
    scale = np.where(np.isfinite(scale), scale, np.abs(basis).max(1))  # where the square leaves the range of numbers
    basis = basis / scale[:, None, :]
    gram = np.swapaxes(basis, 1, 2) @ basis
    moment = basis.sum(1)
    best = np.zeros((len(theta), len(linear)))
    score = np.zeros(len(theta))
    for size in range(1, len(linear) + 1):
        for subset in combinations(range(len(linear)), size):
            pick = list(subset)
            sub = gram[:, pick][:, :, pick] + 1e-12 * np.eye(size)
            solution = np.linalg.solve(sub, moment[:, pick][..., None])[..., 0]
            gain = (solution * moment[:, pick]).sum(-1)
            wins = (solution >= 0).all(-1) & (gain > score)
            score = np.where(wins, gain, score)
            candidate = np.zeros_like(best)
            candidate[:, pick] = solution
            best = np.where(wins[:, None], candidate, best)
    # a logarithm needs a positive start: a share of a thousandth of the loss stands for zero
    tiny = np.array([law.parameters[i].transform == "log" for i in linear])
    return np.where(tiny & (best <= 0), 1e-3 / np.sqrt(log_y.shape[-1]), best) / scale
