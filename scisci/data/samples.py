"""Samples: the typed records that sources and simulators yield, and the layout in which a store keeps them.

Units are fixed for the whole project: Å, eV, eV/Å, eV/Å³ (tensile positive) for atoms; comoving Mpc/h and km/s
for clouds. A label that is not known is `None`, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scisci.contracts.errors import unknown_name


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
        if not np.isfinite(np.asarray(value, dtype=np.float64)).all():
            return f"{field.name} is not finite"
    return None
