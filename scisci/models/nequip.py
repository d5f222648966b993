"""NequIP: an E(3)-equivariant message-passing network on irreps features.

Batzner et al., "E(3)-equivariant graph neural networks for data-efficient and accurate interatomic potentials"
(2022). Differences: every irrep has the same number of channels, and by default the element-dependent self-connection
is a channel mixing followed by a scale per element and channel, so parameters do not grow with elements times width²;
`self_connection="bilinear"` is the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from e3nn import o3
from jaxtyping import Float, Int
from torch import Tensor, nn

from scisci.models.blocks.cue import CueEdgeProduct
from scisci.models.blocks.embedding import NodeEmbedding, VectorEmbedding
from scisci.models.blocks.gaunt import GauntEdgeProduct
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.irreps import (
    BilinearSelfConnection,
    EdgeTensorProduct,
    Gate,
    IrrepsLinear,
    PathWeights,
    ScaledSelfConnection,
    hidden_irreps,
)
from scisci.models.blocks.radial import BesselBasis
from scisci.models.blocks.so2 import EdgeRotation, SO2EdgeProduct
from scisci.models.registry import register

PRODUCTS: dict[str, type[Any]] = {
    "clebsch_gordan": EdgeTensorProduct,
    "cuequivariance": CueEdgeProduct,
    "gaunt": GauntEdgeProduct,
    "so2": SO2EdgeProduct,
}
SELF_CONNECTIONS: dict[str, type[Any]] = {"scaled": ScaledSelfConnection, "bilinear": BilinearSelfConnection}


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
        product: str,
        self_connection: str,
    ) -> None:
        super().__init__()
        sized = {"channels": channels} if product == "cuequivariance" else {}  # its kernels are made for one width
        self.product = PRODUCTS[product](irreps_in, harmonics, irreps, **sized)
        self.up = IrrepsLinear(irreps_in, [1] * len(irreps_in), channels, channels)
        self.down = IrrepsLinear(irreps, self.product.copies, channels, channels)
        self.own = SELF_CONNECTIONS[self_connection](irreps_in, irreps, channels, elements)
        self.radial = PathWeights(len(self.product.paths), channels, *radial)
        self.gate = Gate(irreps, channels)
        self.norm = average_neighbors**-0.5

    def forward(
        self,
        x: Float[Tensor, "nodes j channels"],
        element: Int[Tensor, " nodes"],
        attributes: Float[Tensor, "elements channels"],
        graph: Graph,
        angular: Tensor | list[Tensor],
        radial: Float[Tensor, "edges basis"],
    ) -> Float[Tensor, "nodes j_out channels"]:
        """[N, J, C] → [N, J', C]"""
        messages = self.product(self.up(x).index_select(0, graph.senders), angular, self.radial(radial))
        new = self.down(sum_to(messages, graph.receivers, x.shape[0]) * self.norm)
        return self.gate(new + self.own(x, element, attributes))


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
        tensor_product: "clebsch_gordan"; "cuequivariance", which is the same function by the fused CUDA kernels of
            that library (`pip install 'scisci[cuda]'`), slower on a CPU; "so2", the same again by rotations into the
            edge frame, faster from about `l_max` 5 on a CPU; or "gaunt", which lacks antisymmetric paths and has
            fewer weights (without parity only).
        self_connection: "scaled", or "bilinear" in features and element as in the paper.
        vector_output: whether the last layer gives vectors too.
    """

    symmetry: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rotation", "reflection", "translation", "permutation"), "exact"
    )
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 12, "layers": 2, "radial_hidden": 16},
        "10k": {"channels": 18, "layers": 3, "radial_hidden": 16},
        "30k": {"channels": 32, "layers": 3, "radial_hidden": 32},
        "100k": {"channels": 52, "layers": 4, "radial_hidden": 32},
        "300k": {"channels": 88, "layers": 4, "radial_hidden": 64},
        "1M": {"channels": 149, "layers": 5, "radial_hidden": 64},
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
        tensor_product: str = "clebsch_gordan",
        self_connection: str = "scaled",
        vector_output: bool = True,
    ) -> None:
        super().__init__()
        _check_choice("tensor_product", tensor_product, PRODUCTS)
        _check_choice("self_connection", self_connection, SELF_CONNECTIONS)
        self.inputs, self.cutoff = inputs, cutoff
        self.embedding = NodeEmbedding(inputs, channels)
        # Vectors of the nodes enter as features of degree 1; an invariant network sees their products alone.
        self.vectors = VectorEmbedding(inputs, channels) if inputs.vectors and l_max > 0 else None
        hidden, harmonics, scalar = hidden_irreps(l_max, parity), o3.Irreps.spherical_harmonics(l_max), o3.Irreps("0e")
        with_vectors = o3.Irreps("0e+1o")
        self.angular: nn.Module = (
            EdgeRotation(l_max)
            if tensor_product == "so2"
            else o3.SphericalHarmonics(harmonics, normalize=True, normalization="component")
        )
        self.radial = BesselBasis(cutoff, radial_basis)
        widths, kinds = (radial_basis, radial_hidden), self.embedding.element_index.kinds
        first = scalar if self.vectors is None else with_vectors
        last = with_vectors if vector_output and l_max > 0 else scalar
        irreps = [first, *[hidden] * (layers - 1), last]
        self.interactions = nn.ModuleList(
            Interaction(
                before, after, harmonics, channels, widths, kinds, average_neighbors, tensor_product, self_connection
            )
            for before, after in zip(irreps[:-1], irreps[1:], strict=True)
        )
        self.scalar_channels, self.vector_channels = channels, channels if last == with_vectors else 0

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C] and vectors [N, 3, C] in x, y, z order."""
        element = self.embedding.element_index(graph.numbers)
        x = self.embedding(graph)[:, None]
        if self.vectors is not None:
            x = torch.cat([x, self.vectors(graph)], dim=1)
        angular, radial = self.angular(graph.vectors), self.radial(graph.lengths)
        for interaction in self.interactions:
            x = interaction(x, element, self.embedding.elements.weight, graph, angular, radial)
        return Features(x[:, 0], x[:, 1:4] if self.vector_channels else None)


def _check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ValueError(f"{option} must be one of {', '.join(choices)}, not {value!r}")
