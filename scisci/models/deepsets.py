"""DeepSets: every point by itself and the mean over all of them, without edges.

Zaheer et al., "Deep sets" (2017): layers of their eq. 4, whose second term is a mean. Points enter with their absolute
positions in the box, nodes of trees with their features. The order of points means nothing, exactly; where the origin
of a periodic box lies and how its axes point means much, which is physically wrong and can be measured.
"""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from scisci.contracts.errors import UserError
from scisci.models.blocks.embedding import NodeEmbedding, PositionEmbedding
from scisci.models.blocks.graph import Features, Graph, Inputs, mean_over_systems
from scisci.models.blocks.norm import RMSNorm
from scisci.models.registry import register


class Layer(nn.Module):
    """Update every point by a function of itself and of the mean over its system."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels)
        self.own = nn.Linear(channels, 2 * channels)
        self.pooled = nn.Linear(channels, 2 * channels, bias=False)
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(2 * channels, channels))

    def forward(self, x: Float[Tensor, "nodes channels"], graph: Graph) -> Float[Tensor, "nodes channels"]:
        """[N, C] → [N, C]"""
        assert graph.system is not None
        assert graph.ptr is not None
        normed = self.norm(x)
        pooled = self.pooled(mean_over_systems(normed, graph.system, graph.ptr))
        return x + self.out(self.own(normed) + pooled.index_select(0, graph.system))


@register("deepsets")
class DeepSets(nn.Module):
    """Sets of points or nodes without edges; of points it sees the absolute positions in their box.

    Args:
        inputs: what nodes carry: scalars, vectors, positions.
        average_neighbors: has no meaning here.
        channels: width.
        layers: number of layers.
        cutoff: of the edges, which it does not see.
    """

    symmetry: ClassVar[dict[str, str]] = {
        "rotation": "none",
        "reflection": "none",
        "translation": "none",
        "permutation": "exact",
    }
    domains: ClassVar[tuple[str, ...]] = ("cloud", "tree")
    reads_positions: ClassVar[bool] = True
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 14, "layers": 2},
        "10k": {"channels": 23, "layers": 3},
        "30k": {"channels": 39, "layers": 3},
        "100k": {"channels": 63, "layers": 4},
        "300k": {"channels": 108, "layers": 4},
        "1M": {"channels": 180, "layers": 5},
    }

    def __init__(
        self, inputs: Inputs, average_neighbors: float, channels: int = 32, layers: int = 3, cutoff: float = 5.0
    ) -> None:
        super().__init__()
        if not (inputs.positions or inputs.scalars or inputs.vectors):
            raise UserError("deepsets tells nodes apart by what they carry, and these carry nothing; choose other data")
        self.inputs, self.cutoff = inputs, cutoff
        self.embedding = NodeEmbedding(inputs, channels, vectors="components")
        self.position = PositionEmbedding(channels) if inputs.positions else None
        self.layers = nn.ModuleList(Layer(channels) for _ in range(layers))
        self.norm = RMSNorm(channels)
        self.scalar_channels, self.vector_channels = channels, 0

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C]"""
        x = self.embedding(graph)
        if self.position is not None:
            x = x + self.position(graph)
        for layer in self.layers:
            x = layer(x, graph)
        return Features(self.norm(x), None)
