"""Group actions on graph batches: draw an element per system, act, and take the outputs back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from scisci.contracts.errors import unknown_name
from scisci.data.batch import PER_POINT

Outputs = dict[str, Tensor]
Undo = Callable[[Outputs], Outputs]
TRANSLATION_RANGE = 10.0
# Fields of batches and of outputs, [N, 3], by how they change: all turn, those that are places also move.
PLACES = ("pos", "positions", "target_positions")
VECTORS = (*PLACES, "forces", "velocities", "displacement")


def random_rotations(count: int, rng: np.random.Generator) -> Tensor:
    """[count, 3, 3] float64 rotation matrices, uniform on SO(3)."""
    return torch.from_numpy(Rotation.random(count, rng=rng).as_matrix())


def _linear(batch: Any, matrices: Tensor) -> tuple[Any, Undo]:
    """Apply an orthogonal matrix to all that has a direction in each system: vectors, cell and tensors."""
    acted = copy.copy(batch)
    matrices = matrices.to(batch.pos.device)
    per_point = matrices[batch.batch]
    per_edge = matrices[batch.batch[batch.edge_index[1]]]

    def turn(vectors: Tensor, by: Tensor) -> Tensor:
        return torch.einsum("nij,nj->ni", by.to(vectors.dtype), vectors)

    for name in VECTORS:
        if name in batch:
            acted[name] = turn(batch[name], per_point)
    acted.edge_shift = turn(batch.edge_shift, per_edge)
    if "cell" in batch:
        acted.cell = batch.cell @ matrices.to(batch.cell.dtype).transpose(1, 2)
    if "stress" in batch:
        by = matrices.to(batch.stress.dtype)
        acted.stress = by @ batch.stress @ by.transpose(1, 2)

    def undo(outputs: Outputs) -> Outputs:
        return outputs | {n: turn(outputs[n], per_point.transpose(1, 2)) for n in VECTORS if n in outputs}

    return acted, undo


def rotate(batch: Any, rng: np.random.Generator) -> tuple[Any, Undo]:
    """A rotation per system, uniform on SO(3)."""
    return _linear(batch, random_rotations(batch.num_graphs, rng))


def reflect(batch: Any, rng: np.random.Generator) -> tuple[Any, Undo]:
    """An improper rotation per system, uniform on O(3) without SO(3)."""
    return _linear(batch, -random_rotations(batch.num_graphs, rng))


def translate(batch: Any, rng: np.random.Generator) -> tuple[Any, Undo]:
    """A translation per system, uniform in a cube of side 20 in the domain's unit of length."""
    drawn = torch.from_numpy(rng.uniform(-TRANSLATION_RANGE, TRANSLATION_RANGE, (batch.num_graphs, 3)))
    shifts = drawn.to(batch.pos)[batch.batch]
    acted = copy.copy(batch)
    for name in PLACES:
        if name in batch:
            acted[name] = batch[name] + shifts
    return acted, lambda outputs: outputs | {n: outputs[n] - shifts for n in PLACES if n in outputs}


def permute(batch: Any, rng: np.random.Generator) -> tuple[Any, Undo]:
    """A permutation of the points per system; the edges follow their points and are shuffled too."""
    bounds = batch.ptr.tolist()
    order = torch.from_numpy(
        np.concatenate([rng.permutation(np.arange(a, b)) for a, b in zip(bounds[:-1], bounds[1:], strict=True)])
    ).to(batch.pos.device)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    edges = torch.from_numpy(rng.permutation(batch.edge_index.shape[1])).to(order.device)
    acted = copy.copy(batch)
    for name in PER_POINT:
        if name in batch:
            acted[name] = batch[name][order]
    acted.edge_index, acted.edge_shift = place[batch.edge_index][:, edges], batch.edge_shift[edges]

    def undo(outputs: Outputs) -> Outputs:
        # With a point per system, points cannot be told from systems, and there is nothing to permute.
        return {name: values[place] if len(values) == len(place) else values for name, values in outputs.items()}

    return acted, undo


ACTIONS: dict[str, Callable[[Any, np.random.Generator], tuple[Any, Undo]]] = {
    "rotation": rotate,
    "reflection": reflect,
    "translation": translate,
    "permutation": permute,
}


def act(group: str, batch: Any, rng: np.random.Generator) -> tuple[Any, Undo]:
    """Act on every system with its own random element of `group`.

    Returns the acted batch and the function that takes the model's outputs on it back to the original frame.
    """
    if group not in ACTIONS:
        raise unknown_name("symmetry group", group, ACTIONS)
    return ACTIONS[group](batch, rng)
