"""Where two scaling curves cross, as a confidence set and a distribution, with a stated reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scisci.contracts.errors import UserError
from scisci.scaling.clusters import quantile
from scisci.scaling.fitted import Fit
from scisci.scaling.law import Array

REACH = 10.0  # how far beyond the data, as a factor in x, a crossover may be quoted
_GRID = 1201


@dataclass(frozen=True)
class Crossover:
    """The scale at which `a` overtakes `b`, within [`low_x`, `high_x`].

    `value` is the crossing of the fitted curves (NaN where they do not cross within reach), `low` and `high`
    its 95 % confidence set, all x at which the curves are not told apart (Fieller 1954); an end is NaN where
    the set runs to the end of the reach. `none` is the probability that the curves do not cross within reach,
    `quantiles` the 5, 50 and 95 % points of the crossing among the draws that do.
    """

    value: float
    low: float
    high: float
    none: float
    quantiles: tuple[float, float, float]
    low_x: float
    high_x: float
    verdict: str
    words: str


def crossover(a: Fit, b: Fit, reach: float = REACH, draws: int = 4000, seed: int = 0) -> Crossover:
    """Where the curves of two independent fits of laws of one variable cross.

    The set holds every x with |ln L_a(x) - ln L_b(x)| <= t se(x); for power laws that is Fieller's set, exact
    for normal errors. Nothing is said further than `reach` times beyond the data of either fit.
    """
    if len(a.points.x) != 1 or len(b.points.x) != 1:
        raise UserError("a crossover needs laws of one variable; choose power or power_offset")
    if reach < 1:
        raise UserError(f"the reach is {reach:g}; it is a factor beyond the data, so 1 or more")
    low_x = min(f.points.x[0].min() for f in (a, b)) / reach
    high_x = max(f.points.x[0].max() for f in (a, b)) * reach
    x = np.geomspace(low_x, high_x, _GRID)
    gap, se, dof = _gap(a, b, x)
    undecided = np.abs(gap) <= quantile(dof) * se
    crossings = _crossings(x, gap[None])[0]
    sampled = _sampled(a, b, x, draws, seed)
    found = sampled[np.isfinite(sampled)]
    none = 1.0 - len(found) / draws
    spread = np.quantile(found, [0.05, 0.5, 0.95]) if len(found) else np.full(3, np.nan)
    inside = np.flatnonzero(undecided)
    low = x[inside[0]] if inside.size and inside[0] > 0 else np.nan
    high = x[inside[-1]] if inside.size and inside[-1] < _GRID - 1 else np.nan
    verdict, words = _judge(inside, crossings, low, high, none, low_x, high_x)
    quantiles = (float(spread[0]), float(spread[1]), float(spread[2]))
    return Crossover(float(crossings), float(low), float(high), none, quantiles, low_x, high_x, verdict, words)


def _judge(
    inside: np.ndarray, value: float, low: float, high: float, none: float, low_x: float, high_x: float
) -> tuple[str, str]:
    within = f"within {low_x:.3g} to {high_x:.3g}"
    if not inside.size:
        return "no crossover", f"the curves stay apart {within}; nothing is said beyond"
    if np.isfinite(value) and np.isfinite(low) and np.isfinite(high):
        return "crossover", f"the curves cross at {value:.3g} [{low:.3g}, {high:.3g}]"
    return "undecided", f"the data do not tell where or whether the curves cross {within} (P(none) = {none:.2f})"


def _gap(a: Fit, b: Fit, x: Array) -> tuple[Array, Array, Array]:
    """ln L_a - ln L_b, its standard error and Welch-Satterthwaite degrees of freedom, each [k]."""
    (log_a, ja), (log_b, jb) = a.law.log_predict([x], a.internal), b.law.log_predict([x], b.internal)
    (va, dof_a), (vb, dof_b) = a.spread.of(ja), b.spread.of(jb)
    total = va + vb
    dof = total**2 / np.maximum(va**2 / np.maximum(dof_a, 1e-9) + vb**2 / np.maximum(dof_b, 1e-9), 1e-300)
    return log_a - log_b, np.sqrt(total), np.where(total > 0, dof, dof_a)


def _crossings(x: Array, gap: Array) -> Array:
    """First sign change [m] of each row of `gap` [m, k], interpolated in ln x; NaN where there is none."""
    changes = np.sign(gap[:, 1:]) != np.sign(gap[:, :-1])
    first = changes.argmax(1)
    rows = np.arange(len(gap))
    left, right = gap[rows, first], gap[rows, first + 1]
    crosses = changes.any(1)
    share = np.divide(left, left - right, out=np.zeros(len(gap)), where=crosses)
    at = np.log(x[first]) + (np.log(x[first + 1]) - np.log(x[first])) * share
    return np.where(crosses, np.exp(at), np.nan)


def _sampled(a: Fit, b: Fit, x: Array, draws: int, seed: int) -> Array:
    """Crossings [draws] of curves drawn from the t distribution of both fits' parameters."""
    rng = np.random.default_rng(seed)
    coarse = x[:: max(1, len(x) // 300)]
    logs = []
    for each in (a, b):
        spread = each.spread
        dof = max(spread.scale.dof, 1)
        root = np.linalg.cholesky(spread.unit * max(spread.scale.variance, 1e-300))
        normal = rng.normal(size=(draws, len(each.internal))) @ root.T
        scaled = normal * np.sqrt(dof / rng.chisquare(dof, size=(draws, 1)))
        lower, upper = each.law.bounds()
        logs.append(np.log(each.law.predict([coarse], np.clip(each.internal + scaled, lower, upper))))
    return _crossings(coarse, logs[0] - logs[1])
