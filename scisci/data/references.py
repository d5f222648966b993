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
        self.add_alike(numbers, np.array([energy]))

    def add_alike(self, numbers: np.ndarray, energies: np.ndarray) -> None:
        """Add samples of one composition: atomic numbers [N] of each, and the energies [n] of all, in eV."""
        composition = np.bincount(numbers, minlength=ELEMENTS).astype(np.float64)
        self._gram += len(energies) * np.outer(composition, composition)
        self._moment += energies.sum() * composition

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
        kind, energy = np.array(self._kind)[indices], np.array(self._energy)[indices]
        order = np.argsort(kind, kind="stable")
        compositions, fit = list(self._kinds), ReferenceFit()
        for alike in np.split(order, np.flatnonzero(np.diff(kind[order])) + 1):
            fit.add_alike(np.frombuffer(compositions[kind[alike[0]]], dtype=np.uint8), energy[alike])
        return fit.solve()

    @property
    def elements(self) -> set[int]:
        """Atomic numbers that occur in any sample."""
        return {z for composition in self._kinds for z in composition}
