"""Frame averaging: any model made exactly invariant or equivariant by averaging it over a few frames of its input.

Puny et al., "Frame averaging for invariant and equivariant network design" (2022, arXiv:2110.03336). The frame of a
system is the set of its principal axes with all choices of sign. Periodic systems have no principal axes of positions,
so they are those of the edges: of M = sum over edges of w(|r|) r rᵀ, with a weight w that falls smoothly to zero at the
cutoff. M turns with the system, and it does not change when points are relabelled or moved by lattice vectors.

Where two eigenvalues of M meet, axes are not determined and the average jumps. Dym, Lawrence and Siegel, "Equivariant
frames and the impossibility of continuous canonicalization" (2024, arXiv:2402.16077) prove that no frame of practical
size avoids this unless its members are weighted by the input. A cheap form of that is `weighted`: all orders of the
axes besides all signs, with weights that depend on the gaps. Axes that exchange their rank then make no jump; axes that
turn within a plane still make one, less what quarter turns average out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scisci.contracts.errors import unknown_name
from scisci.symmetry.actions import Outputs, apply
from scisci.symmetry.groups import Element, cubic_matrices


def _signed_axes(matrices: Tensor) -> Tensor:
    """The ways to sign and order three axes, those that keep their order first."""
    return matrices[torch.argsort(matrices.diagonal(dim1=1, dim2=2).abs().sum(1), descending=True, stable=True)]


KINDS = ("full", "stochastic", "weighted")
# By group: matrices [K, 3, 3], and how many of them keep the order.
SIGNED_AXES = {"orthogonal": (_signed_axes(cubic_matrices()), 8), "rotation": (_signed_axes(cubic_matrices()[:24]), 4)}


class _Eigen(torch.autograd.Function):
    """`torch.linalg.eigh` of [B, 3, 3] whose derivative stays finite where eigenvalues meet.

    1 / gap becomes gap / (gap² + width²) with width = sqrt(eps) of the trace, so that a gap that is rounding alone
    turns axes by no more than a change of M in units of its trace.
    """

    @staticmethod
    def forward(ctx: Any, moments: Tensor) -> tuple[Tensor, Tensor]:
        values, axes = torch.linalg.eigh(moments)
        ctx.save_for_backward(values, axes)
        return values, axes

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor, grad_axes: Tensor) -> Tensor:
        values, axes = ctx.saved_tensors
        gaps = values[:, None, :] - values[:, :, None]
        precision = torch.finfo(values.dtype)
        width = precision.eps * values.sum(1).square() + precision.tiny
        # The diagonal is zero; without the identity its derivative would be a difference of numbers of 1 / eps.
        smoothed = gaps.square() + width[:, None, None] + torch.eye(3).to(values)
        turned = gaps / smoothed * (axes.transpose(1, 2) @ grad_axes)
        grad = axes @ (turned + torch.diag_embed(grad_values)) @ axes.transpose(1, 2)
        return 0.5 * (grad + grad.transpose(1, 2))


def principal_axes(moments: Float[Tensor, "systems 3 3"]) -> tuple[Float[Tensor, "systems 3"], Tensor]:
    """Eigenvalues in ascending order [B, 3] and axes as columns [B, 3, 3]; twice differentiable."""
    return _Eigen.apply(moments)


def second_moments(
    vectors: Float[Tensor, "edges 3"], system: Int[Tensor, " edges"], systems: int, cutoff: float = math.inf
) -> Float[Tensor, "systems 3 3"]:
    """M of each system: the sum over its edges of (1 - (r / cutoff)²)³ r rᵀ, whose curvature is continuous at it."""
    weights = (1 - (vectors.square().sum(1, keepdim=True) / cutoff**2)).clamp(min=0) ** 3
    products = (weights * vectors)[:, :, None] * vectors[:, None, :]
    return products.new_zeros(systems, 3, 3).index_add(0, system, products)


def relative_gaps(moments: Float[Tensor, "systems 3 3"]) -> Float[Tensor, " systems"]:
    """Smallest distance of two eigenvalues over their sum: how far a system is from having no frame, 0 to 1/3."""
    return torch.linalg.eigvalsh(_of_trace_one(moments)).diff(dim=1).amin(1)


def _of_trace_one(moments: Tensor) -> Tensor:
    """Moments over their trace; those of nothing stay zero."""
    traces = moments.diagonal(dim1=1, dim2=2).sum(1).clamp(min=torch.finfo(moments.dtype).tiny)
    return moments / traces[:, None, None]


@dataclass(frozen=True)
class Frames:
    """Which frames a system is seen in.

    `group`: "orthogonal" has 8 frames and makes rotations and reflections exact, "rotation" has the 4 right-handed
    ones and makes rotations exact. `kind`: "full" averages over all; "stochastic" draws one per system and call while
    training, and averages over all otherwise (Duval et al., "FAENet", 2023, arXiv:2305.05577, whose code evaluates in
    one as well); "weighted" has 48 or 24, see above. `sharpness`: a pair of axes exchanges its rank over gaps of
    1 / sharpness of the trace.
    """

    group: Literal["orthogonal", "rotation"] = "orthogonal"
    kind: Literal["full", "stochastic", "weighted"] = "full"
    sharpness: float = 20.0

    def __post_init__(self) -> None:
        if self.group not in SIGNED_AXES:
            raise unknown_name("group of frames", self.group, SIGNED_AXES)
        if self.kind not in KINDS:
            raise unknown_name("kind of frames", self.kind, KINDS)

    def elements(self) -> Float[Tensor, "frames 3 3"]:
        """Signed permutations that lead from the principal axes to every frame."""
        found, signs = SIGNED_AXES[self.group]
        return found if self.kind == "weighted" else found[:signs]

    def __call__(self, moments: Float[Tensor, "systems 3 3"], training: bool = False) -> tuple[Tensor, Tensor]:
        """Axes of the frames as columns [K, B, 3, 3], and their weights [K, B], which sum to one over K."""
        values, axes = principal_axes(moments)
        # Signs of axes are arbitrary; handed frames need right-handed ones to start from.
        hand = torch.linalg.det(axes.detach()).sign()
        axes = torch.cat([axes[:, :, :2], axes[:, :, 2:] * hand[:, None, None]], dim=2)
        elements = self.elements().to(moments)
        if self.kind == "stochastic" and training:
            drawn = torch.randint(len(elements), (axes.shape[0],), device=axes.device)
            return (axes @ elements[drawn])[None], torch.ones_like(values[None, :, 0])
        if self.kind == "weighted":
            shares = values / values.sum(1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
            ranks = elements.abs() @ torch.arange(3.0).to(values)
            weights = torch.softmax(self.sharpness * ranks @ shares.T, dim=0)
        else:
            weights = values.new_full((len(elements), values.shape[0]), 1 / len(elements))
        return axes @ elements[:, None], weights


FULL = Frames()


def average_over_frames(
    model: Callable[[Any], Outputs],
    batch: Any,
    frames: Frames = FULL,
    cutoff: float = math.inf,
    vectors: Iterable[str] = (),
    training: bool = False,
) -> Outputs:
    """A model's outputs on a batch, averaged over the frames of each system; what has a direction is turned back.

    `vectors`: fields of the points [N, 3] whose moments count as much as those of the edges, such as velocities; two
    points alone have no frame without. For outputs that are functions of the batch themselves. Forces that the model
    takes as a gradient would lack that of the frames: `scisci.models.framed.FramedPotential` has it.
    """
    senders, receivers = batch.edge_index
    edges = batch.pos[senders] + batch.edge_shift - batch.pos[receivers]
    moments = _of_trace_one(second_moments(edges, batch.batch[receivers], batch.num_graphs, cutoff))
    for name in vectors:
        moments = moments + _of_trace_one(second_moments(batch[name], batch.batch, batch.num_graphs))
    counts = (batch.ptr[1:] - batch.ptr[:-1]).to(batch.pos)
    centres = torch.zeros_like(moments[:, 0]).index_add(0, batch.batch, batch.pos) / counts[:, None]
    total: Outputs = {}
    for axes, weights in zip(*frames(moments, training), strict=True):
        into = axes.transpose(1, 2)
        acted, undo = apply(Element(into, -torch.einsum("bij,bj->bi", into, centres)), batch)
        for name, values in undo(model(acted)).items():
            share = weights if len(values) == len(weights) else weights[batch.batch]
            part = share.reshape(-1, *[1] * (values.dim() - 1)).to(values.dtype) * values
            total[name] = total[name] + part if name in total else part
    return total
