"""Losses in two units in one column: found by the jump that no law of scale makes.

Rows of a second unit obey the same law times a constant. So the points fall into two sets that share one smooth
curve in logarithms and one scatter, far apart in level, and somewhere lie closer in x than any law could bridge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.spatial import cKDTree

from scisci.scaling.law import Array

LEAST_FACTOR = 15.0  # nearer levels may be two models, splits or amounts of data as well
_CLEAR = 8.0  # how many times the distance must exceed every residual
_ALIKE = 3.0  # how many times the scatter of one set may exceed that of the other
_ALONG = 2.5  # a fall within one gap of x no steeper than this power is a sharp break of a law
_AGAINST = 1.25  # likewise for a jump against the trend
_CHANCE = 1e-4  # of finding such sets in noise, over all ways to divide the points
_FEWEST = 3  # points in a set

_BETWEEN = {
    23.0605: "kcal/mol and eV",
    27.2114: "eV and Hartree",
    51.4221: "eV/Å and Hartree/Bohr",
    96.4853: "kJ/mol and eV",
    100.0: "per cent and a fraction",
    627.509: "kcal/mol and Hartree",
    1000.0: "meV and eV",
    2625.5: "kJ/mol and Hartree",
    27211.4: "meV and Hartree",
    1e6: "µeV and eV",
}


@dataclass(frozen=True)
class TwoUnits:
    """Two sets of points that obey one law but for a factor; `high` [n] marks those above."""

    factor: float
    high: np.ndarray

    @property
    def words(self) -> str:
        """The factor as it reads in a sentence, with the units it may stand between."""
        known, units = min(_BETWEEN.items(), key=lambda item: abs(np.log(self.factor / item[0])))
        near = f", near the {known:,g} between {units}" if abs(np.log(self.factor / known)) < 0.08 else ""
        return f"about {float(f'{self.factor:.3g}'):,g}{near}"


def two_units(x: Sequence[Array], log_y: Array) -> TwoUnits | None:
    """The two sets of points if there are such, else None; `x` are the variables of the law, each [n]."""
    if len(log_y) < 2 * _FEWEST or np.ptp(log_y) < np.log(LEAST_FACTOR):
        return None
    z = np.stack([_coordinate(values) for values in x], 1)
    for smooth in _smooth(z):
        for high in _candidates(z, log_y - _fitted(smooth, log_y)):
            found = _refined(smooth, log_y, high)
            if found is not None and _two_levels(z, smooth, log_y, found):
                level = _fit(smooth, log_y, found)[0][-1]
                return TwoUnits(float(np.exp(level)), found)
    return None


def _coordinate(values: Array) -> Array:
    """ln x, centred; of a variable that may be zero, x as a share of its largest."""
    z = np.log(values) if (values > 0).all() else values / max(values.max(), 1e-300)
    return z - z.mean()


def _smooth(z: Array) -> Iterator[Array]:
    """The smooth part [n, q]: a plane in the coordinates [n, k], then a parabola where points are enough."""
    n, k = z.shape
    plane = [np.ones(n), *z.T]
    bends = [z[:, i] * z[:, j] for i in range(k) for j in range(i, k)]
    yield np.stack(plane, 1)
    if n >= len(plane) + len(bends) + _FEWEST:
        yield np.stack(plane + bends, 1)


def _fitted(design: Array, log_y: Array) -> Array:
    return design @ np.linalg.lstsq(design, log_y, rcond=None)[0]


def _fit(smooth: Array, log_y: Array, high: np.ndarray) -> tuple[Array, Array]:
    """Coefficients [q + 1], the distance of the levels last, and residuals [n]."""
    design = np.column_stack([smooth, high])
    coefficient = np.linalg.lstsq(design, log_y, rcond=None)[0]
    return coefficient, log_y - design @ coefficient


def _candidates(z: Array, residual: Array) -> Iterator[np.ndarray]:
    """Divisions at the widest gaps of the residual, and along each variable at its largest steps."""
    ordered = np.sort(residual)
    for gap in _largest(np.diff(ordered)):
        yield residual > 0.5 * (ordered[gap] + ordered[gap + 1])
    for values in z.T:
        distinct, code = np.unique(values, return_inverse=True)
        level = np.bincount(code, residual) / np.bincount(code)
        for step in _largest(np.abs(np.diff(level))):
            yield values > distinct[step]


def _largest(steps: Array) -> list[int]:
    return np.argsort(-steps)[:3].tolist()


def _refined(smooth: Array, log_y: Array, high: np.ndarray) -> np.ndarray | None:
    """Reassign every point to the nearer level until nothing changes; None where a set dwindles away."""
    for _ in range(20):
        if min(high.sum(), (~high).sum()) < _FEWEST:
            return None
        coefficient, _ = _fit(smooth, log_y, high)
        level = coefficient[-1]
        again = (log_y - smooth @ coefficient[:-1] > 0.5 * level) == (level > 0)
        if (again == high).all():
            return high if level > 0 else ~high
        high = again
    return None


def _two_levels(z: Array, smooth: Array, log_y: Array, high: np.ndarray) -> bool:
    """Whether the division is far clearer than scatter, chance and trend can make it."""
    coefficient, residual = _fit(smooth, log_y, high)
    level, largest = coefficient[-1], np.abs(residual).max()
    if level < np.log(LEAST_FACTOR) or level < _CLEAR * largest:
        return False
    if any(len(np.unique(z[at], axis=0)) < 2 for at in (high, ~high)):
        return False  # one x alone may be where a law begins or ends
    scatter = sorted(float(np.sqrt(np.mean(residual[at] ** 2))) for at in (high, ~high))
    if scatter[1] > _ALIKE * scatter[0] + 0.01:
        return False
    return _chance(z, smooth, residual, level, high) < np.log(_CHANCE) and _too_steep(z, coefficient, high)


def _chance(z: Array, smooth: Array, residual: Array, level: float, high: np.ndarray) -> float:
    """ln of the probability of so distant levels under normal noise, times the number of ways to divide."""
    n = len(z)
    dof = n - smooth.shape[1] - 1
    if dof < 1:
        return 0.0
    own = high - _fitted(smooth, high.astype(float))
    error = np.sqrt(max(float(residual @ residual), 1e-24) / dof / max(float(own @ own), 1e-12))
    at_a_place = any(
        values[high].min() > values[~high].max() or values[high].max() < values[~high].min() for values in z.T
    )
    ways = np.log(n * z.shape[1]) if at_a_place else n * np.log(2.0)
    return float(stats.t.logsf(level / error, dof)) + np.log(2.0) + ways


def _too_steep(z: Array, coefficient: Array, high: np.ndarray) -> bool:
    """Whether the levels lie so close in x that no law falls, and none rises against its trend, between them.

    The steepest slope of the smooth part anywhere is granted several times over.
    """
    steepest = float(np.linalg.norm(_gradient(z, coefficient[:-1]), axis=1).max())
    upper, lower = (np.unique(z[at], axis=0) for at in (high, ~high))  # seeds share their x
    distance, nearest = cKDTree(lower).query(upper)
    against = ((upper - lower[nearest]) * _gradient(upper, coefficient[:-1])).sum(1) < 0
    bridge = np.where(against, max(_AGAINST, 1.5 * steepest), max(_ALONG, 4.0 * steepest))
    return bool((coefficient[-1] > bridge * distance).any())


def _gradient(z: Array, coefficient: Array) -> Array:
    """Slope [n, k] of the smooth part."""
    n, k = z.shape
    slope = np.tile(coefficient[1 : 1 + k], (n, 1))
    pairs = [(i, j) for i in range(k) for j in range(i, k)]
    for (i, j), value in zip(pairs, coefficient[1 + k :], strict=False):
        slope[:, i] += value * z[:, j]
        slope[:, j] += value * z[:, i]
    return slope
