"""Distribution shifts: for each, a number per sample that says how far the sample is from what is trained on.

`SHIFTS` names them. Those with `relative` measure the distance from a reference set (the split `train`, unless another
is given); the others are properties of the sample alone. Any numeric metadata column, such as a temperature, is a
shift too. Stores are read in slices, so memory grows by a few numbers per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from scisci.contracts.errors import UserError, unknown_name
from scisci.data.ragged import Ragged
from scisci.data.references import ELEMENTS
from scisci.data.spectra import graph_edges, laplacian_spectra, padded, quantile_functions
from scisci.data.store import Store

SLICE = 1024
PUBLISHED_CUTOFF = 5.0
# Beyond these, eigenvalues are rounding errors, by which graphs that are the same would differ.
DECIMALS = 9
Measure = Callable[[Ragged], np.ndarray]


@dataclass(frozen=True)
class Setting:
    """What a shift is measured against: a store, and the options of the shifts that have any."""

    store: Store
    reference: np.ndarray | None = None
    """indices that relative shifts measure from; `None`: the split `train`"""
    elements: frozenset[int] = frozenset()
    """atomic numbers held out by `element`"""
    cutoff: float | None = None
    """of the graph behind `connectivity`, in the domain's unit of length; `None`: bonds"""
    seed: int = 0

    def reference_slices(self) -> Iterator[Ragged]:
        """The reference set, few samples at a time."""
        indices = self.store.split("train").indices() if self.reference is None else self.reference
        return slices(self.store, np.sort(indices))


@dataclass(frozen=True)
class Shift:
    """One kind of shift: its definition in words, and what gives a slice's severities [n] once prepared.

    Without `prepare` it is a metadata column.
    """

    text: str
    unit: str
    needs: tuple[str, ...]
    """fields of the store; "a or b": one of them"""
    prepare: Callable[[Setting], Measure] | None
    source: str = ""
    relative: bool = False
    level: str = "90%"
    """up to which severity samples are in distribution, unless told: a value, or a share of the samples"""
    graded: bool = True
    """whether its numbers mean anything beyond in or out"""


def slices(store: Store, indices: np.ndarray | None = None) -> Iterator[Ragged]:
    """The samples at `indices` (all by default), at most 1,024 at a time."""
    indices = np.arange(len(store)) if indices is None else indices
    return (store.take(indices[k : k + SLICE]) for k in range(0, len(indices), SLICE))


def element_counts(ragged: Ragged) -> np.ndarray:
    """How many atoms of each element every sample has: [n, 119]."""
    n = len(ragged)
    place = np.repeat(np.arange(n), ragged.lengths) * ELEMENTS + ragged.items["numbers"]
    return np.bincount(place, minlength=n * ELEMENTS).reshape(n, ELEMENTS)


def _group(setting: Setting) -> Measure:
    rank = np.random.default_rng(setting.seed).permutation(len(setting.store.groups)) + 1.0
    return lambda ragged: rank[ragged.samples["group"]] / len(rank)


def _element(setting: Setting) -> Measure:
    if not setting.elements:
        raise UserError("the shift 'element' needs to know which elements are held out; give --elements")
    held_out = np.isin(np.arange(ELEMENTS), list(setting.elements))
    return lambda ragged: element_counts(ragged)[:, held_out].sum(axis=1) / ragged.lengths


def _composition(setting: Setting) -> Measure:
    known = {row.tobytes(): row for part in setting.reference_slices() for row in element_counts(part)}
    compositions = np.array(list(known.values()))
    nearest = cKDTree(compositions / compositions.sum(axis=1, keepdims=True))

    def measure(ragged: Ragged) -> np.ndarray:
        own, inverse = np.unique(element_counts(ragged), axis=0, return_inverse=True)
        return nearest.query(own / own.sum(axis=1, keepdims=True), p=1)[0][inverse.ravel()] / 2

    return measure


def _force_norm(_: Setting) -> Measure:
    return lambda ragged: np.sqrt(np.add.reduceat(_squared_forces(ragged), ragged.offsets[:-1]) / ragged.lengths)


def _force_max(_: Setting) -> Measure:
    return lambda ragged: np.sqrt(np.maximum.reduceat(_squared_forces(ragged), ragged.offsets[:-1]))


def _squared_forces(ragged: Ragged) -> np.ndarray:
    return np.square(ragged.items["forces"].astype(np.float64)).sum(axis=1)


