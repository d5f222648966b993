"""MACE: equivariant message passing with many-body messages.

Batatia et al., "MACE: Higher order equivariant message passing neural networks for fast and accurate force fields"
(2022). Each layer sums neighbours' features times spherical harmonics into the one-particle basis A (eqs. 8 and 9),
takes its symmetric products of up to `correlation` factors with weights per element (eqs. 10 and 11), and mixes them
into new features with a residual of the old ones. There is no other nonlinearity on atoms: one layer with correlation
nu is an expansion up to body order nu + 1. Differences: the products are an orthonormal basis without repetitions; the
element-dependent residual is a channel mixing followed by a scale per element and channel; the readout sees the scalars
of all layers together. As in the authors' code, A is mixed once more per path and channel.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

import torch
from e3nn import o3
from jaxtyping import Float, Int
from torch import Tensor, nn

from scisci.models.blocks.embedding import NodeEmbedding, VectorEmbedding
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.irreps import EdgeTensorProduct, IrrepsLinear, ScaledSelfConnection, hidden_irreps
from scisci.models.blocks.linear import scaled_linear
from scisci.models.blocks.radial import BesselBasis
from scisci.models.blocks.symmetric_contraction import SymmetricContraction, coupled
from scisci.models.registry import register

SILU_GAIN = 1.68  # restores unit variance after a SiLU


def reachable(irreps: o3.Irreps, harmonics: o3.Irreps, wanted: o3.Irreps) -> o3.Irreps:
    """Those of the `wanted` irreps that occur in products of features with harmonics."""
    products = {ir for _, left in irreps for _, right in harmonics for ir in left * right}
    return o3.Irreps([(1, ir) for _, ir in wanted if ir in products])


class RadialWeights(nn.Module):
    """A perceptron of the radial basis: one weight per edge, path and channel."""

    def __init__(self, paths: int, channels: int, widths: list[int]) -> None:
        super().__init__()
        self.paths, self.channels = paths, channels
        gains = [1.0] + [SILU_GAIN] * (len(widths) - 2)
        layers = [
            (scaled_linear(a, b, bias=False, gain=gain), nn.SiLU())
            for (a, b), gain in zip(pairwise(widths), gains, strict=True)
        ]
        self.hidden = nn.Sequential(*(module for layer in layers for module in layer))
        self.out = nn.Parameter(torch.randn(paths * channels, widths[-1]) * SILU_GAIN / math.sqrt(widths[-1]))

    def forward(self, basis: Float[Tensor, "edges basis"]) -> Float[Tensor, "edges paths channels"]:
        """[E, basis] → [E, P, C]"""
        return (self.hidden(basis) @ self.out.T).unflatten(1, (self.paths, self.channels))


class Interaction(nn.Module):
    """One layer: the one-particle basis of each atom, its symmetric products, and the residual."""

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_edge: o3.Irreps,
        irreps_out: o3.Irreps,
        harmonics: o3.Irreps,
        channels: int,
        correlation: int,
        radial: list[int],
        elements: int,
        average_neighbors: float,
    ) -> None:
        super().__init__()
        irreps_edge = reachable(irreps_in, harmonics, irreps_edge)
        self.irreps_out = irreps_out = coupled(irreps_edge, irreps_out, correlation)
        self.product = EdgeTensorProduct(irreps_in, harmonics, irreps_edge)
        self.radial = RadialWeights(len(self.product.paths), channels, radial)
        self.up = IrrepsLinear(irreps_in, [1] * len(irreps_in), channels, channels)
        self.down = IrrepsLinear(irreps_edge, self.product.copies, channels, channels)
        self.contraction = SymmetricContraction(irreps_edge, irreps_out, channels, correlation, elements)
        self.mix = IrrepsLinear(irreps_out, [1] * len(irreps_out), channels, channels)
        self.own = ScaledSelfConnection(irreps_in, irreps_out, channels, elements)
        self.norm = 1.0 / average_neighbors

    def forward(
        self,
        x: Float[Tensor, "atoms j channels"],
        element: Int[Tensor, " atoms"],
        graph: Graph,
        harmonics: Float[Tensor, "edges h"],
        radial: Float[Tensor, "edges basis"],
    ) -> Float[Tensor, "atoms j_out channels"]:
        """[N, J, C] → [N, J', C]"""
        messages = self.product(self.up(x).index_select(0, graph.senders), harmonics, self.radial(radial))
        one_particle = self.down(sum_to(messages, graph.receivers, x.shape[0]) * self.norm)
        many_body = self.mix(self.contraction(one_particle, element))
        return many_body + self.own(x, element)


@register("mace")
class MACE(nn.Module):
    """Message passing whose messages are many-body: exactly E(3)-equivariant, accurate with two layers.

    Args:
        inputs: what nodes carry: elements, scalars, vectors.
        average_neighbors: mean number of edges per node, by which summed messages are divided.
        channels: channels of every irrep.
        layers: number of interactions; the last keeps only what the readout needs.
        l_max: highest degree of the features that atoms send; 0 sends invariants.
        l_max_edge: highest degree of harmonics and one-particle basis.
        correlation: number of factors in the products, 1 to 3; one layer then sees correlation + 1 bodies.
        parity: keep both parities of each degree instead of only those of the spherical harmonics.
        cutoff: Å.
        radial_basis: number of Bessel functions.
        radial_hidden: width of the radial networks.
        radial_layers: number of hidden layers of the radial networks.
        vector_output: whether the last layer gives vectors too.
    """

    symmetry: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rotation", "reflection", "translation", "permutation"), "exact"
    )
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 6, "layers": 2, "radial_hidden": 8, "radial_layers": 1},
        "10k": {"channels": 13, "layers": 2, "radial_hidden": 16, "radial_layers": 1},
        "30k": {"channels": 24, "layers": 2, "radial_hidden": 32, "radial_layers": 1},
        "100k": {"channels": 44, "layers": 2, "radial_hidden": 64, "radial_layers": 1},
        "300k": {"channels": 64, "layers": 3, "radial_hidden": 64, "radial_layers": 1},
        "1M": {"channels": 132, "layers": 3, "radial_hidden": 64, "radial_layers": 1},
    }

    def __init__(
        self,
        inputs: Inputs,
        average_neighbors: float,
        channels: int = 32,
        layers: int = 2,
        l_max: int = 1,
        l_max_edge: int = 3,
        correlation: int = 3,
        parity: bool = False,
        cutoff: float = 5.0,
        radial_basis: int = 8,
        radial_hidden: int = 64,
        radial_layers: int = 3,
        vector_output: bool = True,
    ) -> None:
        super().__init__()
        highest = correlation * l_max_edge
        if l_max > highest:
            raise ValueError(f"l_max is {l_max}, but products of {correlation} harmonics go no higher than {highest}")
        self.inputs, self.cutoff = inputs, cutoff
        self.embedding = NodeEmbedding(inputs, channels)
        # Vectors of the nodes enter as features of degree 1; with l_max = 0 their products alone are seen.
        self.vectors = VectorEmbedding(inputs, channels) if inputs.vectors and l_max > 0 else None
        harmonics, scalar = o3.Irreps.spherical_harmonics(l_max_edge), o3.Irreps("0e")
        with_vectors = o3.Irreps("0e+1o")
        readable = with_vectors if vector_output and l_max > 0 else scalar
        self.harmonics = o3.SphericalHarmonics(harmonics, normalize=True, normalization="component")
        self.radial = BesselBasis(cutoff, radial_basis)
        before = scalar if self.vectors is None else with_vectors
        self.interactions = nn.ModuleList()
        for number in range(1, layers + 1):
            interaction = Interaction(
                before,
                hidden_irreps(l_max_edge, parity),
                readable if number == layers else hidden_irreps(l_max, parity),
                harmonics,
                channels,
                correlation,
                [radial_basis, *[radial_hidden] * radial_layers],
                self.embedding.element_index.kinds,
                average_neighbors,
            )
            self.interactions.append(interaction)
            before = interaction.irreps_out
        self.scalar_channels = layers * channels
        self.vector_channels = channels if readable == with_vectors else 0

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, layers x C] and vectors [N, 3, C] in x, y, z order."""
        element = self.embedding.element_index(graph.numbers)
        x = self.embedding(graph)[:, None]
        if self.vectors is not None:
            x = torch.cat([x, self.vectors(graph)], dim=1)
        harmonics, radial = self.harmonics(graph.vectors), self.radial(graph.lengths)
        scalars = []
        for interaction in self.interactions:
            x = interaction(x, element, graph, harmonics, radial)
            scalars.append(x[:, 0])
        return Features(torch.cat(scalars, dim=1), x[:, 1:4] if self.vector_channels else None)
