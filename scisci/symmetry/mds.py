"""Transformation-invariant initial representations: coordinates of points that depend on their distances alone.

Zhang et al., "Revisiting transformation invariant geometric deep learning: an initial representation perspective"
(2021, arXiv:2112.12345; TinvNN): classical multidimensional scaling of the distances gives coordinates that keep them
all, and a network that starts from these is invariant whatever it does with them.

The coordinates are the eigenvectors of the Gram matrix of centred points times the roots of their eigenvalues. For
points in space they are the centred points in their principal axes, which needs matrices of 3 x 3 only. What
distances do not tell is arbitrary:

- signs of axes: each is chosen so that the third moment of its coordinate is positive; where that is zero by accident
  and not by a symmetry of the system, the sign is arbitrary;
- axes of equal eigenvalues: any turn of the plane (or space) they span;
- handedness: mirror images have the same distances, hence the same coordinates.

Near the first two, coordinates jump: one frame cannot be continuous (`scisci.symmetry.frames`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.symmetry.actions import Outputs, apply
from scisci.symmetry.frames import principal_axes
from scisci.symmetry.groups import Element


def canonical_element(
    positions: Float[Tensor, "points 3"],
    system: Int[Tensor, " points"],
    systems: int,
    weights: Float[Tensor, " points"] | None = None,
) -> Element:
    """The motion of each system that takes its points to their invariant coordinates, largest variance first.

    `weights`: invariants of the points, such as atomic numbers, that tell the ends of an axis apart where positions
    alone do not; of CO, for example.
    """

    def summed(values: Tensor) -> Tensor:
        return values.new_zeros(systems, *values.shape[1:]).index_add(0, system, values)

    centres = summed(positions) / summed(torch.ones_like(positions[:, :1]))
    centred = positions - centres[system]
    axes = principal_axes(summed(centred[:, :, None] * centred[:, None, :]))[1].flip(2)
    along = torch.einsum("ni,nij->nj", centred, axes[system])
    skewed = along**3 if weights is None else weights.to(along)[:, None] * along**3
    axes = axes * torch.where(summed(skewed) < 0, -1.0, 1.0).to(axes)[:, None, :]
    into = axes.transpose(1, 2)
    return Element(into, -torch.einsum("bij,bj->bi", into, centres))


def invariant_coordinates(
    positions: Float[Tensor, "points 3"],
    system: Int[Tensor, " points"],
    systems: int,
    weights: Float[Tensor, " points"] | None = None,
) -> Float[Tensor, "points 3"]:
    """Coordinates [N, 3] that keep all distances within a system and do not change when it is moved or mirrored.

    Columns are sorted by their variance, so the first k are the best k that classical scaling finds. Differentiable.
    """
    element = canonical_element(positions, system, systems, weights)
    return torch.einsum("nij,nj->ni", element.matrices[system], positions) + element.shifts[system]


def canonicalised(model: Callable[[Any], Outputs], batch: Any) -> Outputs:
    """A model's outputs on isolated systems as seen in their invariant coordinates; what has a direction turns back.

    For outputs that are functions of the batch themselves, as `average_over_frames` is. A periodic system is a
    `UserError`: distances to images are not those of points in space.
    """
    if "pbc" in batch and batch.pbc.any():
        raise UserError("periodic systems have no invariant coordinates by scaling of distances; use frames instead")
    weights = batch.numbers if "numbers" in batch else None
    acted, undo = apply(canonical_element(batch.pos, batch.batch, batch.num_graphs, weights), batch)
    return undo(model(acted))
