"""Per-element reference energies: the part of a total energy that composition alone explains."""

from __future__ import annotations

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
        composition = np.bincount(numbers, minlength=ELEMENTS).astype(np.float64)
        self._gram += np.outer(composition, composition)
        self._moment += energy * composition

    def solve(self) -> np.ndarray:
        """[119] eV per element, NaN for elements that did not occur; the shortest solution where not unique."""
        seen = np.flatnonzero(np.diag(self._gram))
        references = np.full(ELEMENTS, np.nan)
        references[seen] = np.linalg.lstsq(self._gram[np.ix_(seen, seen)], self._moment[seen], rcond=None)[0]
        return references
