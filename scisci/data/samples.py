"""Samples: the typed records that sources and simulators yield, and the layout in which a store keeps them.

Units are fixed for the whole project: Å, eV, eV/Å, eV/Å³ (tensile positive) for atoms; comoving Mpc/h and km/s
for clouds. A label that is not known is `None`, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.spatial import cKDTree

from scisci.contracts.errors import unknown_name

HEAVIEST = 118
COINCIDENT = 1e-3


@dataclass(frozen=True)
class Field:
    """One array of a sample: where it lives (`item`: a row per atom or point; `sample`: one), dtype, shape, unit."""

    name: str
    per: Literal["item", "sample"]
    dtype: str
    shape: tuple[int, ...]
    unit: str
    required: bool = False


@dataclass
class AtomsSample:
    """One atomistic configuration of N atoms."""

    numbers: np.ndarray
    """[N] atomic numbers"""
    positions: np.ndarray
    """[N, 3] Å"""
    cell: np.ndarray | None = None
    """[3, 3] Å, rows are lattice vectors"""
    pbc: np.ndarray | None = None
    """[3] periodic along each lattice vector"""
    energy: float | None = None
    """eV"""
    forces: np.ndarray | None = None
    """[N, 3] eV/Å"""
    stress: np.ndarray | None = None
    """[3, 3] eV/Å³, tensile positive"""
    charge: int | None = None
    """e"""
    spin: int | None = None
    """number of unpaired electrons"""


@dataclass
class CloudSample:
    """One point cloud of N halos, galaxies or particles."""

    positions: np.ndarray
    """[N, 3] comoving Mpc/h"""
    box: np.ndarray | None = None
    """[3] side lengths of the periodic box, Mpc/h"""
    velocities: np.ndarray | None = None
    """[N, 3] km/s"""


Sample = AtomsSample | CloudSample

LAYOUTS: dict[str, tuple[Field, ...]] = {
    "atoms": (
        Field("numbers", "item", "u1", (), "", required=True),
        Field("positions", "item", "f4", (3,), "Å", required=True),
        Field("forces", "item", "f4", (3,), "eV/Å"),
        Field("cell", "sample", "f8", (3, 3), "Å"),
        Field("pbc", "sample", "?", (3,), ""),
        Field("energy", "sample", "f8", (), "eV"),
        Field("stress", "sample", "f8", (3, 3), "eV/Å³"),
        Field("charge", "sample", "i4", (), "e"),
        Field("spin", "sample", "i4", (), ""),
    ),
    "cloud": (
        Field("positions", "item", "f4", (3,), "Mpc/h", required=True),
        Field("velocities", "item", "f4", (3,), "km/s"),
        Field("box", "sample", "f8", (3,), "Mpc/h"),
    ),
}
SAMPLE_TYPES: dict[str, type[Any]] = {"atoms": AtomsSample, "cloud": CloudSample}


def layout(domain: str) -> tuple[Field, ...]:
    """The fields of a domain's samples, in stored order."""
    if domain not in LAYOUTS:
        raise unknown_name("domain", domain, LAYOUTS)
    return LAYOUTS[domain]


def problem(sample: Sample) -> str | None:
    """What makes a sample unfit for a store, in words; `None` if nothing does."""
    domain = next(name for name, kind in SAMPLE_TYPES.items() if isinstance(sample, kind))
    items = len(sample.positions)
    if items == 0:
        return "it has no atoms or points"
    for field in layout(domain):
        value = getattr(sample, field.name)
        if value is None:
            continue
        expected = ((items,) if field.per == "item" else ()) + field.shape
        if np.shape(value) != expected:
            return f"{field.name} has shape {np.shape(value)} instead of {expected}"
        if np.asarray(value).dtype.kind not in "biuf":
            return f"{field.name} is not numeric"
        if not np.isfinite(np.asarray(value, dtype=np.float64)).all():
            return f"{field.name} is not finite"
    return _unphysical(sample) if isinstance(sample, AtomsSample) else None


def _unphysical(sample: AtomsSample) -> str | None:
    """What no arrangement of atoms can have, in words."""
    numbers = np.asarray(sample.numbers)
    if (wrong := (numbers < 1) | (numbers > HEAVIEST)).any():
        return f"atomic number {numbers[wrong][0]} is not one of 1 to {HEAVIEST}"
    periodic = np.zeros(3, dtype=bool) if sample.pbc is None else np.asarray(sample.pbc, dtype=bool)
    cell = np.eye(3)
    if periodic.any():
        if sample.cell is None:
            return "it is periodic but has no cell"
        vectors = np.asarray(sample.cell, dtype=np.float64)[periodic]
        _, widths, axes = np.linalg.svd(vectors)
        if widths[-1] < COINCIDENT:
            return "the cell vectors along its periodic directions are zero or not independent of each other"
        cell[periodic], cell[~periodic] = vectors, axes[len(vectors) :]
    if (pair := _coincident(np.asarray(sample.positions, dtype=np.float64), cell, periodic)) is not None:
        return f"atoms {pair[0]} and {pair[1]} are in the same place (closer than {COINCIDENT:g} Å)"
    return None


def _coincident(positions: np.ndarray, cell: np.ndarray, periodic: np.ndarray) -> tuple[int, int] | None:
    """Two atoms in the same place, periodic images included; near-linear in the number of atoms."""
    if len(positions) < 2:
        return None
    inverse = np.linalg.inv(cell)
    fractional = positions @ inverse
    # The remainder of a tiny negative number rounds to 1, which a periodic tree refuses.
    fractional[:, periodic] = np.mod(fractional[:, periodic], 1.0) % 1.0
    reach = COINCIDENT * np.linalg.norm(inverse, 2)
    tree = cKDTree(fractional, boxsize=periodic.astype(np.float64))
    distance, nearest = tree.query(fractional, k=2, distance_upper_bound=reach)
    close = np.flatnonzero(np.isfinite(distance[:, 1]))
    if not len(close):
        return None
    # Where several atoms coincide, an atom's first neighbour need not be itself.
    first = nearest[close]
    partner = np.where(first[:, 0] == close, first[:, 1], first[:, 0])
    apart = fractional[close] - fractional[partner]
    apart[:, periodic] -= np.rint(apart[:, periodic])
    real = np.flatnonzero(np.linalg.norm(apart @ cell, axis=1) < COINCIDENT)
    return None if not len(real) else (int(close[real[0]]), int(partner[real[0]]))
