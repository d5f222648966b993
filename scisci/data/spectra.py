"""Spectra of the graphs that atoms or points form: how they are connected, comparable between structures."""

from __future__ import annotations

import numpy as np

from scisci.contracts.errors import UserError
from scisci.data.neighbors import neighbors
from scisci.data.ragged import Ragged, ragged_positions

# Atoms closer than this many sums of their covalent radii are bonded.
BOND = 1.3
# Numbers in one stack of dense matrices.
DENSE = 2**22


def graph_edges(ragged: Ragged, cutoff: float | None) -> np.ndarray:
    """Directed edges [2, E] of each structure's graph, sorted by receiver.

    `cutoff` is in the domain's unit of length; `None` joins bonded atoms, those closer than 1.3 times the sum of their
    covalent radii (Cordero et al. 2008, as in ASE).
    """
    cells, pbc = ragged.samples.get("cell"), ragged.samples.get("pbc")
    if (box := ragged.samples.get("box")) is not None:
        cells, pbc = box[:, :, None] * np.eye(3), np.ones(box.shape, dtype=bool)
    positions = ragged.items["positions"].astype(np.float64)
    if cutoff is not None:
        return neighbors(positions, ragged.offsets, cutoff, cells, pbc)[0]
    if "numbers" not in ragged.items:
        raise UserError("points have no bonds; give the cutoff within which they are joined")
    from ase.data import covalent_radii

    radii = BOND * covalent_radii[ragged.items["numbers"]]
    edges, shift = neighbors(positions, ragged.offsets, 2 * radii.max(), cells, pbc)
    sender, receiver = edges
    lengths = np.linalg.norm(positions[sender] + shift - positions[receiver], axis=1)
    return edges[:, lengths < radii[sender] + radii[receiver]]


def laplacian_spectra(edges: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Eigenvalues of each graph's normalised Laplacian, one per node: flat [N], ascending within each graph.

    `edges` [2, E] go both ways and are sorted by receiver; those that join the same pair count once, loops not at all.
    L = I - D^(-1/2) A D^(-1/2), with a zero for a node without edges (Chung, "Spectral graph theory", eq. 1.2), so
    that 0 occurs once per connected part. Costs O(n^3) for a graph of n nodes.
    """
    spectra = np.empty(offsets[-1])
    lengths, starts = np.diff(offsets), np.searchsorted(edges[1], offsets)
    for size in np.unique(lengths):
        alike = np.flatnonzero(lengths == size)
        step = max(1, DENSE // int(size) ** 2)
        for some in (alike[k : k + step] for k in range(0, len(alike), step)):
            counts = starts[some + 1] - starts[some]
            sender, receiver = edges[:, ragged_positions(starts[some], counts)]
            number, first = np.repeat(np.arange(len(some)), counts), np.repeat(offsets[some], counts)
            adjacency = np.zeros((len(some), size, size))
            adjacency[number, receiver - first, sender - first] = 1.0
            adjacency[:, np.arange(size), np.arange(size)] = 0.0
            values = np.linalg.eigvalsh(_normalised_laplacian(adjacency))
            spectra[ragged_positions(offsets[some], lengths[some])] = values.ravel()
    return spectra


def _normalised_laplacian(adjacency: np.ndarray) -> np.ndarray:
    degrees = adjacency.sum(axis=2)
    scale = np.divide(1.0, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0)
    joined = (degrees > 0)[:, :, None] * np.eye(degrees.shape[1])
    return joined - scale[:, :, None] * adjacency * scale[:, None, :]


def quantile_functions(spectra: np.ndarray, offsets: np.ndarray, levels: int = 128) -> np.ndarray:
    """Each spectrum's quantile function [n, levels] at the middles of equal steps, whatever its graph's size.

    The mean absolute difference of two of them is the 1-Wasserstein distance of the spectra.
    """
    middles = (np.arange(levels) + 0.5) / levels
    return spectra[offsets[:-1, None] + (middles * np.diff(offsets)[:, None]).astype(np.int64)]


def padded(spectra: np.ndarray, offsets: np.ndarray, width: int) -> np.ndarray:
    """The spectra as rows [n, max(width, longest)], filled with zeros at the end."""
    lengths = np.diff(offsets)
    rows = np.zeros((len(lengths), max(width, int(lengths.max(initial=0)))))
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = spectra
    return rows
