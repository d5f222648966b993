"""Per-element reference energies: the part of a total energy that composition alone explains."""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np

from scisci.data.store import dataset_names

ELEMENTS = 119
SAMPLES_AT_ONCE, ATOMS_AT_ONCE = 1024, 2**17


class ReferenceFit:
    """Accumulates energies and compositions, then solves for one energy per element by least squares.

    Keeps only the normal equations, so memory does not grow with the number of samples.
    """

    def __init__(self) -> None:
        self._gram = np.zeros((ELEMENTS, ELEMENTS))
        self._moment = np.zeros(ELEMENTS)

    def add(self, numbers: np.ndarray, energy: float) -> None:
        """Add one sample: atomic numbers [N] and its energy in eV."""
        self.add_counts(np.bincount(numbers, minlength=ELEMENTS)[None], np.array([energy]))

    def add_counts(self, counts: np.ndarray, energies: np.ndarray) -> None:
        """Add samples by how many atoms of each element they have: [n, 119], and energies [n] in eV."""
        counts = counts.astype(np.float64)
        self._gram += counts.T @ counts
        self._moment += energies @ counts

    def solve(self) -> np.ndarray:
        """[119] eV per element, NaN for elements that did not occur; the shortest solution where not unique."""
        seen = np.flatnonzero(np.diag(self._gram))
        references = np.full(ELEMENTS, np.nan)
        references[seen] = np.linalg.lstsq(self._gram[np.ix_(seen, seen)], self._moment[seen], rcond=None)[0]
        return references


def fit_references(shards: Sequence[h5py.File], train: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Per-element energies [119] in eV of the samples `train` of a store, and the elements that only others have.

    Of data sets that were combined, each has its own: [sets, 119]. `train` counts samples over all shards, which are
    read a little at a time.
    """
    names, start = dataset_names(shards[0]), 0
    fits = [ReferenceFit() for _ in names or ("",)]
    seen = np.zeros((len(fits), ELEMENTS), dtype=bool)
    for shard in shards:
        samples = len(shard["samples/energy"])
        used = np.zeros(samples, dtype=bool)
        used[train[(train >= start) & (train < start + samples)] - start] = True
        start += samples
        step = min(SAMPLES_AT_ONCE, max(1, ATOMS_AT_ONCE * samples // len(shard["items/numbers"])))
        for first in range(0, samples, step):
            rows = slice(first, min(first + step, samples))
            offsets = shard["offsets"][rows.start : rows.stop + 1]
            numbers = shard["items/numbers"][offsets[0] : offsets[-1]]
            counts = np.zeros((len(offsets) - 1, ELEMENTS))
            for z in np.unique(numbers):
                counts[:, z] = np.add.reduceat(numbers == z, offsets[:-1] - offsets[0], dtype=np.int64)
            energies = shard["samples/energy"][rows]
            of = shard["metadata/dataset"][rows] if names else np.zeros(len(counts), dtype=int)
            for dataset in np.unique(of):
                mine = of == dataset
                fits[dataset].add_counts(counts[mine & used[rows]], energies[mine & used[rows]])
                seen[dataset] |= counts[mine].any(axis=0)
    references = np.stack([fit.solve() for fit in fits])
    strange = np.flatnonzero((seen & np.isnan(references)).any(axis=0)).tolist()
    return references if names else references[0], strange
