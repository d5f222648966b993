"""GIN: a node's neighbours as a multiset, summed; as strong as the Weisfeiler-Leman test of isomorphism.

Xu et al., "How powerful are graph neural networks?" (2019), eq. 4.1, with the features of all layers joined as in their
eq. 4.2. Edges keep their direction: in a merger tree a halo sees those it was made of. Where an edge points in space
and how long it is, is not seen: on point clouds it counts neighbours within the cutoff, and is invariant.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scisci.models.blocks.embedding import NodeEmbedding
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.norm import RMSNorm
from scisci.models.registry import register


class Layer(nn.Module):
    """A network of (1 + epsilon) times the node plus the sum over its senders, and over its receivers if asked for.

    The norm comes after the first linear map, which keeps multisets apart that differ in size alone.
    """

    def __init__(self, channels: int, both_ways: bool) -> None:
        super().__init__()
        self.epsilon = nn.Parameter(torch.zeros(()))
        self.backward = nn.Linear(channels, channels, bias=False) if both_ways else None
        self.network = nn.Sequential(
            nn.Linear(channels, 2 * channels), RMSNorm(2 * channels), nn.SiLU(), nn.Linear(2 * channels, channels)
        )

    def gathered(self, x: Float[Tensor, "nodes channels"], graph: Graph) -> Float[Tensor, "nodes channels"]:
        """[N, C]: what the network sees of each node and its neighbours."""
        found = (1 + self.epsilon) * x + sum_to(x.index_select(0, graph.senders), graph.receivers, len(x))
        if self.backward is None:
            return found
        return found + sum_to(self.backward(x).index_select(0, graph.receivers), graph.senders, len(x))

    def forward(self, x: Float[Tensor, "nodes channels"], graph: Graph) -> Float[Tensor, "nodes channels"]:
        """[N, C] → [N, C]"""
        return self.network(self.gathered(x, graph))


@register("gin")
class GIN(nn.Module):
    """Sums over neighbours, which tell multisets apart: of trees their shape, of clouds the numbers of neighbours.

    Args:
        inputs: what nodes carry: scalars, vectors.
        average_neighbors: has no meaning here, where sums are not scaled.
        channels: width.
        layers: number of layers, and of edges that a node sees along.
        both_ways: whether nodes also see along edges backwards: halos what they become.
        cutoff: points further apart have no edge; trees bring their edges with them.
    """

    symmetry: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rotation", "reflection", "translation", "permutation"), "exact"
    )
    domains: ClassVar[tuple[str, ...]] = ("cloud", "tree")
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 15, "layers": 2},
        "10k": {"channels": 23, "layers": 3},
        "30k": {"channels": 41, "layers": 3},
        "100k": {"channels": 66, "layers": 4},
        "300k": {"channels": 114, "layers": 4},
        "1M": {"channels": 190, "layers": 5},
    }

    def __init__(
        self,
        inputs: Inputs,
        average_neighbors: float,
        channels: int = 32,
        layers: int = 3,
        both_ways: bool = False,
        cutoff: float = 5.0,
    ) -> None:
        super().__init__()
        self.inputs, self.cutoff = inputs, cutoff
        self.embedding = NodeEmbedding(inputs, channels, vectors="products")
        # Sums tell multisets apart after a function that is not linear; of features as they are, only their sums show.
        self.first = nn.Sequential(nn.SiLU(), nn.Linear(channels, channels))
        self.layers = nn.ModuleList(Layer(channels, both_ways) for _ in range(layers))
        self.join = nn.Linear((layers + 1) * channels, channels)
        self.scalar_channels, self.vector_channels = channels, 0

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C]"""
        seen = [self.first(self.embedding(graph))]
        for layer in self.layers:
            seen.append(layer(seen[-1], graph))
        return Features(self.join(torch.cat(seen, dim=1)), None)
