"""eSEN: an equivariant network whose messages are SO(2) convolutions in the frames of edges, smooth throughout.

Fu et al., "Learning smooth and expressive interatomic potentials for physical property prediction" (2025), built on
the convolutions of Passaro & Zitnick, "Reducing SO(3) convolutions to SO(2)" (2023). Nonlinearities are gates, never
functions on a grid of the sphere, and messages end in an envelope, so energies have smooth derivatives. Differences:
convolutions keep reflections unless `reflections=False` (the papers keep rotations alone), frames come from two smooth
charts instead of random ones, and elements reach the radial networks through the nodes' embedding.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scisci.models.blocks.embedding import NodeEmbedding, VectorEmbedding
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.irreps import Gate, IrrepsLinear, hidden_irreps
from scisci.models.blocks.norm import EquivariantRMSNorm
from scisci.models.blocks.radial import BesselBasis, Envelope
from scisci.models.blocks.so2 import EdgeFrame, SO2Linear, by_order
from scisci.models.registry import register


class RadialNetwork(nn.Module):
    """Hidden features of an edge → weights of order one."""

    def __init__(self, hidden: int, weights: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(hidden, hidden), nn.Linear(hidden, weights)
        nn.init.normal_(self.out.weight, std=1.7 / math.sqrt(hidden))

    def forward(self, edges: Float[Tensor, "edges hidden"]) -> Float[Tensor, "edges weights"]:
        """[E, hidden] → [E, weights]"""
        return self.out(nn.functional.silu(self.hidden(edges)))


class EdgeEmbedding(nn.Module):
    """Invariant features of an edge: its length and what its two ends are."""

    def __init__(self, channels: int, cutoff: float, basis: int, hidden: int) -> None:
        super().__init__()
        self.basis = BesselBasis(cutoff, basis)
        self.length = nn.Linear(basis, hidden)
        self.ends = nn.Linear(channels, 2 * hidden, bias=False)

    def forward(self, nodes: Float[Tensor, "nodes channels"], graph: Graph) -> Float[Tensor, "edges hidden"]:
        """[N, C] → [E, hidden]"""
        sender, receiver = self.ends(nodes).chunk(2, dim=1)
        inner = (
            self.length(self.basis(graph.lengths))
            + sender.index_select(0, graph.senders)
            + receiver.index_select(0, graph.receivers)
        )
        return nn.functional.silu(inner)


class EdgeConvolution(nn.Module):
    """Messages from both ends of an edge: SO(2) convolution with radial weights, gate, SO(2) convolution."""

    def __init__(self, l_max: int, m_max: int, channels: int, hidden: int, reflections: bool) -> None:
        super().__init__()
        self.l_max, self.m_max, self.channels = l_max, m_max, channels
        # One radial weight per order, degree and channel of the input.
        self.widths = [(l_max + 1 - m) * 2 * channels for m in range(m_max + 1)]
        self.radial = RadialNetwork(hidden, sum(self.widths))
        self.first = SO2Linear(l_max, m_max, 2 * channels, channels, l_max * channels, reflections)
        self.second = SO2Linear(l_max, m_max, channels, channels, 0, reflections)

    def forward(
        self,
        x: Float[Tensor, "nodes j channels"],
        graph: Graph,
        frames: Float[Tensor, "edges rows j"],
        edges: Float[Tensor, "edges hidden"],
        envelope: Float[Tensor, "edges 1 1"],
    ) -> Float[Tensor, "edges j channels"]:
        """[N, J, C] → [E, J, C]"""
        ends = torch.cat([x.index_select(0, graph.senders), x.index_select(0, graph.receivers)], dim=2)
        orders = by_order(torch.bmm(frames, ends), self.l_max, self.m_max)
        weights = self.radial(edges)[:, None].split(self.widths, dim=2)
        *hidden, gates = self.first([order * weight for order, weight in zip(orders, weights, strict=True)])
        out = self.second(self.gate(hidden, gates))[:-1]
        rows = torch.cat([order.unflatten(2, (-1, self.channels)).flatten(1, 2) for order in out], dim=1)
        return torch.bmm(frames.transpose(1, 2), rows * envelope)

    def gate(self, orders: list[Tensor], gates: Float[Tensor, "edges 1 gates"]) -> list[Tensor]:
        """SiLU on scalars; every other degree is scaled by sigmoids of invariants, all its orders alike."""
        gates = 1.7 * torch.sigmoid(gates)
        scalars, rest = orders[0].split([self.channels, self.l_max * self.channels], dim=2)
        zero = torch.cat([1.7 * nn.functional.silu(scalars), rest * gates], dim=2)
        return [zero, *(order * gates[:, :, m * self.channels :] for m, order in enumerate(orders[1:]))]


class Block(nn.Module):
    """Messages between nodes, then a feed-forward network of each node; both on normalised features, with residuals."""

    def __init__(
        self, l_max: int, m_max: int, channels: int, hidden: int, reflections: bool, average_neighbors: float
    ) -> None:
        super().__init__()
        irreps = hidden_irreps(l_max, parity=False)
        copies = [1] * len(irreps)
        self.norm_edges = EquivariantRMSNorm(l_max, channels)
        self.convolution = EdgeConvolution(l_max, m_max, channels, hidden, reflections)
        self.scale = average_neighbors**-0.5
        self.norm_nodes = EquivariantRMSNorm(l_max, channels)
        self.feed_forward = nn.Sequential(
            IrrepsLinear(irreps, copies, channels, channels),
            Gate(irreps, channels),
            IrrepsLinear(irreps, copies, channels, channels),
        )

    def forward(self, x: Float[Tensor, "nodes j channels"], graph: Graph, *edge: Tensor) -> Tensor:
        """[N, J, C] → [N, J, C]"""
        messages = self.convolution(self.norm_edges(x), graph, *edge)
        x = x + sum_to(messages, graph.receivers, x.shape[0]) * self.scale
        return x + self.feed_forward(self.norm_nodes(x))


@register("esen")
class ESEN(nn.Module):
    """SO(2) convolutions in edge frames: E(3)-equivariant, expressive at high degrees, smooth.

    Args:
        inputs: what nodes carry: elements, scalars, vectors.
        average_neighbors: mean number of edges per node, by whose root messages are scaled.
        channels: channels of every degree.
        layers: number of blocks.
        l_max: highest degree of features, 1 or more.
        m_max: highest order kept in edge frames; one above `l_max` is the same as `l_max`.
        reflections: keep reflections exactly; otherwise convolutions have the papers' weights between m and -m, which
            keep rotations alone.
        cutoff: Å.
        radial_basis: number of Bessel functions.
        radial_hidden: width of the radial networks.
    """

    symmetry: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rotation", "reflection", "translation", "permutation"), "exact"
    )
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        "3k": {"channels": 4, "layers": 2, "radial_hidden": 8},
        "10k": {"channels": 8, "layers": 2, "radial_hidden": 16},
        "30k": {"channels": 14, "layers": 2, "radial_hidden": 16},
        "100k": {"channels": 22, "layers": 3, "radial_hidden": 32},
        "300k": {"channels": 40, "layers": 3, "radial_hidden": 32},
        "1M": {"channels": 60, "layers": 4, "radial_hidden": 64},
    }

    def __init__(
        self,
        inputs: Inputs,
        average_neighbors: float,
        channels: int = 14,
        layers: int = 2,
        l_max: int = 2,
        m_max: int = 2,
        reflections: bool = True,
        cutoff: float = 5.0,
        radial_basis: int = 8,
        radial_hidden: int = 16,
    ) -> None:
        super().__init__()
        if l_max < 1:
            raise ValueError("l_max must be 1 or more, since edges have no direction without vectors")
        m_max = min(m_max, l_max)
        if not reflections:
            self.symmetry = {**type(self).symmetry, "reflection": "none"}  # type: ignore[misc]
        self.inputs, self.cutoff = inputs, cutoff
        self.channels, self.degrees = channels, l_max + 1
        self.embedding = NodeEmbedding(inputs, channels)
        self.vectors = VectorEmbedding(inputs, channels)
        self.frames = EdgeFrame(l_max, m_max)
        self.envelope = Envelope(cutoff)
        self.edges = EdgeEmbedding(channels, cutoff, radial_basis, radial_hidden)
        self.neighborhood = RadialNetwork(radial_hidden, self.degrees * channels)
        self.scale = average_neighbors**-0.5
        self.blocks = nn.ModuleList(
            Block(l_max, m_max, channels, radial_hidden, reflections, average_neighbors) for _ in range(layers)
        )
        self.norm = EquivariantRMSNorm(l_max, channels)
        self.scalar_channels, self.vector_channels = channels, channels

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C] and vectors [N, 3, C] in x, y, z order."""
        nodes = self.embedding(graph)
        edges, frames = self.edges(nodes, graph), self.frames(graph.vectors)
        envelope = self.envelope(graph.lengths)[:, None, None]
        # Where the neighbours are: radial functions times harmonics, which in the frames are the rows of order 0.
        weights = self.neighborhood(edges).unflatten(1, (self.degrees, self.channels)) * envelope
        around = torch.bmm(frames[:, : self.degrees].transpose(1, 2), weights)
        x = sum_to(around, graph.receivers, nodes.shape[0]) * self.scale
        own = [nodes[:, None], self.vectors(graph)]
        x = x + torch.cat([*own, x.new_zeros(x.shape[0], x.shape[1] - 4, self.channels)], dim=1)
        for block in self.blocks:
            x = block(x, graph, frames, edges, envelope)
        x = self.norm(x)
        return Features(x[:, 0], x[:, 1:4])
