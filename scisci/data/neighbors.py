"""Neighbour lists: all pairs within a cutoff, through vesin, for isolated and periodic systems of any cell shape."""

from __future__ import annotations

import math

import numpy as np
from vesin import NeighborList

from scisci.contracts.errors import UserError
from scisci.data.ragged import ragged_positions

ALL_PAIRS_UP_TO = 64


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
    """Directed edges within `cutoff` for a batch of systems; all pairs of isolated systems if it is infinite, none if 0.

    `positions` [N, 3] are all systems' atoms or points in a row, `offsets` [B + 1] where each begins; `cells`
    [B, 3, 3] and `pbc` [B, 3] are `None` for isolated systems. Returns `edge_index` [2, E] (sender, receiver; sorted
    by receiver, then sender) and `edge_shift` [E, 3]: the edge vector is
    positions[sender] + edge_shift - positions[receiver].
    """
    if cutoff == 0:
        return np.zeros((2, 0), dtype=np.int64), np.zeros((0, 3))
    positions = positions.astype(np.float64)
    lengths = np.diff(offsets)
    isolated = pbc is None or cells is None or not pbc.any()
    if math.isinf(cutoff) and not isolated:
        raise UserError("a periodic system has neighbours without end; give a finite cutoff")
    if isolated and (math.isinf(cutoff) or lengths.max(initial=0) <= ALL_PAIRS_UP_TO):
        return _among_all_pairs(positions, offsets, cutoff)
    if isolated:
        cells, pbc = np.zeros((len(lengths), 3, 3)), np.zeros((len(lengths), 3), dtype=bool)
    assert cells is not None
    assert pbc is not None
    edges, shifts = [], []
    for start, stop, cell, periodic in zip(offsets[:-1], offsets[1:], cells, pbc, strict=True):
        edge, shift = _pairs(positions[start:stop], cell, periodic, cutoff)
        edges.append(edge + start)
        shifts.append(shift)
    return np.concatenate(edges, axis=1), np.concatenate(shifts)


def _among_all_pairs(positions: np.ndarray, offsets: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    # For a batch of small molecules one pass over all pairs beats a search per molecule about tenfold.
    lengths = np.diff(offsets)
    partners = np.repeat(lengths, lengths)
    receiver = np.repeat(np.arange(len(positions)), partners)
    sender = ragged_positions(np.repeat(offsets[:-1], lengths), partners)
    near = np.square(positions[sender] - positions[receiver]).sum(axis=1) < cutoff**2
    near &= sender != receiver
    return np.stack([sender[near], receiver[near]]), np.zeros((near.sum(), 3))
