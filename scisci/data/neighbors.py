"""Neighbour lists: all pairs within a cutoff, for isolated and periodic systems of any cell shape.

Large systems go through vesin, one by one, in time linear in their atoms. For small ones the calls would cost more than
the search: those of a batch are searched together, among all pairs of atoms and images that can be within the cutoff.
Which way a system goes depends on itself alone, and so do its edges and their order.
"""

from __future__ import annotations

import math

import numpy as np
from vesin import NeighborList

from scisci.contracts.errors import UserError
from scisci.data.ragged import ragged_positions

ALL_PAIRS_UP_TO = 64
# Pairs of atoms and images: of one system that is small enough, and of all those that are searched at once.
CANDIDATES, CANDIDATES_AT_ONCE = 2**15, 2**18

Edges = tuple[np.ndarray, np.ndarray]


def neighbors(
    positions: np.ndarray, offsets: np.ndarray, cutoff: float, cells: np.ndarray | None, pbc: np.ndarray | None
) -> Edges:
    """Directed edges within `cutoff` for a batch of systems; all pairs of isolated systems if it is infinite.

    `positions` [N, 3] are all systems' atoms or points in a row, `offsets` [B + 1] where each begins; `cells`
    [B, 3, 3] and `pbc` [B, 3] are `None` for isolated systems. Returns `edge_index` [2, E] (sender, receiver; sorted
    by receiver, then sender, then image) and `edge_shift` [E, 3]: the edge vector is
    positions[sender] + edge_shift - positions[receiver].
    """
    positions, starts, lengths = positions.astype(np.float64), offsets[:-1], np.diff(offsets)
    if cells is None or pbc is None:
        cells, pbc = np.zeros((len(lengths), 3, 3)), np.zeros((len(lengths), 3), dtype=bool)
    isolated = ~pbc.any(axis=1)
    if math.isinf(cutoff) and not isolated.all():
        raise UserError("a periodic system has neighbours without end; give a finite cutoff")
    small = isolated & ((lengths <= ALL_PAIRS_UP_TO) | math.isinf(cutoff))
    found = [_among_all_pairs(positions, starts[small], lengths[small], cutoff)]
    if not isolated.all():
        reach = _image_range(positions, starts, lengths, cutoff, cells, pbc)
        by_images = ~isolated & (lengths**2 * (2.0 * reach + 1).prod(axis=1) <= CANDIDATES)
        kinds, kind = np.unique(np.column_stack([lengths, reach])[by_images], axis=0, return_inverse=True)
        for number, (atoms, *images) in enumerate(kinds.tolist()):
            alike = np.flatnonzero(by_images)[kind.reshape(-1) == number]
            at_once = max(1, CANDIDATES_AT_ONCE // (atoms**2 * math.prod(2 * k + 1 for k in images)))
            for at in range(0, len(alike), at_once):
                some = alike[at : at + at_once]
                found.append(_among_images(positions, starts[some], atoms, images, cutoff, cells[some]))
        small |= by_images
    search = NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
    for system in np.flatnonzero(~small):
        found.append(_within(search, positions, offsets[system], offsets[system + 1], cells[system], pbc[system]))
    if len(found := [part for part in found if part[0].size] or found[:1]) == 1:
        return found[0]
    edge_index = np.concatenate([edges for edges, _ in found], axis=1)
    edge_shift = np.concatenate([shift for _, shift in found])
    if (np.diff(edge_index[1]) >= 0).all():
        return edge_index, edge_shift
    order = np.argsort(edge_index[1], kind="stable")
    return edge_index.take(order, axis=1), edge_shift.take(order, axis=0)


def _shifts(images: np.ndarray, cell: np.ndarray) -> np.ndarray:
    # Not a matrix product, whose last bit depends on how many images there are.
    shifts = images[..., 0, None] * cell[..., 0, :]
    shifts += images[..., 1, None] * cell[..., 1, :]
    shifts += images[..., 2, None] * cell[..., 2, :]
    return shifts


def _among_all_pairs(positions: np.ndarray, starts: np.ndarray, lengths: np.ndarray, cutoff: float) -> Edges:
    partners = np.repeat(lengths, lengths)
    receiver = np.repeat(ragged_positions(starts, lengths), partners)
    sender = ragged_positions(np.repeat(starts, lengths), partners)
    apart = positions.take(sender, axis=0) - positions.take(receiver, axis=0)
    near = np.flatnonzero((np.einsum("ij,ij->i", apart, apart) < cutoff**2) & (sender != receiver))
    return np.stack([sender.take(near), receiver.take(near)]), np.zeros((len(near), 3))


def _image_range(
    positions: np.ndarray, starts: np.ndarray, lengths: np.ndarray, cutoff: float, cells: np.ndarray, pbc: np.ndarray
) -> np.ndarray:
    """[B, 3] how many cells to either side a neighbour can be along each lattice vector."""
    lattice = np.where(pbc[:, :, None], cells, 0.0)
    metric = lattice @ lattice.transpose(0, 2, 1) + ~pbc[:, :, None] * np.eye(3)
    try:
        dual = np.linalg.solve(metric, lattice)
    except np.linalg.LinAlgError as error:
        raise UserError("a periodic system's cell has no volume; correct its cell or its pbc") from error
    fractions = np.einsum("ni,nki->nk", positions, np.repeat(dual, lengths, axis=0))
    spread = np.maximum.reduceat(fractions, starts) - np.minimum.reduceat(fractions, starts)
    return np.floor(cutoff * np.linalg.norm(dual, axis=2) + spread + 1e-9).astype(np.int64)


def _among_images(
    positions: np.ndarray, starts: np.ndarray, atoms: int, reach: list[int], cutoff: float, cells: np.ndarray
) -> Edges:
    """Edges and shifts of systems [G] of equally many atoms and images."""
    grid = np.stack(np.meshgrid(*(np.arange(-k, k + 1.0) for k in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    shifts = _shifts(grid, cells[:, None])
    here = positions[starts[:, None] + np.arange(atoms)]
    here = here - here.mean(axis=1, keepdims=True)
    there = (here[:, :, None] + shifts[:, None]).reshape(len(starts), -1, 3)
    # Squared distances through one matrix product, with some room for its rounding; candidates are held to it exactly.
    squares = -2.0 * here @ there.transpose(0, 2, 1)
    squares += np.square(here).sum(axis=2)[:, :, None] + np.square(there).sum(axis=2)[:, None]
    candidate = np.flatnonzero(squares < cutoff**2 * (1 + 1e-6))
    row, column = np.divmod(candidate, there.shape[1])
    (system, receiver), (sender, image) = np.divmod(row, atoms), np.divmod(column, len(grid))
    receiver, sender = starts.take(system) + receiver, starts.take(system) + sender
    shift = shifts.reshape(-1, 3).take(system * len(grid) + image, axis=0)
    apart = positions.take(sender, axis=0) + shift - positions.take(receiver, axis=0)
    itself = (sender == receiver) & (image == len(grid) // 2)
    near = np.flatnonzero((np.einsum("ij,ij->i", apart, apart) < cutoff**2) & ~itself)
    return np.stack([sender.take(near), receiver.take(near)]), shift.take(near, axis=0)


def _within(
    search: NeighborList, positions: np.ndarray, start: int, stop: int, cell: np.ndarray, pbc: np.ndarray
) -> Edges:
    """Edges and shifts of the system of the atoms from `start` to `stop`."""
    pairs, images = search.compute(positions[start:stop], cell, pbc, quantities="PS", copy=False)
    if not len(pairs):
        return np.zeros((2, 0), dtype=np.int64), np.zeros((0, 3))
    receiver, sender = pairs.astype(np.int64).T
    # One number per edge sorts several times faster than five columns do.
    image = images - images.min(axis=0)
    size = stop - start, stop - start, *(image.max(axis=0) + 1)
    order = np.argsort(np.ravel_multi_index((receiver, sender, *image.T), size))
    return np.stack([sender, receiver]).take(order, axis=1) + start, _shifts(images.take(order, axis=0), cell)
