"""Neighbour lists: all pairs within a cutoff, through vesin, for isolated and periodic systems of any cell shape."""

from __future__ import annotations

import numpy as np
from vesin import NeighborList


def _pairs(points: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    search = NeighborList(cutoff=cutoff, full_list=True)
    periodic = [bool(p) for p in pbc]
    receiver, sender, images = search.compute(points=points, box=cell, periodic=periodic, quantities="ijS")
    # One order for every way of searching, so that sums over edges do not depend on the batch.
    order = np.lexsort((*images.T, sender, receiver))
    return np.stack([sender, receiver]).astype(np.int64)[:, order], images[order] @ cell


def neighbors(
    positions: np.ndarray, offsets: np.ndarray, cutoff: float, cells: np.ndarray | None, pbc: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Directed edges within `cutoff` (Å) for a batch of systems.

    `positions` [N, 3] are all systems' atoms in a row, `offsets` [B + 1] where each begins; `cells` [B, 3, 3] and
    `pbc` [B, 3] are `None` for isolated systems. Returns `edge_index` [2, E] (sender, receiver; sorted by receiver,
    then sender) and `edge_shift` [E, 3]: the edge vector is positions[sender] + edge_shift - positions[receiver].
    """
    positions = positions.astype(np.float64)
    if pbc is None or cells is None or not pbc.any():
        return _isolated(positions, offsets, cutoff)
    edges, shifts = [], []
    for start, stop, cell, periodic in zip(offsets[:-1], offsets[1:], cells, pbc, strict=True):
        edge, shift = _pairs(positions[start:stop], cell, periodic, cutoff)
        edges.append(edge + start)
        shifts.append(shift)
    return np.concatenate(edges, axis=1), np.concatenate(shifts)


def _isolated(positions: np.ndarray, offsets: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    # One search for the whole batch: systems are moved apart along x by more than the cutoff.
    lengths = np.diff(offsets)
    low = np.minimum.reduceat(positions[:, 0], offsets[:-1])
    high = np.maximum.reduceat(positions[:, 0], offsets[:-1])
    width = high - low + 2.0 * cutoff
    move = np.concatenate([[0.0], np.cumsum(width)[:-1]]) - low
    apart = positions.copy()
    apart[:, 0] += np.repeat(move, lengths)
    edge_index, _ = _pairs(apart, np.zeros((3, 3)), np.zeros(3, dtype=bool), cutoff)
    return edge_index, np.zeros((edge_index.shape[1], 3))
