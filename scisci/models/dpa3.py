"""DPA3: messages on a graph of atoms and bonds and, at the same time, on its line graph of bonds and angles.

Zhang et al., "A graph neural network for the era of large atomistic models" (2025, arXiv:2506.01686), with two graphs
(K = 2) and the settings of its published models: parallel updates in small learned steps, symmetrised products of
neighbours' directions, angles that see the first channels of bonds and atoms, all neighbours within the cutoffs.
Differences: distances enter as Bessel functions that stay of order one for close pairs, and directions as unit vectors,
where the paper has the distance itself and directions over distance; polynomial envelopes, exactly zero at the cutoffs;
sums are scaled by the root of their mean number of terms in the data, as in other architectures here, where the paper
has constants (`sel` over 10) and divides messages by theirs, not its root; angles are between different bonds only;
what nobody reads in the last layers is left out. The first two layers of the paper's fitting network are here; the
third and the output are the potential's. But for the basis and what is left out, weights are as many as deepmd-kit's.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scisci.models.blocks.bounded import BoundedBesselBasis
from scisci.models.blocks.embedding import NodeEmbedding, projections
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.line_graph import LineGraph, line_graph
from scisci.models.blocks.linear import scaled_linear
from scisci.models.blocks.radial import Envelope
from scisci.models.blocks.readout import EdgeVectors
from scisci.models.registry import register

STEP = 0.1


class SiLUT(nn.Module):
    """x sigmoid(x) up to a threshold, and from there a bounded function joined with equal value, slope and curvature.

    The published one continues as silu(t) + tanh(s (x - t)) with the slope s of silu at t, whose curvature is zero at
    t where that of silu, c, is not quite; c tanh² / (2 s²) is added here, at t = 10 less than 2e-4.
    """

    def __init__(self, threshold: float = 10.0) -> None:
        super().__init__()
        sigmoid = 1 / (1 + math.exp(-threshold))
        rest = 1 - sigmoid
        self.threshold, self.value = threshold, threshold * sigmoid
        self.slope = sigmoid * (1 + threshold * rest)
        self.bend = sigmoid * rest * (2 + threshold * (rest - sigmoid)) / (2 * self.slope**2)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Elementwise."""
        bounded = torch.tanh(self.slope * (x - self.threshold))
        return torch.where(x < self.threshold, nn.functional.silu(x), self.value + bounded * (1 + self.bend * bounded))


class Joined(nn.Module):
    """A linear layer of several inputs side by side, each multiplied by its weights before it is spread over rows."""

    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        gain = len(inputs) ** -0.5
        self.parts = nn.ModuleList(scaled_linear(width, outputs, not k, gain) for k, width in enumerate(inputs))

    def forward(
        self, own: Float[Tensor, "rows width"], *spread: tuple[Float[Tensor, "_ _"], Int[Tensor, " rows"]]
    ) -> Float[Tensor, "rows outputs"]:
        """Features of the rows themselves, then pairs of features and the index of each row's → [rows, outputs]"""
        joined = self.parts[0](own)
        for part, (features, index) in zip(self.parts[1:], spread, strict=True):
            joined = joined + part(features).index_select(0, index)
        return joined


def steps(count: int, channels: int) -> nn.Parameter:
    """How far each channel moves along each of its updates."""
    return nn.Parameter(torch.full((count, channels), STEP))


class Weighted(NamedTuple):
    """The graph and its angles, with weights that vanish smoothly at the cutoffs and make sums of order one.

    `directions` are unit vectors times such weights.
    """

    graph: Graph
    angles: LineGraph
    directions: Float[Tensor, "edges 3"]
    edge_weights: Float[Tensor, "edges 1"]
    angle_weights: Float[Tensor, "angles 1"]


class AtomUpdate(nn.Module):
    """Change atoms by what they are, by the shape of their surroundings, and by messages along edges.

    The shape is known by the vectors v_c = sum_j f_jc r_j, with features f of edges and of neighbours in turn: scalar
    products of those of the first `axes` channels with all.
    """

    def __init__(self, channels: int, edge_channels: int, axes: int) -> None:
        super().__init__()
        self.axes = axes
        self.activation = SiLUT()
        self.own = scaled_linear(channels, channels)
        self.shape = scaled_linear(axes * (channels + edge_channels), channels)
        self.steps = steps(3, channels)

    def forward(
        self,
        x: Float[Tensor, "nodes channels"],
        edges: Float[Tensor, "edges edge_channels"],
        messages: Float[Tensor, "edges channels"],
        given: Weighted,
    ) -> Float[Tensor, "nodes channels"]:
        """[N, C], [E, D], [E, C] → [N, C]"""
        senders, receivers = given.graph.senders, given.graph.receivers
        products = [self._products(values, given, x.shape[0]) for values in (edges, x.index_select(0, senders))]
        own, shape, message = self.steps
        x = x + own * self.activation(self.own(x)) + shape * self.activation(self.shape(torch.cat(products, dim=1)))
        return x + message * sum_to(messages * given.edge_weights, receivers, x.shape[0])

    def _products(self, values: Tensor, given: Weighted, nodes: int) -> Float[Tensor, "nodes products"]:
        vectors = sum_to(given.directions[:, :, None] * values[:, None], given.graph.receivers, nodes)
        return torch.bmm(vectors[:, :, : self.axes].transpose(1, 2), vectors).flatten(1)


