"""The edges of merger trees, which a store keeps as one parent per node."""

from __future__ import annotations

import numpy as np

from scisci.data.ragged import Ragged


def tree_edges(parent: np.ndarray, virtual: np.ndarray | None = None) -> np.ndarray:
    """[2, E] child and parent of each edge, sorted by parent.

    `parent` [N] is -1 at roots; `virtual` [N] marks nodes that stand beside a merger, their parent, for in-filling:
    instead of an edge to it they have one from it and one from each of its progenitors (Huang et al.,
    arXiv:2507.03707).
    """
    real = parent >= 0 if virtual is None else (parent >= 0) & ~virtual
    child = np.flatnonzero(real)
    edges = [np.stack([child, parent[child]])]
    if virtual is not None and virtual.any():
        beside = np.full(len(parent), -1, dtype=np.int64)
        nodes = np.flatnonzero(virtual)
        beside[parent[nodes]] = nodes
        progenitor = child[beside[parent[child]] >= 0]
        edges += [np.stack([parent[nodes], nodes]), np.stack([progenitor, beside[parent[progenitor]]])]
    found = np.concatenate(edges, axis=1).astype(np.int64)
    return found[:, np.argsort(found[1], kind="stable")]


def ragged_edges(ragged: Ragged) -> np.ndarray:
    """[2, E] edges of several trees side by side, as indices into the nodes of all."""
    parent = ragged.items["parent"]
    first = np.repeat(ragged.offsets[:-1], ragged.lengths)
    virtual = ragged.items["label"] >= 0 if "label" in ragged.items else None
    return tree_edges(np.where(parent < 0, -1, parent + first), virtual)
