"""Samples of different lengths side by side in flat arrays, with CSR offsets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


def ragged_positions(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Flat positions of the concatenated ranges [start, start + length), without a Python loop."""
    stops = np.cumsum(lengths)
    return np.arange(stops[-1] if len(stops) else 0) + np.repeat(starts - stops + lengths, lengths)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """[n + 1] where each of `n` samples of these lengths begins, one after the other."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


@dataclass(frozen=True)
class Ragged:
    """`n` samples: `items` arrays have a row per atom or point, `samples` arrays one per sample.

    `offsets` [n + 1] says where each sample's rows begin and end.
    """

    offsets: np.ndarray
    items: dict[str, np.ndarray]
    samples: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """[n] rows of each sample."""
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        """Memory held by all arrays."""
        return sum(array.nbytes for array in (self.offsets, *self.items.values(), *self.samples.values()))

    def take(self, indices: np.ndarray) -> Ragged:
        """The samples at `indices`, in that order; repeats are allowed."""
        indices = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[indices]
        rows = ragged_positions(self.offsets[indices], lengths)
        # `take` is several times faster than indexing.
        return Ragged(
            offsets=offsets_of(lengths),
            items={name: array.take(rows, axis=0) for name, array in self.items.items()},
            samples={name: array.take(indices, axis=0) for name, array in self.samples.items()},
        )
