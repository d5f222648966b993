"""NequIP: an E(3)-equivariant message-passing network on irreps features.

Batzner et al., "E(3)-equivariant graph neural networks for data-efficient and accurate interatomic potentials"
(2022). Differences: every irrep has the same number of channels, and the element-dependent self-connection is a
channel mixing followed by a scale per element and channel, so parameters do not grow with elements times width².
"""

from __future__ import annotations

from typing import ClassVar

import torch
from e3nn import o3
from jaxtyping import Float, Int
from torch import Tensor, nn

from scisci.models.blocks.embedding import NodeEmbedding, VectorEmbedding
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.irreps import (
    EdgeTensorProduct,
    Gate,
    IrrepsLinear,
    PathWeights,
    SelfConnection,
    hidden_irreps,
)
from scisci.models.blocks.radial import BesselBasis
from scisci.models.registry import register


class Interaction(nn.Module):
    """One layer: convolve neighbours' features with the harmonics of the edge, add the self-connection, gate."""

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps: o3.Irreps,
        harmonics: o3.Irreps,
        channels: int,
        radial: tuple[int, int],
        elements: int,
        average_neighbors: float,
    ) -> None:
        super().__init__()
        self.product = EdgeTensorProduct(irreps_in, harmonics, irreps)
        paths = self.product.paths
        copies = [sum(path.output == o for path in paths) for o in range(len(irreps))]
        self.up = IrrepsLinear(irreps_in, [1] * len(irreps_in), channels, channels)
        self.down = IrrepsLinear(irreps, copies, channels, channels)
        self.own = SelfConnection(irreps_in, irreps, channels)
        self.element_scale = nn.Embedding.from_pretrained(torch.ones(elements, channels), freeze=False)
        self.radial = PathWeights(self.product, channels, *radial)
        self.gate = Gate(irreps, channels)
        self.norm = average_neighbors**-0.5

    def forward(
        self,
        x: Float[Tensor, "atoms j channels"],
        element: Int[Tensor, " atoms"],
        graph: Graph,
        harmonics: Float[Tensor, "edges h"],
        radial: Float[Tensor, "edges basis"],
    ) -> Float[Tensor, "atoms j_out channels"]:
        """[N, J, C] → [N, J', C]"""
        messages = self.product(self.up(x)[graph.senders], harmonics, self.radial(radial))
        new = self.down(sum_to(messages, graph.receivers, x.shape[0]) * self.norm)
        return self.gate(new + self.own(x) * self.element_scale(element)[:, None])


@register("nequip")
class NequIP(nn.Module):
    """Message passing on irreps up to `l_max`: exactly E(3)-equivariant, more so per sample the higher `l_max`.

    Args:
        inputs: what nodes carry: elements, scalars, vectors.
        average_neighbors: mean number of edges per node, by whose root messages are scaled.
        channels: channels of every irrep.
        layers: number of interactions; the last keeps only what the readout needs.
        l_max: highest degree of features and harmonics; 0 is an invariant network.
        parity: keep both parities of each degree instead of only those of the spherical harmonics.
        cutoff: Å.
        radial_basis: number of Bessel functions.
        radial_hidden: width of the radial networks.
    """

    symmetry: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rotation", "reflection", "translation", "permutation"), "exact"
    )
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 10, "layers": 2, "radial_hidden": 16},
        "10k": {"channels": 16, "layers": 3, "radial_hidden": 16},
        "30k": {"channels": 28, "layers": 3, "radial_hidden": 32},
        "100k": {"channels": 48, "layers": 4, "radial_hidden": 32},
        "300k": {"channels": 80, "layers": 4, "radial_hidden": 64},
        "1M": {"channels": 142, "layers": 5, "radial_hidden": 64},
    }

    def __init__(
        self,
        inputs: Inputs,
        average_neighbors: float,
        channels: int = 32,
        layers: int = 3,
        l_max: int = 1,
        parity: bool = False,
        cutoff: float = 5.0,
        radial_basis: int = 8,
        radial_hidden: int = 32,
    ) -> None:
        super().__init__()
        self.inputs, self.cutoff = inputs, cutoff
        self.embedding = NodeEmbedding(inputs, channels)
        # Vectors of the nodes enter as features of degree 1; an invariant network sees their products alone.
        self.vectors = VectorEmbedding(inputs, channels) if inputs.vectors and l_max > 0 else None
        hidden, harmonics, scalar = hidden_irreps(l_max, parity), o3.Irreps.spherical_harmonics(l_max), o3.Irreps("0e")
        readable = o3.Irreps("0e+1o") if l_max > 0 else scalar
        self.harmonics = o3.SphericalHarmonics(harmonics, normalize=True, normalization="component")
        self.radial = BesselBasis(cutoff, radial_basis)
        widths = (radial_basis, radial_hidden)
        irreps = [scalar if self.vectors is None else readable, *[hidden] * (layers - 1), readable]
        self.interactions = nn.ModuleList(
            Interaction(
                before, after, harmonics, channels, widths, self.embedding.element_index.kinds, average_neighbors
            )
            for before, after in zip(irreps[:-1], irreps[1:], strict=True)
        )
        self.scalar_channels, self.vector_channels = channels, channels if l_max > 0 else 0

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C] and vectors [N, 3, C] in x, y, z order."""
        element = self.embedding.element_index(graph.numbers)
        x = self.embedding(graph)[:, None]
        if self.vectors is not None:
            x = torch.cat([x, self.vectors(graph)], dim=1)
        harmonics, radial = self.harmonics(graph.vectors), self.radial(graph.lengths)
        for interaction in self.interactions:
            x = interaction(x, element, graph, harmonics, radial)
        return Features(x[:, 0], x[:, 1:4] if self.vector_channels else None)
