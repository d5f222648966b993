"""EScAIP: attention among the neighbours of each atom, on tokens of invariants.

Qu & Krishnapriyan, "The importance of being scalable: improving the speed and accuracy of neural network interatomic
potentials across chemical domains" (2024). Every neighbour is a token of distance, elements and bond order; all that a
network sees is invariant, and angles enter through bond orders and, with `angular`, through the logits.
Differences: atoms and neighbours have widths of their own, and the last block updates atoms alone; in every block atoms
hear from bond orders of the tokens, filtered by distance, too, without which small models learnt forces much worse;
envelopes weigh the attention and bond orders are rounded off near zero, so that energies have smooth derivatives; all
neighbours within the cutoff count unless `max_neighbors` says otherwise; direct forces are equivariant unless
`components` asks for the paper's, which are not.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from e3nn import o3
from jaxtyping import Float
from torch import Tensor, nn

from scisci.models.blocks.embedding import NodeEmbedding, VectorEmbedding, projections
from scisci.models.blocks.graph import Features, Graph, Inputs
from scisci.models.blocks.linear import scaled_linear
from scisci.models.blocks.neighborhood import BondOrder, SlotAttention, in_slots, token_orders
from scisci.models.blocks.radial import BesselBasis
from scisci.models.registry import register


def feed_forward(channels: int, expansion: int) -> nn.Sequential:
    """Two layers on normalised input. LayerNorm, unlike RMSNorm, is one kernel with a second derivative everywhere."""
    hidden = expansion * channels
    return nn.Sequential(
        nn.LayerNorm(channels), scaled_linear(channels, hidden), nn.GELU(), scaled_linear(hidden, channels)
    )


class Ends(nn.Module):
    """What both atoms of a slot say to it: [N, C] → [N, S, E]."""

    def __init__(self, channels: int, edge_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.ends = scaled_linear(channels, 2 * edge_channels)

    def forward(self, x: Float[Tensor, "nodes channels"], slots: Graph) -> Float[Tensor, "nodes slots edge_channels"]:
        sender, receiver = self.ends(self.norm(x)).chunk(2, dim=1)
        return sender.index_select(0, slots.senders).unflatten(0, (x.shape[0], -1)) + receiver[:, None]


class Block(nn.Module):
    """Slots hear from their atoms and attend to each other; slot 0 tells its atom, and so do the tokens' bond orders.

    Feed-forward networks for both follow. In bond orders each token is multiplied by a linear function of radial ones.
    Nobody reads the slots after the `last` block: only slot 0 asks there, the atom itself, whose logits see no angles.
    """

    def __init__(
        self, channels: int, edge_channels: int, heads: int, l_max: int, radial_basis: int, angular: bool, last: bool
    ) -> None:
        super().__init__()
        self.ends = Ends(channels, edge_channels)
        self.norm = nn.LayerNorm(edge_channels)
        self.attention = SlotAttention(edge_channels, heads, l_max if angular and not last else 0)
        self.filter = scaled_linear(radial_basis, edge_channels, bias=False)
        self.to_atom = scaled_linear((l_max + 2) * edge_channels, channels)
        self.of_atom = feed_forward(channels, 4)
        self.to_slots = None if last else scaled_linear(edge_channels, edge_channels)
        self.of_slots = None if last else feed_forward(edge_channels, 2)

    def forward(
        self,
        x: Float[Tensor, "nodes channels"],
        edges: Float[Tensor, "nodes slots edge_channels"],
        slots: Graph,
        weights: Float[Tensor, "nodes slots"],
        harmonics: Float[Tensor, "nodes slots rows"],
        radial: Float[Tensor, "nodes slots basis"],
    ) -> tuple[Float[Tensor, "nodes channels"], Float[Tensor, "nodes slots edge_channels"]]:
        """Atoms [N, C] and slots [N, S, E] → the same"""
        tokens = self.norm(edges + self.ends(x, slots))
        gathered = self.attention(tokens, weights, harmonics, 1 if self.to_slots is None else None)
        orders = token_orders(harmonics, tokens * self.filter(radial))
        x = x + self.to_atom(torch.cat([gathered[:, 0], orders], dim=1))
        x = x + self.of_atom(x)
        if self.to_slots is not None and self.of_slots is not None:
            edges = edges + self.to_slots(gathered)
            edges = edges + self.of_slots(edges)
        return x, edges


class SlotVectors(nn.Module):
    """Sum unit vectors to the neighbours, weighted by what slots hold: v_ic = a_c(h_i) sum_j w_c(e_ij) r_ij / |r_ij|.

    Exactly equivariant; with `components` w has a value for each of x, y and z, as in the paper, and it is not. Vectors
    that atoms carry are added, mixed and gated.
    """

    def __init__(self, inputs: Inputs, channels: int, features: int, vectors: int, neighbors: float, components: bool):
        super().__init__()
        self.components = components
        self.edge = scaled_linear(features, (3 if components else 1) * vectors)
        self.node = scaled_linear(channels, vectors)
        self.own = VectorEmbedding(inputs, vectors)
        self.gate = scaled_linear(channels, vectors) if inputs.vectors else None
        self.norm = neighbors**-0.5

    def forward(
        self,
        x: Float[Tensor, "nodes channels"],
        features: Float[Tensor, "nodes slots features"],
        directions: Float[Tensor, "nodes slots 3"],
        envelope: Float[Tensor, "nodes slots"],
        graph: Graph,
    ) -> Float[Tensor, "nodes 3 vectors"]:
        """[N, C], [N, S, F] → [N, 3, V]"""
        weights, directions = self.edge(features), directions * (envelope * self.norm)[:, :, None]
        if self.components:
            summed = torch.einsum("nsd,nsdv->ndv", directions, weights.unflatten(2, (3, -1)))
        else:
            summed = torch.bmm(directions.transpose(1, 2), weights)
        vectors = summed * self.node(x)[:, None]
        return vectors if self.gate is None else vectors + self.own(graph) * self.gate(x)[:, None]


@register("escaip")
class EScAIP(nn.Module):
    """Attention among neighbours: invariant without tensor products, and fast, since all is dense products of scalars.

    Time and memory grow with atoms times the square of the largest number of neighbours.

    Args:
        inputs: what nodes carry: elements, scalars, vectors.
        average_neighbors: mean number of edges per node, by whose root sums over neighbours are scaled.
        channels: width of atoms.
        edge_channels: width of neighbours; a multiple of `heads`.
        layers: number of blocks.
        heads: attention heads.
        l_max: highest degree of the harmonics in logits; bond orders go twice as high.
        angular: whether logits see the angle between two neighbours.
        cutoff: Å.
        max_neighbors: keep the closest so many neighbours of each atom, at the price of jumps where two change ranks; 0
            keeps all within the cutoff.
        radial_basis: number of Bessel functions.
        components: weigh x, y and z of direct forces apart, which breaks rotations and reflections.
        vector_output: whether vectors are returned too, for direct forces.
    """

    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 8, "edge_channels": 8, "layers": 2, "heads": 1},
        "10k": {"channels": 16, "edge_channels": 12, "layers": 2, "heads": 1},
        "30k": {"channels": 28, "edge_channels": 22, "layers": 2, "heads": 1},
        "100k": {"channels": 42, "edge_channels": 32, "layers": 3, "heads": 2},
        "300k": {"channels": 64, "edge_channels": 48, "layers": 4, "heads": 2},
        "1M": {"channels": 128, "edge_channels": 88, "layers": 4, "heads": 4},
    }
    WIDTHS: ClassVar[tuple[str, ...]] = ("channels", "edge_channels", "heads")
    symmetry: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rotation", "reflection", "translation", "permutation"), "exact"
    )

    def __init__(
        self,
        inputs: Inputs,
        average_neighbors: float,
        channels: int = 32,
        edge_channels: int = 24,
        layers: int = 2,
        heads: int = 1,
        l_max: int = 2,
        angular: bool = True,
        cutoff: float = 5.0,
        max_neighbors: int = 0,
        radial_basis: int = 8,
        components: bool = False,
        vector_output: bool = True,
    ) -> None:
        super().__init__()
        if edge_channels % heads:
            raise ValueError(f"edge_channels ({edge_channels}) must be a multiple of heads ({heads})")
        self.inputs, self.cutoff, self.max_neighbors = inputs, cutoff, max_neighbors
        self.scale = average_neighbors**-0.5
        self.embedding, self.basis = NodeEmbedding(inputs, channels), BesselBasis(cutoff, radial_basis)
        # "norm": the products of two directions' harmonics of degree l sum to the Legendre polynomial P_l.
        self.harmonics = o3.SphericalHarmonics(list(range(l_max + 1)), normalize=True, normalization="norm")
        self.bond_order, self.order = BondOrder(l_max), scaled_linear(2 * l_max + 1, channels)
        self.length = scaled_linear(radial_basis + 2 * inputs.vectors, edge_channels)
        self.ends, self.token = Ends(channels, edge_channels), scaled_linear(edge_channels, edge_channels)
        self.blocks = nn.ModuleList(
            Block(channels, edge_channels, heads, l_max, radial_basis, angular, last=layer == layers - 1)
            for layer in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(layers + 1))
        self.readout = scaled_linear((layers + 1) * channels, channels)
        self.scalar_channels, self.vector_channels = channels, edge_channels if vector_output else 0
        self.vectors: SlotVectors | None = None
        if vector_output:
            sizes = channels, layers * edge_channels, edge_channels
            self.vectors = SlotVectors(inputs, *sizes, average_neighbors, components)
            if components:
                broken = dict.fromkeys(("rotation", "reflection"), "none")
                self.symmetry = {**type(self).symmetry, **broken}  # type: ignore[misc]

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C] and vectors [N, 3, E] in x, y, z order."""
        slots, filled = in_slots(graph, self.cutoff, self.max_neighbors)
        x, shape = self.embedding(graph), filled.shape
        envelope = self.basis.envelope(slots.lengths).view(shape)
        # Slot 0, the atom itself, counts fully in the attention, and in no sum over neighbours. It has no direction.
        weights = torch.cat([torch.ones_like(envelope[:, :1]), envelope[:, 1:]], dim=1)
        harmonics = self.harmonics(slots.vectors).unflatten(0, shape)
        harmonics = torch.cat([torch.ones_like(envelope)[:, :, None], harmonics[:, :, 1:] * filled[:, :, None]], dim=2)
        x = x + self.order(self.bond_order(harmonics, envelope))
        along = projections(slots) * filled.flatten()[:, None]
        radial = self.basis(slots.lengths)
        inner = self.length(torch.cat([radial, along], dim=1)).unflatten(0, shape) + self.ends(x, slots)
        edges = self.token(nn.functional.gelu(inner))
        radial = (radial * self.scale).unflatten(0, shape)
        atoms, neighbors = [self.norms[0](x)], []
        for block, norm in zip(self.blocks, self.norms[1:], strict=True):
            neighbors.append(edges)
            x, edges = block(x, edges, slots, weights, harmonics, radial)
            atoms.append(norm(x))
        scalars = self.readout(torch.cat(atoms, dim=1))
        if self.vectors is None:
            return Features(scalars, None)
        directions = (slots.vectors / slots.lengths[:, None]).unflatten(0, shape)
        return Features(scalars, self.vectors(scalars, torch.cat(neighbors, dim=2), directions, envelope, graph))
