"""Samples: the typed records that sources and simulators yield, and the layout in which a store keeps them.

Units are fixed for the whole project, by domain: Å, eV, eV/Å, eV/Å³ (tensile positive) for atoms; comoving Mpc/h,
km/s and Msun/h for clouds, decimal logarithms of these for merger trees; particles are in reduced units (unit mass,
charge and coupling), where every quantity is a pure number of unit 1; series keep the units of their source. A label
that is not known is `None`, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.spatial import cKDTree

from scisci.contracts.errors import unknown_name

HEAVIEST = 118
# log10 of more Msun/h than any cluster of galaxies has.
HEAVIEST_HALO = 17
COINCIDENT = 1e-3
# What a store can hold, by dtype.
LARGEST = {"f4": float(np.finfo("f4").max), "f8": float(np.finfo("f8").max), "i4": np.iinfo("i4").max, "i8": 2**53}
# Up to this many atoms, comparing all pairs is quicker than building a tree.
ALL_PAIRS = 32


@dataclass(frozen=True)
class Field:
    """One array of a sample: where it lives (`item`: a row per atom or point; `sample`: one), dtype, shape, unit."""

    name: str
    per: Literal["item", "sample"]
    dtype: str
    shape: tuple[int, ...]
    unit: str
    required: bool = False
    gaps: bool = False
    """May be NaN, where a value is missing."""


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
    """One point cloud of N halos or galaxies."""

    positions: np.ndarray
    """[N, 3] comoving Mpc/h"""
    box: np.ndarray | None = None
    """[3] side lengths of the periodic box, Mpc/h; its corner is at the origin"""
    velocities: np.ndarray | None = None
    """[N, 3] peculiar, km/s"""
    masses: np.ndarray | None = None
    """[N] Msun/h; of galaxies, whichever mass the source says"""
    omega_m: float | None = None
    """matter density today, in units of the critical density"""
    sigma_8: float | None = None
    """rms of the linear density contrast in spheres of 8 Mpc/h today"""


@dataclass
class TreeSample:
    """One merger tree of N halos, from a halo today back to those it was made of."""

    node_features: np.ndarray
    """[N, 4] log10 of mass (Msun/h), of concentration and of maximum circular velocity (km/s); scale factor"""
    parent: np.ndarray
    """[N] the later halo that each halo becomes part of, as an index into the sample; -1 at the root"""
    main_branch: np.ndarray | None = None
    """[N] whether the halo is a most massive progenitor of a most massive progenitor, and so on, of the root"""
    label: np.ndarray | None = None
    """[N] for in-filling: 1 or 0 for a virtual node, whose `parent` is a merger that did or did not swallow another one
    which is left out of the tree; -1 for halos"""
    omega_m: float | None = None
    """matter density today, in units of the critical density"""
    sigma_8: float | None = None
    """rms of the linear density contrast in spheres of 8 Mpc/h today"""


@dataclass
class ParticlesSample:
    """One system of N interacting particles at one time, in reduced units, and where they are at a later time."""

    positions: np.ndarray
    """[N, 3]"""
    velocities: np.ndarray | None = None
    """[N, 3]"""
    charges: np.ndarray | None = None
    """[N]"""
    target_positions: np.ndarray | None = None
    """[N, 3] positions at the later time"""


@dataclass
class SeriesSample:
    """One time series of C channels at T times, in the units of its source."""

    target: np.ndarray
    """[C, T], NaN where a value is missing"""
    start: int
    """the first time, in seconds since 1970 (UTC)"""
    freq: str
    """the step from time to time as pandas spells it: "h", "15min", "D", "MS" """
    covariates: np.ndarray | None = None
    """[F, T] what is known of the same times, NaN where it is missing"""

    @property
    def values(self) -> np.ndarray:
        """[(C + F) T] the rows of target and covariates, one after the other, as they are stored"""
        rows = [self.target] if self.covariates is None else [self.target, self.covariates]
        return np.concatenate([np.asarray(row, dtype=np.float32).ravel() for row in rows])

    @property
    def channels(self) -> int:
        """C"""
        return len(self.target)

    @property
    def known(self) -> int:
        """F"""
        return 0 if self.covariates is None else len(self.covariates)


Sample = AtomsSample | CloudSample | TreeSample | ParticlesSample | SeriesSample

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
        Field("masses", "item", "f4", (), "Msun/h"),
        Field("box", "sample", "f8", (3,), "Mpc/h"),
        Field("omega_m", "sample", "f8", (), "1"),
        Field("sigma_8", "sample", "f8", (), "1"),
    ),
    "tree": (
        Field("node_features", "item", "f4", (4,), "lg Msun/h, lg 1, lg km/s, 1", required=True),
        Field("parent", "item", "i4", (), "", required=True),
        Field("main_branch", "item", "?", (), ""),
        Field("label", "item", "i1", (), ""),
        Field("omega_m", "sample", "f8", (), "1"),
        Field("sigma_8", "sample", "f8", (), "1"),
    ),
    "particles": (
        Field("positions", "item", "f4", (3,), "1", required=True),
        Field("velocities", "item", "f4", (3,), "1"),
        Field("charges", "item", "f4", (), "1"),
        Field("target_positions", "item", "f4", (3,), "1"),
    ),
    "series": (
        Field("values", "item", "f4", (), "", required=True, gaps=True),
        Field("channels", "sample", "i4", (), "", required=True),
        Field("known", "sample", "i4", (), "", required=True),
        Field("start", "sample", "i8", (), "s", required=True),
    ),
}
SAMPLE_TYPES: dict[str, type[Any]] = {
    "atoms": AtomsSample,
    "cloud": CloudSample,
    "tree": TreeSample,
    "particles": ParticlesSample,
    "series": SeriesSample,
}


def layout(domain: str) -> tuple[Field, ...]:
    """The fields of a domain's samples, in stored order."""
    if domain not in LAYOUTS:
        raise unknown_name("domain", domain, LAYOUTS)
    return LAYOUTS[domain]


