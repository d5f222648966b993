"""Grids of orientations on the unit sphere."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
from scipy.optimize import least_squares

# What rounding leaves of integration errors that are zero.
EXACT = 1e-12


@cache
def orientation_grid(count: int) -> np.ndarray:
    """Orientations for integrals over the sphere: [count, 3] unit vectors, closed under inversion.

    A spherical design (Delsarte, Goethals & Seidel, 1977): averages over the grid are exact for polynomials up to a
    degree, here the highest that the search reaches (3 from 6 points, 5 from 18, 7 from 32, 9 from 48, 15 from 128).
    The search starts at a spiral and draws nothing at random. 6 points are the octahedron's vertices, 8 the cube's,
    12 the icosahedron's, whose degree is 5.

    Raises:
        ValueError: if `count` is odd or below 6.
    """
    if count < 6 or count % 2:
        raise ValueError(f"orientations come in opposite pairs, three or more: {count} must be even and at least 6")
    # By their symmetry, some designs meet a few more conditions than they have coordinates.
    highest = max(p for p in range(2, count, 2) if _conditions(p) <= count + 2)
    half = next(found for p in range(highest, 0, -2) if (found := _search(count // 2, p)) is not None)
    grid = np.concatenate([half, -half])
    grid.setflags(write=False)
    return grid


def _conditions(degree: int) -> int:
    """Number of independent polynomials of even degrees 2 to `degree`; odd ones vanish on opposite points."""
    return (degree + 1) * (degree + 2) // 2 - 1


def _search(count: int, degree: int) -> np.ndarray | None:
    """[count, 3] points over which monomials of an even degree, and so of all lower ones, have their averages."""
    powers = np.array([p for p in itertools.product(range(degree + 1), repeat=3) if sum(p) == degree])
    averages = np.array([_sphere_average(p) for p in powers.tolist()])
    # With multinomial weights the sum of squares is mean_ij (o_i . o_j)^degree - 1 / (degree + 1), whatever the axes.
    multinomials = [math.factorial(degree) / math.prod(map(math.factorial, p)) for p in powers.tolist()]
    weights = np.sqrt(multinomials)

    def errors(flat: np.ndarray) -> np.ndarray:
        return weights * (_monomials(_unit(flat), powers).mean(axis=0) - averages)

    def slopes(flat: np.ndarray) -> np.ndarray:
        unit, lengths = _unit(flat), np.linalg.norm(flat.reshape(-1, 3), axis=1)
        slope = np.stack(
            [powers[:, k] * _monomials(unit, (powers - np.eye(3, dtype=int)[k]).clip(0)) for k in range(3)], axis=2
        )
        # Only the part along the sphere moves a point.
        slope -= (slope * unit[:, None]).sum(axis=2, keepdims=True) * unit[:, None]
        slope *= weights[:, None] / (count * lengths[:, None, None])
        return slope.transpose(1, 0, 2).reshape(len(powers), -1)

    found = least_squares(errors, _spiral(count).ravel(), slopes, ftol=1e-15, xtol=1e-15, gtol=1e-15, max_nfev=100)
    return _unit(found.x) if np.abs(found.fun).max() < EXACT else None


def _unit(flat: np.ndarray) -> np.ndarray:
    points = flat.reshape(-1, 3)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _monomials(points: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """[points, monomials] x^a y^b z^c"""
    table = np.vander(points.ravel(), powers.max() + 1, increasing=True).reshape(len(points), 3, -1)
    return table[:, 0, powers[:, 0]] * table[:, 1, powers[:, 1]] * table[:, 2, powers[:, 2]]


def _spiral(count: int) -> np.ndarray:
    """[count, 3] points of a Fibonacci spiral on the upper half of the sphere."""
    k = np.arange(count) + 0.5
    z, angle = k / count, math.pi * (1 + math.sqrt(5)) * k
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def _sphere_average(powers: list[int]) -> float:
    """Mean of x^a y^b z^c over the unit sphere: (a-1)!! (b-1)!! (c-1)!! / (a+b+c+1)!!, or 0 if a power is odd."""
    if any(power % 2 for power in powers):
        return 0.0
    double_factorials = [math.prod(range(n, 0, -2)) for n in (*(power - 1 for power in powers), sum(powers) + 1)]
    return math.prod(double_factorials[:3]) / double_factorials[3]
