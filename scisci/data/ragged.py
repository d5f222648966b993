"""Samples of different lengths side by side in flat arrays, with CSR offsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def ragged_positions(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Flat positions of the concatenated ranges [start, start + length), without a Python loop."""
    shift = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return np.arange(lengths.sum()) + shift


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

    @property
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
        return Ragged(
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            items={name: array[rows] for name, array in self.items.items()},
            samples={name: array[indices] for name, array in self.samples.items()},
        )
