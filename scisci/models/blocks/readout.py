"""Vectors from invariant features: what lets an invariant network answer vector targets."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from scisci.models.blocks.embedding import VectorEmbedding
from scisci.models.blocks.graph import Graph, Inputs, sum_to
from scisci.models.blocks.linear import scaled_linear


class EdgeVectors(nn.Module):
    """Sum unit vectors to the neighbours, weighted by invariants of both nodes and of the edge: exactly equivariant.

    Channel c of node i is a_c(h_i) sum_j b_c(h_j) w_c(e_ij) r_ij / |r_ij| + g_c(h_i) v_ic with linear a, b, w and g;
    v are mixtures of the vectors that the node carries, absent where it carries none. Edge features e must vanish at
    the cutoff.

    Args:
        inputs: what nodes carry.
        channels: channels of h and of the vectors.
        edge_features: number of edge features.
        average_neighbors: mean number of edges per node, by whose root the sum is scaled.
    """

    def __init__(self, inputs: Inputs, channels: int, edge_features: int, average_neighbors: float) -> None:
        super().__init__()
        self.channels = channels
        self.nodes = scaled_linear(channels, 2 * channels)
        self.edge = scaled_linear(edge_features, channels, bias=False)
        self.gate = scaled_linear(channels, channels) if inputs.vectors else None
        self.own = VectorEmbedding(inputs, channels)
        self.norm = average_neighbors**-0.5

    def forward(
        self, x: Float[Tensor, "nodes channels"], graph: Graph, edges: Float[Tensor, "edges features"]
    ) -> Float[Tensor, "nodes 3 channels"]:
        """[N, C], [E, F] → [N, 3, C]"""
        receiver, sender = self.nodes(x).split(self.channels, dim=1)
        weights = sender.index_select(0, graph.senders) * self.edge(edges)
        direction = graph.vectors / graph.lengths[:, None]
        summed = sum_to(direction[:, :, None] * weights[:, None], graph.receivers, x.shape[0])
        vectors = summed * (receiver * self.norm)[:, None]
        return vectors if self.gate is None else vectors + self.own(graph) * self.gate(x)[:, None]