def _density(_: Setting) -> Measure:
    def measure(ragged: Ragged) -> np.ndarray:
        if "box" in ragged.samples:
            return ragged.lengths / ragged.samples["box"].prod(axis=1)
        if not ragged.samples["pbc"].all():
            raise UserError("a sample is not periodic in all directions, so it has no density; choose another shift")
        return ragged.lengths / np.abs(np.linalg.det(ragged.samples["cell"]))

    return measure


def _connectivity(setting: Setting) -> Measure:
    def quantiles(ragged: Ragged) -> np.ndarray:
        spectra = laplacian_spectra(graph_edges(ragged, setting.cutoff), ragged.offsets)
        return quantile_functions(spectra, ragged.offsets)

    mean = _mean(quantiles(part) for part in setting.reference_slices())
    return lambda ragged: np.abs(quantiles(ragged) - mean).mean(axis=1).round(DECIMALS)


def _connectivity_padded(setting: Setting) -> Measure:
    cutoff = setting.cutoff or PUBLISHED_CUTOFF

    def rows(ragged: Ragged, width: int = 0) -> np.ndarray:
        return padded(laplacian_spectra(graph_edges(ragged, cutoff), ragged.offsets), ragged.offsets, width)

    mean = _mean(rows(part) for part in setting.reference_slices())

    def measure(ragged: Ragged) -> np.ndarray:
        own = rows(ragged, len(mean))
        return np.square(own - np.pad(mean, (0, own.shape[1] - len(mean)))).sum(axis=1).round(DECIMALS)

    return measure


def _mean(parts: Iterator[np.ndarray]) -> np.ndarray:
    """Mean of all rows; shorter rows count as ending in zeros."""
    total, count = np.zeros(0), 0
    for part in parts:
        width = max(len(total), part.shape[1])
        total = np.pad(total, (0, width - len(total))) + np.pad(part.sum(axis=0), (0, width - part.shape[1]))
        count += len(part)
    return total / count


KREIMAN = "Kreiman and Krishnapriyan, Digital Discovery 5, 415 (2026), arXiv:2503.08674"
SHIFTS: dict[str, Shift] = {
    "group": Shift("whole groups drawn at random", "", (), _group, graded=False),
    "element": Shift("share of atoms of held-out elements", "", ("numbers",), _element, KREIMAN, level="0"),
    "composition": Shift(
        "half the L1 distance of the elements' shares from the nearest composition of train",
        "",
        ("numbers",),
        _composition,
        relative=True,
        level="0",
    ),
    "size": Shift("number of atoms or points", "", (), lambda _: lambda ragged: ragged.lengths),
    "force_norm": Shift("rms over atoms of |F|", "eV/Å", ("forces",), _force_norm, KREIMAN),
    "force_max": Shift("largest |F| of an atom", "eV/Å", ("forces",), _force_max, KREIMAN),
    "connectivity": Shift(
        "1-Wasserstein distance of the graph's normalised-Laplacian spectrum from the mean; comparable between sizes",
        "",
        (),
        _connectivity,
        KREIMAN,
        relative=True,
    ),
    "connectivity_padded": Shift(
        "squared distance of the zero-padded spectrum within 5 Å from the mean, as published; grows with size",
        "",
        (),
        _connectivity_padded,
        KREIMAN,
        relative=True,
    ),
    "density": Shift("atoms or points per volume, in the domain's unit of length", "", ("cell or box",), _density),
}


def shift_named(name: str, store: Store) -> Shift:
    """The shift called `name`, or the one that a numeric metadata column of the store is.

    `UserError` for an unknown name, for a column of text, and where the store lacks what the shift needs.
    """
    if name not in SHIFTS:
        columns = list(store.h5(0)["metadata"])
        if name not in columns:
            raise unknown_name("shift or metadata column", name, [*SHIFTS, *columns])
        if store.metadata(name).dtype.kind not in "biuf":
            raise UserError(f"the metadata column {name!r} of {store.path} holds text; give a column of numbers")
        return Shift(f"metadata column {name!r}", "", (), None)
    for need in SHIFTS[name].needs:
        if not set(need.split(" or ")) & set(store.fields):
            raise UserError(f"the shift {name!r} needs {need}, but {store.path} has only {', '.join(store.fields)}")
    return SHIFTS[name]


def measure(setting: Setting, name: str) -> np.ndarray:
    """Severity [n] of the shift called `name` for every sample of the store, in the shift's unit."""
    shift = shift_named(name, setting.store)
    if shift.prepare is None:
        return setting.store.metadata(name).astype(np.float64)
    of_slice = shift.prepare(setting)
    return np.concatenate([of_slice(part) for part in slices(setting.store)]).astype(np.float64)