class BondUpdate(nn.Module):
    """Change bonds by what their angles say, and where `angles_too` the angles; both see bonds and the centre atom.

    Angles see as many channels of atoms and bonds as they have themselves, the first ones.
    """

    def __init__(self, edge_channels: int, angle_channels: int, angles_too: bool) -> None:
        super().__init__()
        self.seen, self.widths = angle_channels, [edge_channels, angle_channels if angles_too else 0]
        self.activation = SiLUT()
        self.of_angle = Joined((angle_channels,) * 4, sum(self.widths))
        self.mix = scaled_linear(edge_channels, edge_channels)
        self.steps = steps(2, edge_channels)
        self.angle_step = steps(1, angle_channels) if angles_too else None

    def forward(
        self,
        x: Float[Tensor, "nodes channels"],
        edges: Float[Tensor, "edges edge_channels"],
        angles: Float[Tensor, "angles angle_channels"],
        own: Float[Tensor, "edges edge_channels"],
        given: Weighted,
    ) -> tuple[Float[Tensor, "edges edge_channels"], Float[Tensor, "angles angle_channels"]]:
        """Bonds [E, D] and angles [A, F] → the same; `own` changes bonds on behalf of themselves and their ends."""
        first, second, centre, _ = given.angles
        node, bond = x[:, : self.seen], edges[:, : self.seen]
        told = self.activation(self.of_angle(angles, (node, centre), (bond, first), (bond, second)))
        message, change = told.split(self.widths, dim=1)
        gathered = self.activation(self.mix(sum_to(message * given.angle_weights, first, edges.shape[0])))
        edges = edges + self.steps[0] * own + self.steps[1] * gathered
        return edges, angles if self.angle_step is None else angles + self.angle_step * change


