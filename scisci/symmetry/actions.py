"""Group actions on graph batches: draw an element per system, act, and take the outputs back.

What has a direction turns (vectors; the stress as Q S Q^T), what is a place also moves, the rest stays. The cell of a
periodic system turns with it, except under a group that keeps the box (`cubic`, `octahedral`, `inversion`, `torus`):
that puts points back into the box and corrects the edges, so that a model of edge vectors sees the element alone, and
one that reads positions sees all of them change.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scisci.data.batch import PER_POINT
from scisci.symmetry.groups import GROUPS, Element, periodic_vectors, random_rotations, require

__all__ = ["ACTIONS", "act", "apply", "random_rotations", "rotate"]

Outputs = dict[str, Tensor]
Undo = Callable[[Outputs], Outputs]
# Fields of batches and of outputs by how they change: vectors [N, 3] turn, places among them also move, tensors
# [B, 3, 3] turn from both sides.
PLACES = ("pos", "positions", "target_positions")
VECTORS = (*PLACES, "forces", "velocities", "displacement")
TENSORS = ("stress",)
# The groups that every model makes a claim of, and every run is measured by.
ACTIONS = {name: GROUPS[name] for name in ("rotation", "reflection", "translation", "permutation")}


def _turn(vectors: Tensor, by: Tensor) -> Tensor:
    return torch.einsum("nij,nj->ni", by.to(vectors.dtype), vectors)


def _turn_tensors(tensors: Tensor, by: Tensor) -> Tensor:
    by = by.to(tensors.dtype)
    return by @ tensors @ by.transpose(1, 2)


def _into_box(acted: Any, batch: Any) -> Tensor:
    """Put the places of `acted` back into the unturned cell and correct its edges; the lattice vectors added [N, 3]."""
    vectors = periodic_vectors(batch)
    lattice = vectors.to(acted.pos.dtype)[batch.batch]
    # Along directions without a period the pseudo-inverse is zero, and nothing is wrapped.
    fractions = torch.einsum("nj,njk->nk", acted.pos.double(), torch.linalg.pinv(vectors)[batch.batch])
    wrapped = torch.einsum("nk,nkj->nj", -fractions.floor().to(lattice.dtype), lattice)
    senders, receivers = batch.edge_index
    acted.edge_shift = acted.edge_shift - wrapped[senders] + wrapped[receivers]
    acted.cell = torch.where(batch.pbc.any(dim=1)[:, None, None], batch.cell, acted.cell)
    for name in PLACES:
        if name in batch:
            acted[name] = acted[name] + wrapped
    return wrapped


def _reorder(acted: Any, order: Tensor) -> None:
    """Reorder the points; edges follow them and are sorted by receiver, as a loader would have them."""
    place = torch.argsort(order)
    edges = place[acted.edge_index]
    by_receiver = torch.argsort(edges[1] * len(order) + edges[0], stable=True)
    for name in PER_POINT:
        if name in acted:
            acted[name] = acted[name][order]
    acted.edge_index = edges[:, by_receiver]
    if "edge_shift" in acted:
        acted.edge_shift = acted.edge_shift[by_receiver]


def apply(element: Element, batch: Any) -> tuple[Any, Undo]:
    """Act on a batch; returns the acted batch, and what takes a model's outputs on it back to the original frame."""
    acted, matrices = copy.copy(batch), element.matrices
    per_point, per_edge = matrices[batch.batch], matrices[batch.batch[batch.edge_index[1]]]
    moved = element.shifts[batch.batch]
    if "pos" in batch:
        moved = moved.to(batch.pos.dtype)
    for name in VECTORS:
        if name in batch:
            turned = _turn(batch[name], per_point)
            acted[name] = turned + moved if name in PLACES else turned
    for name in TENSORS:
        if name in batch:
            acted[name] = _turn_tensors(batch[name], matrices)
    if "edge_shift" in batch:
        acted.edge_shift = _turn(batch.edge_shift, per_edge)
    if "cell" in batch:
        acted.cell = batch.cell @ matrices.to(batch.cell.dtype).transpose(1, 2)
        if element.boxed:
            moved = moved + _into_box(acted, batch)
    if element.order is not None:
        _reorder(acted, element.order)

    def undo(outputs: Outputs) -> Outputs:
        back, found = matrices.transpose(1, 2), dict(outputs)
        if element.order is not None:
            place = torch.argsort(element.order)
            # With a point per system, points cannot be told from systems, and there is nothing to permute.
            found = {name: values[place] if len(values) == len(place) else values for name, values in found.items()}
        for name in VECTORS:
            if name in found:
                centred = found[name] - moved if name in PLACES else found[name]
                found[name] = _turn(centred, back[batch.batch])
        return found | {name: _turn_tensors(found[name], back) for name in TENSORS if name in found}

    return acted, undo


def act(group: str, batch: Any, rng: np.random.Generator) -> tuple[Any, Undo]:
    """Act on every system with its own random element of `group`.

    Returns the acted batch and the function that takes the model's outputs on it back to the original frame. A group
    that cannot act on these systems is a `UserError`.
    """
    return apply(require(group, batch).draw(batch, rng), batch)


def rotate(batch: Any, rng: np.random.Generator) -> tuple[Any, Undo]:
    """A rotation per system, uniform on SO(3)."""
    return act("rotation", batch, rng)
