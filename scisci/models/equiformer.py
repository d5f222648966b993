"""Equiformer: attention over neighbours whose messages, logits and values come from equivariant tensor products.

Liao & Smidt, "Equiformer: Equivariant graph attention transformer for 3D atomistic graphs" (2023): equivariant graph
attention with MLP attention (section 4.2), equivariant normalisation, gates and feed-forward networks, each with a
residual connection. Differences: every irrep has the same number of channels; a value is gated after one tensor
product, without the second one; the softmax is weighted by envelopes and has a null neighbour of logit zero, so that
energies stay smooth when an atom crosses the cutoff and fade when the last one leaves; for the same reason all degrees
are normalised together; there is no dropout.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from e3nn import o3
from jaxtyping import Float
from torch import Tensor, nn

from scisci.models.blocks.attention import envelope_softmax
from scisci.models.blocks.embedding import NodeEmbedding, VectorEmbedding
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.irreps import EdgeTensorProduct, Gate, IrrepsLinear, PathWeights, hidden_irreps
from scisci.models.blocks.norm import EquivariantRMSNorm
from scisci.models.blocks.radial import BesselBasis, Envelope
from scisci.models.registry import register


def smooth_leaky_relu(x: Tensor, slope: float = 0.2) -> Tensor:
    """x for large x, slope times x for very negative x, with all derivatives in between."""
    return x * (slope + (1 - slope) * torch.sigmoid(x))


class Attention(nn.Module):
    """Equivariant graph attention: the tensor product of both ends' features with the harmonics of the edge.

    Its scalars give the logits, all of it the values.
    """

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps: o3.Irreps,
        harmonics: o3.Irreps,
        channels: int,
        heads: int,
        radial: tuple[int, int],
        average_neighbors: float,
    ) -> None:
        super().__init__()
        self.heads, self.width = heads, channels // heads
        self.product = EdgeTensorProduct(irreps_in, harmonics, irreps)
        copies = self.product.copies
        one = [1] * len(irreps_in)
        self.sender, self.receiver = (IrrepsLinear(irreps_in, one, channels, channels) for _ in range(2))
        self.radial = PathWeights(len(self.product.paths), channels, *radial)
        self.hidden = nn.Linear(copies[0] * channels, channels)
        self.query = nn.Parameter(torch.randn(heads, self.width) / self.width**0.5)
        self.value, self.gate = IrrepsLinear(irreps, copies, channels, channels), Gate(irreps, channels)
        self.out = IrrepsLinear(irreps, [1] * len(irreps), channels, channels)
        # The mean of so many independent values times this is of order one.
        self.scale = average_neighbors**0.5

    def forward(
        self,
        x: Float[Tensor, "nodes j channels"],
        graph: Graph,
        harmonics: Float[Tensor, "edges h"],
        radial: Float[Tensor, "edges basis"],
        envelope: Float[Tensor, " edges"],
    ) -> Float[Tensor, "nodes j_out channels"]:
        """[N, J, C] → [N, J', C]"""
        ends = self.sender(x).index_select(0, graph.senders) + self.receiver(x).index_select(0, graph.receivers)
        messages = self.product(ends, harmonics, self.radial(radial))
        hidden = smooth_leaky_relu(self.hidden(messages[:, : self.product.copies[0]].flatten(1)))
        logits = (hidden.unflatten(1, (self.heads, self.width)) * self.query).sum(dim=2)
        weights, _ = envelope_softmax(logits, logits.new_zeros(x.shape[0], self.heads), envelope, graph)
        values = self.gate(self.value(messages)).unflatten(2, (self.heads, self.width)) * weights[:, None, :, None]
        return self.out(sum_to(values.flatten(2), graph.receivers, x.shape[0]) * self.scale)


class Block(nn.Module):
    """Attention, then a gated feed-forward network, each on normalised features and added to the residual stream."""

    def __init__(self, irreps_in: o3.Irreps, irreps: o3.Irreps, channels: int, attention: nn.Module) -> None:
        super().__init__()
        one = [1] * len(irreps)
        self.rows = irreps.dim
        self.norm_attention = EquivariantRMSNorm(irreps_in.lmax, channels)
        self.attention = attention
        self.norm_feed_forward = EquivariantRMSNorm(irreps.lmax, channels)
        self.feed_forward = nn.Sequential(
            IrrepsLinear(irreps, one, channels, 2 * channels),
            Gate(irreps, 2 * channels),
            IrrepsLinear(irreps, one, 2 * channels, channels),
        )

    def forward(self, x: Float[Tensor, "nodes j channels"], graph: Graph, *edge: Tensor) -> Tensor:
        """[N, J, C] → [N, J', C]; only the first J' rows go on."""
        x = x[:, : self.rows] + self.attention(self.norm_attention(x), graph, *edge)
        return x + self.feed_forward(self.norm_feed_forward(x))


class Neighborhood(nn.Module):
    """Where the neighbours are: the sum over edges of radial functions times harmonics (edge-degree embedding)."""

    degree_of_row: Tensor

    def __init__(self, l_max: int, channels: int, radial: tuple[int, int], average_neighbors: float) -> None:
        super().__init__()
        basis, hidden = radial
        self.degrees, self.channels, self.scale = l_max + 1, channels, average_neighbors**-0.5
        self.hidden = nn.Linear(basis, hidden, bias=False)
        self.out = nn.Linear(hidden, (l_max + 1) * channels, bias=False)
        nn.init.normal_(self.out.weight, std=hidden**-0.5)
        degree = torch.repeat_interleave(2 * torch.arange(l_max + 1) + 1)
        self.register_buffer("degree_of_row", degree, persistent=False)

    def forward(self, graph: Graph, harmonics: Tensor, radial: Tensor, nodes: int) -> Float[Tensor, "nodes j channels"]:
        """[N, J, C]"""
        weights = self.out(nn.functional.silu(self.hidden(radial))).unflatten(1, (self.degrees, self.channels))
        messages = harmonics[:, :, None] * weights[:, self.degree_of_row]
        return sum_to(messages, graph.receivers, nodes) * self.scale


@register("equiformer")
class Equiformer(nn.Module):
    """A transformer over atoms with irreps up to `l_max`: exactly E(3)-equivariant attention.

    Args:
        inputs: what nodes carry: elements, scalars, vectors.
        average_neighbors: mean number of edges per node, by whose root sums and means over them are scaled.
        channels: channels of every irrep; a multiple of `heads`.
        layers: number of blocks; the last keeps only what the readout needs.
        l_max: highest degree of features and harmonics; 0 is an invariant network.
        heads: attention heads.
        cutoff: Å; pairs beyond it do not attend to each other.
        radial_basis: number of Bessel functions.
        radial_hidden: width of the radial networks.
        vector_output: whether the last block gives vectors too.
    """

    symmetry: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rotation", "reflection", "translation", "permutation"), "exact"
    )
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 4, "layers": 2, "heads": 2, "radial_hidden": 16},
        "10k": {"channels": 8, "layers": 2, "heads": 2, "radial_hidden": 32},
        "30k": {"channels": 16, "layers": 2, "heads": 4, "radial_hidden": 32},
        "100k": {"channels": 24, "layers": 3, "heads": 4, "radial_hidden": 32},
        "300k": {"channels": 40, "layers": 3, "heads": 8, "radial_hidden": 64},
        "1M": {"channels": 72, "layers": 4, "heads": 4, "radial_hidden": 64},
    }

    def __init__(
        self,
        inputs: Inputs,
        average_neighbors: float,
        channels: int = 20,
        layers: int = 2,
        l_max: int = 2,
        heads: int = 4,
        cutoff: float = 5.0,
        radial_basis: int = 8,
        radial_hidden: int = 16,
        vector_output: bool = True,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels ({channels}) must be a multiple of heads ({heads})")
        self.inputs, self.cutoff = inputs, cutoff
        self.channels, self.degrees = channels, l_max + 1
        self.embedding = NodeEmbedding(inputs, channels)
        # Vectors of the nodes enter as features of degree 1; an invariant network sees their products alone.
        self.vectors = VectorEmbedding(inputs, channels) if inputs.vectors and l_max > 0 else None
        hidden, harmonics = hidden_irreps(l_max, parity=False), o3.Irreps.spherical_harmonics(l_max)
        self.harmonics = o3.SphericalHarmonics(harmonics, normalize=True, normalization="component")
        self.basis, self.envelope = BesselBasis(cutoff, radial_basis), Envelope(cutoff)
        radial = (radial_basis, radial_hidden)
        self.neighborhood = Neighborhood(l_max, channels, radial, average_neighbors)
        readable = min(l_max, 1) if vector_output else 0
        irreps = [*[hidden] * layers, hidden_irreps(readable, parity=False)]
        self.blocks = nn.ModuleList(
            Block(i, o, channels, Attention(i, o, harmonics, channels, heads, radial, average_neighbors))
            for i, o in zip(irreps[:-1], irreps[1:], strict=True)
        )
        self.norm = EquivariantRMSNorm(readable, channels)
        self.scalar_channels, self.vector_channels = channels, channels * readable

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C] and vectors [N, 3, C] in x, y, z order."""
        harmonics, radial, envelope = (
            self.harmonics(graph.vectors),
            self.basis(graph.lengths),
            self.envelope(graph.lengths),
        )
        nodes = self.embedding(graph)
        own = [nodes[:, None]] if self.vectors is None else [nodes[:, None], self.vectors(graph)]
        around = self.neighborhood(graph, harmonics, radial, nodes.shape[0])
        missing = around.shape[1] - sum(part.shape[1] for part in own)
        x = around + torch.cat([*own, around.new_zeros(nodes.shape[0], missing, self.channels)], dim=1)
        for block in self.blocks:
            x = block(x, graph, harmonics, radial, envelope)
        x = self.norm(x)
        return Features(x[:, 0], x[:, 1:4] if self.vector_channels else None)
