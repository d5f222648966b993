"""PaiNN: equivariant message passing with one scalar and one vector per channel, without tensor products.

Schütt, Unke & Gastegger, "Equivariant message passing for the prediction of tensorial properties and molecular
spectra" (2021): the message block is eq. 7-8, the update block eq. 9-10. Differences: the filters are a linear map,
without bias, of Bessel functions that are kept within bounds for close pairs and vanish smoothly at the cutoff, where
the paper's cosine has a kink in its second derivative; scalars are normalised before each network, sums over neighbours
and products of vectors are scaled; the norm of vectors is rounded off near zero, so that symmetric structures have
finite second derivatives; vectors that nodes carry are the first vector features.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scisci.models.blocks.bounded import BoundedBesselBasis
from scisci.models.blocks.embedding import NodeEmbedding, VectorEmbedding
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.linear import scaled_linear
from scisci.models.blocks.norm import RMSNorm
from scisci.models.registry import register

# Vectors much shorter than its root, 0.1, count as zero in their norm.
ROUNDING = 1e-2


class Message(nn.Module):
    """Gather from neighbours: their scalars, their vectors, and directions to them, each weighted by s_j and distance.

    With x_ij = phi(s_j) W(r_ij) split in three: ds_i = sum_j x^s, dv_i = sum_j v_j x^vv + r_ij/|r_ij| x^vs (eq. 7-8).
    The term of v_j is left out where vectors are known to be zero.
    """

    def __init__(self, channels: int, radial_basis: int, average_neighbors: float, vectors_in: bool) -> None:
        super().__init__()
        self.parts, self.channels = 3 if vectors_in else 2, channels
        self.nodes = nn.Sequential(
            RMSNorm(channels),
            scaled_linear(channels, channels),
            nn.SiLU(),
            scaled_linear(channels, self.parts * channels),
        )
        self.filter = scaled_linear(radial_basis, self.parts * channels, bias=False)
        self.scale = average_neighbors**-0.5

    def forward(
        self,
        scalars: Float[Tensor, "nodes channels"],
        vectors: Float[Tensor, "nodes 3 channels"],
        graph: Graph,
        direction: Float[Tensor, "edges 3 1"],
        radial: Float[Tensor, "edges basis"],
    ) -> tuple[Float[Tensor, "nodes channels"], Float[Tensor, "nodes 3 channels"]]:
        """Changes of scalars [N, C] and vectors [N, 3, C]."""
        weights = self.nodes(scalars).index_select(0, graph.senders) * self.filter(radial)
        parts = weights.split(self.channels, dim=1)
        moved = direction * parts[1][:, None]
        if self.parts == 3:
            moved = moved + vectors.index_select(0, graph.senders) * parts[2][:, None]
        nodes = scalars.shape[0]
        to_scalars, to_vectors = sum_to(parts[0], graph.receivers, nodes), sum_to(moved, graph.receivers, nodes)
        return to_scalars * self.scale, to_vectors * self.scale


class Update(nn.Module):
    """Let a node's scalars and vectors act on each other.

    ds = a^ss + a^sv <Uv, Vv>, dv = a^vv Uv, where U and V mix channels and a is a network of s and |Vv| (eq. 9-10).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.norm = RMSNorm(channels)
        self.mix = scaled_linear(channels, 2 * channels, bias=False)
        self.network = nn.Sequential(
            scaled_linear(2 * channels, channels), nn.SiLU(), scaled_linear(channels, 3 * channels, gain=0.5)
        )

    def forward(
        self, scalars: Float[Tensor, "nodes channels"], vectors: Float[Tensor, "nodes 3 channels"]
    ) -> tuple[Float[Tensor, "nodes channels"], Float[Tensor, "nodes 3 channels"]]:
        """Changes of scalars [N, C] and vectors [N, 3, C]."""
        first, second = self.mix(vectors).split(self.channels, dim=2)
        length = (second.square().sum(dim=1) + ROUNDING).sqrt()
        own, product, scale = self.network(torch.cat([self.norm(scalars), length], dim=1)).split(self.channels, dim=1)
        return own + product * (first * second).sum(dim=1) * 3**-0.5, first * scale[:, None]


@register("painn")
class PaiNN(nn.Module):
    """Scalars and vectors passed between neighbours: angles enter through products of vectors, at low cost.

    Args:
        inputs: what nodes carry: elements, scalars, vectors.
        average_neighbors: mean number of edges per node, by whose root messages are scaled.
        channels: channels of scalars and of vectors.
        layers: number of message and update blocks.
        cutoff: Å.
        radial_basis: number of Bessel functions.
    """

    symmetry: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rotation", "reflection", "translation", "permutation"), "exact"
    )
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 10, "layers": 2},
        "10k": {"channels": 16, "layers": 3},
        "30k": {"channels": 28, "layers": 3},
        "100k": {"channels": 46, "layers": 4},
        "300k": {"channels": 82, "layers": 4},
        "1M": {"channels": 133, "layers": 5},
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
        self.embedding, self.vectors = NodeEmbedding(inputs, channels), VectorEmbedding(inputs, channels)
        self.radial = BoundedBesselBasis(cutoff, radial_basis)
        self.messages = nn.ModuleList(
            Message(channels, radial_basis, average_neighbors, vectors_in=layer > 0 or inputs.vectors > 0)
            for layer in range(layers)
        )
        self.updates = nn.ModuleList(Update(channels) for _ in range(layers))
        self.scalar_channels = self.vector_channels = channels

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C] and vectors [N, 3, C] in x, y, z order."""
        scalars, vectors = self.embedding(graph), self.vectors(graph)
        radial, direction = self.radial(graph.lengths), (graph.vectors / graph.lengths[:, None])[:, :, None]
        for message, update in zip(self.messages, self.updates, strict=True):
            change, turn = message(scalars, vectors, graph, direction, radial)
            scalars, vectors = scalars + change, vectors + turn
            change, turn = update(scalars, vectors)
            scalars, vectors = scalars + change, vectors + turn
        return Features(scalars, vectors)