class Layer(nn.Module):
    """Atoms, bonds and angles change at once, each by what they and their surroundings were before.

    Bonds are read one layer later and angles two, so with fewer `followers` they stay as they are.
    """

    def __init__(self, channels: int, edge_channels: int, angle_channels: int, axes: int, followers: int) -> None:
        super().__init__()
        self.widths = [channels, edge_channels if followers else 0]
        self.activation = SiLUT()
        self.of_edge = Joined((edge_channels, channels, channels), sum(self.widths))
        self.atoms = AtomUpdate(channels, edge_channels, axes)
        self.bonds = BondUpdate(edge_channels, angle_channels, followers > 1) if followers else None

    def forward(
        self,
        x: Float[Tensor, "nodes channels"],
        edges: Float[Tensor, "edges edge_channels"],
        angles: Float[Tensor, "angles angle_channels"],
        given: Weighted,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Atoms [N, C], bonds [E, D] and angles [A, F] → the same"""
        graph = given.graph
        told = self.activation(self.of_edge(edges, (x, graph.receivers), (x, graph.senders)))
        messages, own = told.split(self.widths, dim=1)
        changed = self.atoms(x, edges, messages, given)
        if self.bonds is not None:
            edges, angles = self.bonds(x, edges, angles, own, given)
        return changed, edges, angles


class Fitting(nn.Module):
    """From atoms to what energies are read off: two layers, told which data set an atom is of where there are several.

    A data set's learned row is what its one-hot code, joined to the input, would be multiplied by.
    """

    def __init__(self, inputs: Inputs, channels: int, width: int) -> None:
        super().__init__()
        self.activation = SiLUT()
        self.first, self.second = scaled_linear(channels, width), scaled_linear(width, width)
        self.steps = steps(1, width)
        self.datasets = nn.Embedding(inputs.datasets, width) if inputs.datasets > 1 else None
        if self.datasets is not None:
            nn.init.normal_(self.datasets.weight, std=channels**-0.5)

    def forward(
        self, x: Float[Tensor, "nodes channels"], dataset: Int[Tensor, " nodes"] | None
    ) -> Float[Tensor, "nodes width"]:
        """[N, C] → [N, W]"""
        x = self.first(x)
        if self.datasets is not None:
            assert dataset is not None
            x = x + self.datasets(dataset)
        x = self.activation(x)
        return x + self.steps * self.activation(self.second(x))


@register("dpa3")
class DPA3(nn.Module):
    """Invariant messages among atoms, bonds and angles: deep, cheap per layer, and without tensor products.

    Time and memory grow with atoms times the square of the number of bonds of each.

    Args:
        inputs: what nodes carry: elements, scalars, vectors; of how many data sets they are.
        average_neighbors: mean number of edges per node, by whose root sums are scaled; that of angles per bond follows
            from it as if the density were uniform.
        channels: width of atoms.
        edge_channels: width of bonds.
        angle_channels: width of angles, and how many channels of atoms and bonds they see.
        layers: number of layers; fewer than two see no angles but those in products of vectors.
        fitting: width of the fitting network, whose outputs are the scalars.
        axes: vectors of a node that are multiplied with all its vectors.
        cutoff: Å.
        angle_range: how long a bond with angles may be, as a part of the cutoff.
        radial_basis: number of Bessel functions.
        vector_output: whether vectors are returned too, for direct forces.
    """

    symmetry: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rotation", "reflection", "translation", "permutation"), "exact"
    )
    SIZES: ClassVar[dict[str, dict[str, Any]]] = {
        "3k": {"channels": 9, "edge_channels": 8, "angle_channels": 4, "layers": 2, "fitting": 14},
        "10k": {"channels": 18, "edge_channels": 12, "angle_channels": 6, "layers": 2, "fitting": 32},
        "30k": {"channels": 25, "edge_channels": 16, "angle_channels": 8, "layers": 3, "fitting": 48},
        "100k": {"channels": 45, "edge_channels": 28, "angle_channels": 14, "layers": 3, "fitting": 96},
        "300k": {"channels": 72, "edge_channels": 44, "angle_channels": 22, "layers": 4, "fitting": 150},
        # With 6 Å, as published: L3, L6, L12 and L24 of the paper. Its 0.9 M for L3 counts statistics of the data too.
        "700k": {"layers": 3, "cutoff": 6.0},
        "1.3M": {"layers": 6, "cutoff": 6.0},
        "2.5M": {"layers": 12, "cutoff": 6.0},
        "4.9M": {"layers": 24, "cutoff": 6.0},
    }

    def __init__(
        self,
        inputs: Inputs,
        average_neighbors: float,
        channels: int = 128,
        edge_channels: int = 64,
        angle_channels: int = 32,
        layers: int = 6,
        fitting: int = 240,
        axes: int = 4,
        cutoff: float = 5.0,
        angle_range: float = 2 / 3,
        radial_basis: int = 8,
        vector_output: bool = True,
    ) -> None:
        super().__init__()
        if angle_range > 1:
            raise ValueError(f"angle_range ({angle_range:g}) is a part of the cutoff, so at most 1")
        if angle_channels > min(channels, edge_channels) or axes > min(channels, edge_channels):
            raise ValueError("angle_channels and axes must be at most channels and edge_channels")
        self.inputs, self.cutoff, self.angle_cutoff = inputs, cutoff, angle_range * cutoff
        self.average_neighbors, self.average_angles = average_neighbors, average_neighbors * angle_range**3
        self.activation = SiLUT()
        self.basis, self.angle_envelope = BoundedBesselBasis(cutoff, radial_basis), Envelope(self.angle_cutoff)
        self.nodes = NodeEmbedding(inputs, channels)
        self.edges = scaled_linear(radial_basis + 2 * inputs.vectors, edge_channels)
        self.angles = scaled_linear(1, angle_channels, bias=False)
        self.layers = nn.ModuleList(
            Layer(channels, edge_channels, angle_channels, axes, followers) for followers in reversed(range(layers))
        )
        self.fitting = Fitting(inputs, channels, fitting)
        self.vectors = EdgeVectors(inputs, channels, edge_channels, average_neighbors) if vector_output else None
        self.scalar_channels, self.vector_channels = fitting, channels if vector_output else 0

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, W] and vectors [N, 3, C] in x, y, z order."""
        envelope = self.basis.envelope(graph.lengths)[:, None]
        given, x = self._weighted(graph, envelope), self.activation(self.nodes(graph))
        edges = self.edges(torch.cat([self.basis(graph.lengths), projections(graph)], dim=1))
        angles = self.angles(given.angles.cosine[:, None])
        for layer in self.layers:
            x, edges, angles = layer(x, edges, angles, given)
        vectors = None if self.vectors is None else self.vectors(x, graph, edges * envelope)
        return Features(self.fitting(x, graph.dataset), vectors)

    def _weighted(self, graph: Graph, envelope: Float[Tensor, "edges 1"]) -> Weighted:
        angles, short = line_graph(graph, self.angle_cutoff), self.angle_envelope(graph.lengths)
        together = short.index_select(0, angles.first) * short.index_select(0, angles.second)
        edge_weights = envelope * self.average_neighbors**-0.5
        directions = graph.vectors * (edge_weights / graph.lengths[:, None])
        return Weighted(graph, angles, directions, edge_weights, together[:, None] * self.average_angles**-0.5)
