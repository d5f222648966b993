"""MPNN: unconstrained message passing on raw edge vectors.

Gilmer et al., "Neural message passing for quantum chemistry" (2017), with messages that see the components of the
edge vector. Translations and permutations are exact; rotations and reflections are left to the data.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scisci.models.blocks.embedding import NodeEmbedding
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.norm import RMSNorm
from scisci.models.blocks.radial import Envelope, RawVectorFeatures
from scisci.models.registry import register


class Layer(nn.Module):
    """Messages from sender, receiver and edge; their enveloped sum updates each atom."""

    def __init__(self, channels: int, edge_features: int, average_neighbors: float) -> None:
        super().__init__()
        self.norm_nodes = RMSNorm(channels)
        self.from_nodes = nn.Linear(channels, 2 * channels)
        self.from_edge = nn.Linear(edge_features, channels, bias=False)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(channels, channels), nn.SiLU())
        self.update = nn.Sequential(nn.Linear(2 * channels, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, channels))
        self.scale = average_neighbors**-0.5

    def forward(
        self,
        x: Float[Tensor, "atoms channels"],
        graph: Graph,
        edges: Float[Tensor, "edges features"],
        envelope: Float[Tensor, "edges 1"],
    ) -> Float[Tensor, "atoms channels"]:
        """[N, C] → [N, C]"""
        normed = self.norm_nodes(x)
        sender, receiver = self.from_nodes(normed).chunk(2, dim=1)
        inner = (
            sender.index_select(0, graph.senders) + receiver.index_select(0, graph.receivers) + self.from_edge(edges)
        )
        messages = self.message(inner) * envelope
        gathered = sum_to(messages, graph.receivers, x.shape[0]) * self.scale
        return x + self.update(torch.cat([normed, gathered], dim=1))


@register("mpnn")
class MPNN(nn.Module):
    """Unconstrained message passing: the network sees x, y and z of every edge and no symmetry but translation.

    Args:
        inputs: what nodes carry: elements, scalars, vectors.
        average_neighbors: mean number of edges per node, by whose root messages are scaled.
        channels: width.
        layers: number of message-passing layers.
        cutoff: Å.
        radial_basis: number of Bessel functions.
    """

    symmetry: ClassVar[dict[str, str]] = {
        "rotation": "none",
        "reflection": "none",
        "translation": "exact",
        "permutation": "exact",
    }
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 10, "layers": 2},
        "10k": {"channels": 17, "layers": 3},
        "30k": {"channels": 30, "layers": 3},
        "100k": {"channels": 50, "layers": 4},
        "300k": {"channels": 88, "layers": 4},
        "1M": {"channels": 144, "layers": 5},
    }
    WIDTHS: ClassVar[tuple[str, ...]] = ("channels",)

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
        self.embedding = NodeEmbedding(inputs, channels, vectors="components")
        self.edge_features = RawVectorFeatures(cutoff, radial_basis)
        self.envelope = Envelope(cutoff)
        self.layers = nn.ModuleList(
            Layer(channels, self.edge_features.features, average_neighbors) for _ in range(layers)
        )
        self.norm = RMSNorm(channels)
        self.scalar_channels, self.vector_channels = channels, 0

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C]"""
        x = self.embedding(graph)
        edges, envelope = self.edge_features(graph.vectors, graph.lengths), self.envelope(graph.lengths)[:, None]
        for layer in self.layers:
            x = layer(x, graph, edges, envelope)
        return Features(self.norm(x), None)
