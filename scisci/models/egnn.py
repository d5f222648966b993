"""EGNN: every node moves copies of its own position, and all the network sees of the geometry is their distances.

Satorras, Hoogeboom & Welling, "E(n) equivariant graph neural networks" (2021), eq. 3-7, with several coordinates per
node as in Levy et al., "Using multiple vector channels improves E(n)-equivariant graph neural networks" (2023). The
coordinates are kept as displacements from the node, so periodic edges need no positions. Differences from the papers:
messages vanish smoothly at the cutoff; the first distance also enters through Bessel functions, the others as
ln(1 + d²) and differences as x / sqrt(1 + d²), which keeps both tame at any distance; a message weights each coordinate
and a matrix mixes them after the sum, where Levy et al. have a matrix per edge; features are normalised before use and
sums over neighbours are scaled.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scisci.models.blocks.embedding import NodeEmbedding, VectorEmbedding
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.linear import scaled_linear
from scisci.models.blocks.norm import RMSNorm
from scisci.models.blocks.radial import BesselBasis
from scisci.models.registry import register


class Layer(nn.Module):
    """Messages of both nodes' features and the distances of their coordinates; their sums change both.

    Args:
        channels: width of features and messages.
        radial_basis: number of Bessel functions of the edge length.
        coordinates: coordinates per node that come in and that go out.
        vectors: whether nodes carry vectors that push the coordinates.
        average_neighbors: mean number of edges per node, by whose root sums are scaled.
    """

    def __init__(
        self, channels: int, radial_basis: int, coordinates: tuple[int, int], vectors: bool, average_neighbors: float
    ) -> None:
        super().__init__()
        before, after = coordinates
        self.channels = channels
        self.norm = RMSNorm(channels)
        self.nodes = scaled_linear(channels, 2 * channels)
        self.edge = scaled_linear(radial_basis + before, channels, bias=False, gain=2.0)
        self.message = nn.Sequential(nn.SiLU(), scaled_linear(channels, channels), nn.SiLU())
        # No bias, so that no coordinate moves for a message that has vanished.
        self.weights = scaled_linear(channels, after, bias=False)
        self.mix = scaled_linear(after, after, bias=False)
        self.push = scaled_linear(channels, after) if vectors else None
        self.update = nn.Sequential(scaled_linear(2 * channels, channels), nn.SiLU(), scaled_linear(channels, channels))
        self.scale = average_neighbors**-0.5

    def forward(
        self,
        x: Float[Tensor, "nodes channels"],
        differences: Float[Tensor, "edges 3 before"],
        carried: Float[Tensor, "nodes 3 after"],
        graph: Graph,
        radial: Float[Tensor, "edges basis"],
        envelope: Float[Tensor, "edges 1"],
    ) -> tuple[Float[Tensor, "nodes channels"], Float[Tensor, "nodes 3 after"]]:
        """Changes of features [N, C] and of coordinates [N, 3, K]."""
        normed, stretch = self.norm(x), 1 + differences.square().sum(dim=1)
        sender, receiver = self.nodes(normed).split(self.channels, dim=1)
        inner = sender.index_select(0, graph.senders) + receiver.index_select(0, graph.receivers)
        messages = self.message(inner + self.edge(torch.cat([radial, stretch.log()], dim=1))) * envelope
        pulls = (differences * stretch.rsqrt()[:, None]) * self.weights(messages)[:, None]
        nodes = x.shape[0]
        move = self.mix(sum_to(pulls, graph.receivers, nodes) * self.scale)
        if self.push is not None:
            move = move + carried * self.push(normed)[:, None]
        gathered = sum_to(messages, graph.receivers, nodes) * self.scale
        return self.update(torch.cat([normed, gathered], dim=1)), move


@register("egnn")
class EGNN(nn.Module):
    """Messages from distances between moving coordinates: exactly E(3)-equivariant without spherical harmonics.

    Args:
        inputs: what nodes carry: elements, scalars, vectors.
        average_neighbors: mean number of edges per node, by whose root messages are scaled.
        channels: width of features and messages.
        layers: number of message-passing layers.
        coordinates: coordinates per node that are moved independently.
        length_scale: Å, or the unit of the positions: distances well beyond it count by their logarithm.
        cutoff: Å; for small point clouds it may exceed their size.
        radial_basis: number of Bessel functions.
    """

    symmetry: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rotation", "reflection", "translation", "permutation"), "exact"
    )
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 13, "layers": 2, "coordinates": 6},
        "10k": {"channels": 20, "layers": 3, "coordinates": 8},
        "30k": {"channels": 36, "layers": 3, "coordinates": 12},
        "100k": {"channels": 60, "layers": 4, "coordinates": 16},
        "300k": {"channels": 106, "layers": 4, "coordinates": 24},
        "1M": {"channels": 174, "layers": 5, "coordinates": 32},
    }

    def __init__(
        self,
        inputs: Inputs,
        average_neighbors: float,
        channels: int = 32,
        layers: int = 3,
        coordinates: int = 8,
        length_scale: float = 1.0,
        cutoff: float = 5.0,
        radial_basis: int = 8,
    ) -> None:
        super().__init__()
        self.inputs, self.cutoff, self.length_scale = inputs, cutoff, length_scale
        self.embedding, self.carried = NodeEmbedding(inputs, channels), VectorEmbedding(inputs, coordinates)
        self.radial = BesselBasis(cutoff, radial_basis)
        has_vectors = inputs.vectors > 0
        # Vectors that nodes carry set their coordinates apart; without any, all start as one, at the node.
        first = coordinates if has_vectors else 1
        self.layers = nn.ModuleList(
            Layer(channels, radial_basis, (before, coordinates), has_vectors, average_neighbors)
            for before in [first, *[coordinates] * (layers - 1)]
        )
        self.norm = RMSNorm(channels)
        self.scalar_channels, self.vector_channels = channels, coordinates

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C] and vectors [N, 3, K], the displacements of the coordinates, in x, y, z order."""
        x, carried = self.embedding(graph), self.carried(graph)
        radial, envelope = self.radial(graph.lengths), self.radial.envelope(graph.lengths)[:, None]
        edges, moved = (graph.vectors / self.length_scale)[:, :, None], carried
        for number, layer in enumerate(self.layers):
            differences = edges
            if number > 0 or self.inputs.vectors:
                differences = edges + moved.index_select(0, graph.senders) - moved.index_select(0, graph.receivers)
            change, move = layer(x, differences, carried, graph, radial, envelope)
            x, moved = x + change, moved + move
        return Features(self.norm(x), moved)
