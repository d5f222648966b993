"""PONITA: convolutions on positions and orientations, R^3 x S^2, with a fixed grid of orientations at every node.

Bekkers et al., "Fast, expressive SE(n) equivariant networks through weight-sharing in position-orientation space"
(2024). A feature is a function f(x, o). Turning the system turns its functions, which a grid can follow only
approximately: errors shrink as the grid grows.

Differences: kernels see an edge r through a radial basis times the powers up to 3 of the cosine of r and o, instead
of polynomials of r.o and |r - (r.o) o|. The latter has a kink on the axis o, which forces would feel, and polynomials
of lengths resolve bonds poorly. A node's own term has its own weight instead of being an edge of length zero. Weights
are as initialised: nothing is rescaled in the first step.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from scisci.models.blocks.embedding import NodeEmbedding, VectorEmbedding
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.radial import BesselBasis, Envelope
from scisci.models.blocks.sphere import orientation_grid
from scisci.models.registry import register

DEGREE = 3
# Root mean square of unit-variance inputs after GELU is about 1 / GAIN.
GAIN = 1.5


def kernel_linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear map whose outputs are of order one after GELU."""
    linear = nn.Linear(inputs, outputs, bias)
    nn.init.normal_(linear.weight, std=GAIN * inputs**-0.5)
    return linear


def powers(cosine: Float[Tensor, "rows orientations"]) -> Float[Tensor, "rows orientations powers"]:
    """[R, O] → [R, O, 4]: 1, c, c², c³"""
    square = cosine * cosine
    return torch.stack([torch.ones_like(cosine), cosine, square, square * cosine], dim=2)


class SpatialKernel(nn.Module):
    """Basis of kernels on edges seen from each orientation: a network of radial basis times powers of the cosine.

    The first layer is linear in both, so its radial part is computed once per edge and not once per orientation.
    """

    def __init__(self, width: int, cutoff: float, radial_basis: int) -> None:
        super().__init__()
        self.basis, self.envelope = BesselBasis(cutoff, radial_basis), Envelope(cutoff)
        self.radial = nn.Linear(radial_basis, (DEGREE + 1) * width, bias=False)
        nn.init.normal_(self.radial.weight, std=GAIN * ((DEGREE + 1) * radial_basis) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.out = kernel_linear(width, width)

    def forward(self, graph: Graph, grid: Float[Tensor, "orientations 3"]) -> Float[Tensor, "edges orientations width"]:
        """[E, O, K]; zero at the cutoff."""
        cosine = graph.vectors @ grid.T / graph.lengths[:, None]
        radial = self.radial(self.basis(graph.lengths)).unflatten(1, (DEGREE + 1, -1))
        hidden = gelu(powers(cosine) @ radial + self.bias)
        return gelu(self.out(hidden)) * self.envelope(graph.lengths)[:, None, None]


class FibreKernel(nn.Module):
    """Basis of kernels on pairs of orientations: a network of the powers of their cosine."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden, self.out = kernel_linear(DEGREE + 1, width, bias=False), kernel_linear(width, width)

    def forward(self, grid: Float[Tensor, "orientations 3"]) -> Float[Tensor, "orientations orientations width"]:
        """[O, O, K]"""
        return gelu(self.out(gelu(self.hidden(powers(grid @ grid.T)))))


class Block(nn.Module):
    """A ConvNeXt block: spatial, then fibre convolution channel by channel, then a network at every orientation."""

    def __init__(self, channels: int, average_neighbors: float) -> None:
        super().__init__()
        self.spatial = kernel_linear(channels, channels, bias=False)
        self.fibre = kernel_linear(channels, channels, bias=False)
        self.own = nn.Parameter(torch.ones(channels))
        self.norm = nn.LayerNorm(channels)
        self.network = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.layer_scale = nn.Parameter(torch.ones(channels))
        self.scale = average_neighbors**-0.5

    def forward(
        self,
        x: Float[Tensor, "nodes orientations channels"],
        graph: Graph,
        spatial: Float[Tensor, "edges orientations kernel"],
        fibre: Float[Tensor, "orientations orientations kernel"],
    ) -> Float[Tensor, "nodes orientations channels"]:
        """[N, O, C] → [N, O, C]"""
        messages = x.index_select(0, graph.senders) * self.spatial(spatial)
        gathered = sum_to(messages, graph.receivers, x.shape[0]) * self.scale + x * self.own
        turned = torch.einsum("noc,poc->npc", gathered, self.fibre(fibre)) / x.shape[1]
        return x + self.network(self.norm(turned)) * self.layer_scale


@register("ponita")
class PONITA(nn.Module):
    """Convolutions on positions and orientations: scalars on a sphere per node instead of irreps.

    Args:
        inputs: what nodes carry: elements, scalars, vectors (which enter as functions v.o of the orientation).
        average_neighbors: mean number of edges per node, by whose root messages are scaled.
        channels: width of features and kernels.
        layers: number of blocks.
        orientations: points of the grid, an even number; more are slower and closer to exact symmetry.
        cutoff: Å.
        radial_basis: number of Bessel functions.
    """

    grid: Tensor
    symmetry: ClassVar[dict[str, str]] = {
        "rotation": "approximate",
        "reflection": "approximate",
        "translation": "exact",
        "permutation": "exact",
    }
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 10, "layers": 2},
        "10k": {"channels": 16, "layers": 3},
        "30k": {"channels": 30, "layers": 3},
        "100k": {"channels": 48, "layers": 4},
        "300k": {"channels": 84, "layers": 4},
        "1M": {"channels": 138, "layers": 5},
    }

    def __init__(
        self,
        inputs: Inputs,
        average_neighbors: float,
        channels: int = 32,
        layers: int = 3,
        orientations: int = 20,
        cutoff: float = 5.0,
        radial_basis: int = 8,
    ) -> None:
        super().__init__()
        self.inputs, self.cutoff = inputs, cutoff
        # Kept in float64: a rounded grid would not be closed under inversion in a model turned to float64 later.
        self.register_buffer("grid", torch.tensor(orientation_grid(orientations)), persistent=False)
        self.embedding = NodeEmbedding(inputs, channels)
        self.vectors = VectorEmbedding(inputs, channels) if inputs.vectors else None
        self.spatial, self.fibre = SpatialKernel(channels, cutoff, radial_basis), FibreKernel(channels)
        self.blocks = nn.ModuleList(Block(channels, average_neighbors) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.scalar_channels, self.vector_channels = channels, channels

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C], the mean over orientations, and vectors [N, 3, C], the mean of 3 f(o) o."""
        grid = self.grid.to(graph.vectors.dtype)
        x = self.embedding(graph)[:, None].expand(-1, grid.shape[0], -1)
        if self.vectors is not None:
            x = x + torch.einsum("nic,oi->noc", self.vectors(graph), grid)
        spatial, fibre = self.spatial(graph, grid), self.fibre(grid)
        for block in self.blocks:
            x = block(x, graph, spatial, fibre)
        x = self.norm(x)
        return Features(x.mean(dim=1), torch.einsum("noc,oi->nic", x, grid) * (3 / len(grid)))
