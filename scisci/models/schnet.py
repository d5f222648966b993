"""SchNet: an invariant network of continuous-filter convolutions; of the geometry it sees distances alone.

Schütt et al., "SchNet: a continuous-filter convolutional neural network for modeling quantum interactions" (2017).
The convolution is the paper's eq. 1-2 and section 4, with the shifted softplus ln(exp(x)/2 + 1/2). Differences: the
distances are expanded in Bessel functions, kept within bounds for close pairs, instead of Gaussians; filters vanish
smoothly at the cutoff, since their network has no biases and the basis vanishes there; sums over neighbours are scaled.
Vectors are read off the edges at the end (`EdgeVectors`), and vectors that nodes carry enter by their scalar products
and their components along the edges.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scisci.models.blocks.bounded import BoundedBesselBasis
from scisci.models.blocks.embedding import NodeEmbedding, projections
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.linear import scaled_linear
from scisci.models.blocks.readout import EdgeVectors
from scisci.models.registry import register


class ShiftedSoftplus(nn.Module):
    """ln(exp(x)/2 + 1/2): a smooth rectifier that is zero at zero."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Elementwise."""
        return nn.functional.softplus(x) - math.log(2.0)


class Interaction(nn.Module):
    """Convolve neighbours' features with a filter generated from the distance, mix channels, add to the node."""

    def __init__(self, channels: int, edge_features: int, average_neighbors: float) -> None:
        super().__init__()
        # Without biases the filter of a vanishing basis vanishes.
        self.filter = nn.Sequential(
            scaled_linear(edge_features, channels, bias=False),
            ShiftedSoftplus(),
            scaled_linear(channels, channels, bias=False),
        )
        self.up = scaled_linear(channels, channels, bias=False)
        self.update = nn.Sequential(
            scaled_linear(channels, channels), ShiftedSoftplus(), scaled_linear(channels, channels)
        )
        self.norm = average_neighbors**-0.5

    def forward(
        self, x: Float[Tensor, "nodes channels"], graph: Graph, edges: Float[Tensor, "edges features"]
    ) -> Float[Tensor, "nodes channels"]:
        """[N, C], [E, F] → [N, C]"""
        messages = self.up(x).index_select(0, graph.senders) * self.filter(edges)
        return x + self.update(sum_to(messages, graph.receivers, x.shape[0]) * self.norm)


@register("schnet")
class SchNet(nn.Module):
    """Continuous-filter convolutions of distances: cheap and exactly invariant, blind to angles within one layer.

    Args:
        inputs: what nodes carry: elements, scalars, vectors.
        average_neighbors: mean number of edges per node, by whose root messages are scaled.
        channels: width of features and filters.
        layers: number of interactions.
        cutoff: Å.
        radial_basis: number of Bessel functions.
    """

    symmetry: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rotation", "reflection", "translation", "permutation"), "exact"
    )
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 15, "layers": 2},
        "10k": {"channels": 24, "layers": 3},
        "30k": {"channels": 38, "layers": 4},
        "100k": {"channels": 71, "layers": 4},
        "300k": {"channels": 113, "layers": 5},
        "1M": {"channels": 191, "layers": 6},
    }

    def __init__(
        self,
        inputs: Inputs,
        average_neighbors: float,
        channels: int = 32,
        layers: int = 3,
        cutoff: float = 5.0,
        radial_basis: int = 8,
    ) -> None:
        super().__init__()
        self.inputs, self.cutoff = inputs, cutoff
        self.embedding = NodeEmbedding(inputs, channels)
        self.radial = BoundedBesselBasis(cutoff, radial_basis)
        edge_features = radial_basis + 2 * inputs.vectors
        self.interactions = nn.ModuleList(
            Interaction(channels, edge_features, average_neighbors) for _ in range(layers)
        )
        self.vectors = EdgeVectors(inputs, channels, edge_features, average_neighbors)
        self.scalar_channels = self.vector_channels = channels

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C] and vectors [N, 3, C] in x, y, z order."""
        x, edges = self.embedding(graph), self.radial(graph.lengths)
        if self.inputs.vectors:
            along = projections(graph) * self.radial.envelope(graph.lengths)[:, None]
            edges = torch.cat([edges, along], dim=1)
        for interaction in self.interactions:
            x = interaction(x, graph, edges)
        return Features(x, self.vectors(x, graph, edges))