def problem(sample: Sample) -> str | None:
    """What makes a sample unfit for a store, in words; `None` if nothing does."""
    if reason := misfit(sample):
        return reason
    if isinstance(sample, AtomsSample):
        return _unphysical_atoms(sample)
    if isinstance(sample, TreeSample):
        return _unphysical_tree(sample)
    return _unphysical_cloud(sample) if isinstance(sample, CloudSample) else None


def size(sample: Sample) -> int:
    """The number of atoms, points, nodes or values."""
    if isinstance(sample, SeriesSample):
        return len(sample.values)
    return len(sample.node_features if isinstance(sample, TreeSample) else sample.positions)


def misfit(sample: Sample) -> str | None:
    """What makes a field of a sample unfit for its place in a store: its shape, kind or size; whatever it means."""
    domain = next(name for name, kind in SAMPLE_TYPES.items() if isinstance(sample, kind))
    items = size(sample)
    if items == 0:
        return "it has no values" if domain == "series" else "it has no atoms or points"
    for field in layout(domain):
        value = getattr(sample, field.name)
        if value is None:
            continue
        expected = ((items,) if field.per == "item" else ()) + field.shape
        if np.shape(value) != expected:
            return f"{field.name} has shape {np.shape(value)} instead of {expected}"
        if np.asarray(value).dtype.kind not in "biuf":
            return f"{field.name} is not numeric"
        value = np.asarray(value, dtype=np.float64)
        if field.gaps:
            value = value[~np.isnan(value)]
        if not (np.abs(value) <= LARGEST.get(field.dtype, np.inf)).all():
            return f"{field.name} is {'too large' if np.isfinite(value).all() else 'not finite'}"
    return None


def _unphysical_cloud(sample: CloudSample) -> str | None:
    """What no halo catalogue can have, in words; points outside the box are the mark of mixed units."""
    if sample.masses is not None and (np.asarray(sample.masses) <= 0).any():
        return "a mass is not above zero"
    if sample.box is None:
        return None
    box, positions = np.asarray(sample.box), np.asarray(sample.positions)
    if (box <= 0).any():
        return "a side of its box is not above zero"
    outside = ((positions < 0) | (positions > box)).any(axis=1)
    return f"point {int(outside.argmax())} lies outside its box" if outside.any() else None


def _unphysical_tree(sample: TreeSample) -> str | None:
    """What no merger tree can have, in words; that time runs towards the root rules out cycles."""
    parent, virtual = np.asarray(sample.parent), np.zeros(len(sample.parent), dtype=bool)
    if sample.label is not None:
        if not np.isin(sample.label, (-1, 0, 1)).all():
            return "a label is not -1, 0 or 1"
        virtual = np.asarray(sample.label) >= 0
    if (parent < -1).any() or (parent >= len(parent)).any():
        return "a parent is not one of its nodes"
    if (roots := int((parent == -1).sum())) != 1:
        return f"it has {roots} roots instead of one"
    if virtual[parent[parent >= 0]].any() or virtual[parent == -1].any():
        return "a virtual node is a parent, or the root"
    features = np.asarray(sample.node_features)[~virtual]
    if (features[:, 0] > HEAVIEST_HALO).any():
        return f"a mass is above 10^{HEAVIEST_HALO} Msun/h: give its decimal logarithm"
    child = np.flatnonzero((parent >= 0) & ~virtual)
    scale = np.asarray(sample.node_features)[:, 3]
    if (wrong := scale[child] >= scale[parent[child]]).any():
        return f"node {child[wrong][0]} is not earlier than its parent (scale factor, the last of node_features)"
    return None


def _unphysical_atoms(sample: AtomsSample) -> str | None:
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
    if len(positions) <= ALL_PAIRS:
        apart = positions[:, None] - positions
        if periodic.any():
            apart = apart @ np.linalg.inv(cell)
            apart[..., periodic] -= np.rint(apart[..., periodic])
            apart = apart @ cell
        near = np.argwhere(np.triu((apart * apart).sum(axis=2) < COINCIDENT**2, 1))
        return (int(near[0, 0]), int(near[0, 1])) if len(near) else None
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
