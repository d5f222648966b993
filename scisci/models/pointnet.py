"""PointNet: the largest of what neighbours say, ball by ball, then of what all points say.

Qi et al., "PointNet++: deep hierarchical feature learning on point sets in a metric space" (2017): set abstraction with
a ball around every point, so that every point keeps features of its own. Neighbours enter with their coordinates from
the middle of the ball, and, if asked for, with absolute ones, as in much code built on theirs. What all points say is
joined to each of them, as in PointNet's segmentation (Qi et al., 2017). A maximum jumps where a point enters a ball, so
it is for clouds and not for potentials.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scisci.models.blocks.embedding import NodeEmbedding, PositionEmbedding
from scisci.models.blocks.graph import Features, Graph, Inputs
from scisci.models.blocks.norm import RMSNorm
from scisci.models.registry import register


def largest(values: Float[Tensor, "rows channels"], index: Int[Tensor, " rows"], size: int) -> Tensor:
    """[size, C] the largest of the rows that share an index."""
    whole = values.new_full((size, values.shape[1]), -math.inf)
    return whole.scatter_reduce(0, index[:, None].expand_as(values), values, "amax")


class Ball(nn.Module):
    """Update every point by the largest, channel by channel, of what the points in its ball say, itself among them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels)
        self.sender = nn.Linear(channels, 2 * channels)
        self.place = nn.Linear(3, 2 * channels, bias=False)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(2 * channels, channels))
        self.update = nn.Sequential(nn.SiLU(), nn.Linear(channels, channels))

    def forward(
        self, x: Float[Tensor, "nodes channels"], graph: Graph, places: Float[Tensor, "edges 3"]
    ) -> Float[Tensor, "nodes channels"]:
        """[N, C] → [N, C]; `places` are the neighbours' coordinates from the middle of the ball over its radius."""
        said = self.sender(self.norm(x))
        # A point lies in the middle of its own ball, whether or not it has neighbours.
        messages = torch.cat([said, said.index_select(0, graph.senders) + self.place(places)])
        receivers = torch.cat([torch.arange(len(x), device=x.device), graph.receivers])
        return x + self.update(largest(self.message(messages), receivers, len(x)))


@register("pointnet")
class PointNet(nn.Module):
    """Largest values over balls and over all points, of coordinates as they are: no symmetry but that of order.

    Args:
        inputs: what nodes carry: scalars, vectors, positions.
        average_neighbors: has no meaning here.
        channels: width.
        layers: number of layers of balls.
        absolute: whether points also enter with their positions in the box; then translations are no symmetry either.
        cutoff: radius of the balls.
    """

    symmetry: ClassVar[dict[str, str]] = {
        "rotation": "none",
        "reflection": "none",
        "translation": "none",
        "permutation": "exact",
    }
    domains: ClassVar[tuple[str, ...]] = ("cloud",)
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 14, "layers": 2},
        "10k": {"channels": 22, "layers": 3},
        "30k": {"channels": 40, "layers": 3},
        "100k": {"channels": 65, "layers": 4},
        "300k": {"channels": 113, "layers": 4},
        "1M": {"channels": 188, "layers": 5},
    }

    def __init__(
        self,
        inputs: Inputs,
        average_neighbors: float,
        channels: int = 32,
        layers: int = 3,
        absolute: bool = True,
        cutoff: float = 5.0,
    ) -> None:
        super().__init__()
        self.inputs, self.cutoff, self.reads_positions = inputs, cutoff, absolute
        if not absolute:
            self.symmetry = {**PointNet.symmetry, "translation": "exact"}  # type: ignore[misc]
        self.embedding = NodeEmbedding(inputs, channels, vectors="components")
        self.position = PositionEmbedding(channels) if absolute else None
        self.layers = nn.ModuleList(Ball(channels) for _ in range(layers))
        self.whole = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.norm = RMSNorm(channels)
        self.scalar_channels, self.vector_channels = channels, 0

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C]"""
        assert graph.system is not None
        assert graph.ptr is not None
        x = self.embedding(graph)
        if self.position is not None:
            x = x + self.position(graph)
        for layer in self.layers:
            x = layer(x, graph, graph.vectors / self.cutoff)
        whole = largest(self.whole(x), graph.system, len(graph.ptr) - 1)
        return Features(self.norm(x + whole.index_select(0, graph.system)), None)
