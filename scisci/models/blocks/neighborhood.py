"""Neighbourhoods as rows of equal length: each atom's neighbours attend to each other in a few dense products."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from e3nn import o3
from jaxtyping import Bool, Float
from torch import Tensor, nn

from scisci.models.blocks.graph import Graph
from scisci.models.blocks.linear import scaled_linear

# Bond orders much smaller than its root, 0.01, count as zero: their slope is finite in symmetric surroundings.
ROUNDING = 1e-4
# The same for those that tokens weigh: lengths below 0.1.
SHORT = 1e-2


def in_slots(graph: Graph, cutoff: float, max_neighbors: int = 0) -> tuple[Graph, Bool[Tensor, "nodes slots"]]:
    """The graph with N x S edges, S slots for every node: itself in slot 0, then its neighbours, then padding.

    S follows from the node with most neighbours; with `max_neighbors` only so many, the closest, are kept. Also returns
    which slots hold a neighbour. The others are edges from a node to itself, as long as the cutoff, where envelopes
    vanish.
    """
    nodes, edges = graph.numbers.shape[0], graph.senders.shape[0]
    order = torch.argsort(graph.receivers, stable=True)
    if max_neighbors:
        by_length = torch.argsort(graph.lengths)
        order = by_length[torch.argsort(graph.receivers[by_length], stable=True)]
    counts = torch.zeros_like(graph.numbers).index_add(0, graph.receivers, torch.ones_like(graph.receivers))
    starts = counts.cumsum(0) - counts
    if max_neighbors:
        counts = counts.clamp(max=max_neighbors)
    slot = torch.arange(1 + counts.max().item(), device=order.device)
    filled = (slot > 0) & (slot <= counts[:, None])
    # Row `edges` of what follows stands for a slot without a neighbour.
    edge = torch.where(filled, (starts - 1)[:, None] + slot, edges).flatten()
    edge = torch.cat([order, order.new_full((1,), edges)])[edge]
    geometry = torch.cat([graph.vectors, graph.lengths[:, None]], dim=1)
    empty = geometry.new_tensor([[cutoff, 0.0, 0.0, cutoff]])
    vectors, lengths = torch.cat([geometry, empty]).index_select(0, edge).split([3, 1], dim=1)
    receivers = torch.arange(nodes, device=order.device)[:, None].expand_as(filled).flatten()
    senders = torch.cat([graph.senders, order.new_zeros(1)])[edge]
    senders = torch.where(filled.flatten(), senders, receivers)
    return graph._replace(senders=senders, receivers=receivers, vectors=vectors, lengths=lengths[:, 0]), filled


class BondOrder(nn.Module):
    """Rotation invariants of a node's surroundings: Q_l = (sum_m |q_lm|²)^1/2 for l = 0..2 l_max.

    q_lm = sum_j w_j Y_lm(r_ij) / (1 + sum_j w_j) with envelopes w. Steinhardt, Nelson & Ronchetti, "Bond-orientational
    order in liquids and glasses" (1983), eq. 1.3, whose mean over bonds alone jumps when the first one comes. Harmonics
    up to `l_max` are enough: those of twice the degree are linear in products of two.
    """

    coupling: Tensor
    rows_of_degree: Tensor

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.degrees = 2 * l_max + 1
        degree = torch.repeat_interleave(2 * torch.arange(self.degrees) + 1)
        # Kept in float64: rounded coefficients would limit the symmetry of a model turned to float64 later.
        self.register_buffer("coupling", _products_to_harmonics(l_max), persistent=False)
        indicator = nn.functional.one_hot(degree, self.degrees).double()
        self.register_buffer("rows_of_degree", indicator, persistent=False)

    def forward(
        self, harmonics: Float[Tensor, "nodes slots rows"], envelope: Float[Tensor, "nodes slots"]
    ) -> Float[Tensor, "nodes degrees"]:
        """[N, S, (l_max + 1)²], [N, S] → [N, 2 l_max + 1]"""
        products = torch.bmm((harmonics * envelope[:, :, None]).transpose(1, 2), harmonics).flatten(1)
        mean = products @ self.coupling.to(products.dtype) / (1 + envelope.sum(dim=1, keepdim=True))
        return (mean.square() @ self.rows_of_degree.to(mean.dtype) + ROUNDING).sqrt()


def token_orders(
    harmonics: Float[Tensor, "nodes slots rows"], tokens: Float[Tensor, "nodes slots channels"]
) -> Float[Tensor, "nodes degrees_channels"]:
    """Bond orders of what slots say: they bring angles and sums over neighbours to a node, which averages do not.

    [N, S, (l_max + 1)²], [N, S, C] → [N, (l_max + 1) C]: for l = 0 the sums over slots, for l > 0 the lengths
    (sum_m |sum_j t_jc Y_lm(r_ij)|²)^1/2, which are invariant.
    """
    moments = torch.bmm(harmonics.transpose(1, 2), tokens)
    degrees = range(1, math.isqrt(moments.shape[1]))
    lengths = [(moments[:, l**2 : (l + 1) ** 2].square().sum(dim=1) + SHORT).sqrt() for l in degrees]  # noqa: E741
    return torch.cat([moments[:, 0], *lengths], dim=1)


def _products_to_harmonics(l_max: int) -> Float[Tensor, "pairs rows"]:
    """The matrix from products of two harmonics up to `l_max` of one direction to those up to 2 `l_max`, in float64."""
    rows, degrees = (l_max + 1) ** 2, range(2 * l_max + 1)
    matrix = torch.zeros(rows, rows, (2 * l_max + 1) ** 2, dtype=torch.float64)
    somewhere = torch.tensor([0.36, 0.48, 0.8], dtype=torch.float64)
    harmonics = o3.spherical_harmonics(list(degrees), somewhere, normalize=True, normalization="norm")
    part = [slice(degree**2, (degree + 1) ** 2) for degree in degrees]
    for degree in degrees:
        first, second = degree // 2, degree - degree // 2
        coupling = o3.wigner_3j(first, second, degree, dtype=torch.float64)
        found = torch.einsum("a,b,abc->c", harmonics[part[first]], harmonics[part[second]], coupling)
        # Proportional to the harmonic, which has length 1.
        matrix[part[first], part[second], part[degree]] = coupling / (found @ harmonics[part[degree]])
    return matrix.flatten(0, 1)


class SlotAttention(nn.Module):
    """Multi-head self-attention among the slots of each node, smooth at the cutoff.

    The weight of a slot is exp(logit) times its envelope, so padding has none. With `l_max` > 0 some channels of
    queries and keys have a degree l > 0 and are multiplied by its spherical harmonics: logits are sums of q k P_l(cos)
    with Legendre polynomials P_l of the angle between two neighbours, which is invariant.
    """

    logits: ClassVar[str] = "query.weight"

    channel_of_row: Tensor
    spread: Tensor

    def __init__(self, channels: int, heads: int, l_max: int = 0) -> None:
        super().__init__()
        self.heads, self.width, self.angular = heads, channels // heads, l_max > 0
        self.query = scaled_linear(channels, channels, bias=False)
        self.key = scaled_linear(channels, channels, bias=False)
        self.value = scaled_linear(channels, channels, bias=False)
        rows = _rows(self.width, l_max)
        by_head = [head * self.width + channel for head in range(heads) for channel, _ in rows]
        spread = nn.functional.one_hot(torch.tensor([harmonic for _, harmonic in rows]), (l_max + 1) ** 2)
        self.register_buffer("channel_of_row", torch.tensor(by_head), persistent=False)
        self.register_buffer("spread", spread.T.double(), persistent=False)

    def forward(
        self,
        x: Float[Tensor, "nodes slots channels"],
        weights: Float[Tensor, "nodes slots"],
        harmonics: Float[Tensor, "nodes slots rows"],
        queries: int | None = None,
    ) -> Float[Tensor, "nodes queries channels"]:
        """[N, S, C] → [N, Q, C]: what the first Q slots gather (`None`: all). Harmonics of degree l have length 1."""
        turned = (harmonics @ self.spread.to(x.dtype))[:, :, None] if self.angular else None
        scale = self.width**-0.5
        q = self._rows_of(x[:, :queries], self.query.weight * scale, None if turned is None else turned[:, :queries])
        share = torch.softmax(torch.bmm(q, self._rows_of(x, self.key.weight, turned).transpose(1, 2)), dim=2)
        # Envelopes weigh values, and their own mean divides: exact, and nothing has to be masked.
        value, weight = self.value(x).unflatten(2, (self.heads, -1)), weights[:, :, None, None]
        weighted = torch.cat([value * weight, weight.expand(-1, -1, self.heads, -1)], dim=3)
        gathered = torch.bmm(share, _by_head(weighted)).unflatten(0, (-1, self.heads))
        return (gathered[..., :-1] / gathered[..., -1:]).transpose(1, 2).flatten(2)

    def _rows_of(
        self, x: Float[Tensor, "nodes slots channels"], weight: Tensor, turned: Tensor | None
    ) -> Float[Tensor, "nodes_heads slots rows"]:
        """Queries or keys: each channel times all orders of its degree."""
        if turned is None:
            return _by_head(nn.functional.linear(x, weight).unflatten(2, (self.heads, -1)))
        rows = nn.functional.linear(x, weight[self.channel_of_row]).unflatten(2, (self.heads, -1))
        return _by_head(rows * turned)


def _by_head(x: Float[Tensor, "nodes slots heads rows"]) -> Float[Tensor, "nodes_heads slots rows"]:
    return x.transpose(1, 2).flatten(0, 1)


def _rows(width: int, l_max: int) -> list[tuple[int, int]]:
    """(channel, harmonic) pairs of a head: an eighth of the channels, or one, for each l > 0; the others have l = 0."""
    each = max(1, width // 8)
    if width <= each * l_max:
        raise ValueError(f"heads of {width} channels are too narrow for l_max {l_max}")
    degree_of = [1 + channel // each if channel < each * l_max else 0 for channel in range(width)]
    return [(channel, row) for channel, l in enumerate(degree_of) for row in range(l**2, (l + 1) ** 2)]  # noqa: E741
