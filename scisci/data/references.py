"""Per-element reference energies: the part of a total energy that composition alone explains."""

from __future__ import annotations

from array import array

import numpy as np

ELEMENTS = 119


class ReferenceFit:
    """Accumulates energies and compositions, then solves for one energy per element by least squares.

    Keeps only the normal equations, so memory does not grow with the number of samples.
    """

    def __init__(self) -> None:
        self._gram = np.zeros((ELEMENTS, ELEMENTS))
        self._moment = np.zeros(ELEMENTS)

    def add(self, numbers: np.ndarray, energy: float) -> None:
        """Add one sample: atomic numbers [N] and its energy in eV."""
        self.add_alike(numbers, 1, energy)

    def add_alike(self, numbers: np.ndarray, samples: int, energy: float) -> None:
        """Add `samples` of one composition: atomic numbers [N] of each, and the sum of their energies in eV."""
        composition = np.bincount(numbers, minlength=ELEMENTS).astype(np.float64)
        self._gram += samples * np.outer(composition, composition)
        self._moment += energy * composition

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


class CompositionLog:
    """Energies and compositions of a stream of samples, for references of a subset that is only known later.

    Memory: 12 bytes a sample, and every distinct composition once.
    """

    def __init__(self) -> None:
        self._kinds: dict[bytes, int] = {}
        self._kind = array("i")
        self._energy = array("d")

    def add(self, numbers: np.ndarray, energy: float) -> None:
        """Add one sample: atomic numbers [N] and its energy in eV."""
        composition = np.sort(numbers.astype(np.uint8)).tobytes()
        self._kind.append(self._kinds.setdefault(composition, len(self._kinds)))
        self._energy.append(energy)

    def fit(self, indices: np.ndarray) -> np.ndarray:
        """Per-element references [119], eV, of the samples at `indices` alone."""
        kind, energy = np.frombuffer(self._kind, "i")[indices], np.frombuffer(self._energy)[indices]
        samples, energies = np.bincount(kind), np.bincount(kind, weights=energy)
        fit = ReferenceFit()
        for composition, count, total in zip(self._kinds, samples, energies, strict=False):
            fit.add_alike(np.frombuffer(composition, dtype=np.uint8), count, total)
        return fit.solve()

    @property
    def elements(self) -> set[int]:
        """Atomic numbers that occur in any sample."""
        return {z for composition in self._kinds for z in composition}
