"""Transformer: atoms as tokens, attention between all pairs within the cutoff, no symmetry built in.

Pre-norm blocks with RMSNorm, QK-norm and SwiGLU. Logits and values carry features of the raw pair vector, since
attention on absolute coordinates alone does not learn forces; or keys and values are turned by angles that grow along
that vector (rotary positions) and logits have a learnt bias by distance. The softmax is weighted by the envelope of
each pair and includes the atom itself, so energies stay smooth when an atom crosses the cutoff. A cutoff larger than
every system is none.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scisci.contracts.errors import unknown_name
from scisci.models.blocks.attention import envelope_softmax
from scisci.models.blocks.embedding import NodeEmbedding
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.norm import RMSNorm
from scisci.models.blocks.radial import BesselBasis, Envelope, RawVectorFeatures
from scisci.models.blocks.rope import Rotation
from scisci.models.registry import register

# Initial wavelengths of rotary positions, in the domain's unit of length: from bonds to whole molecules.
SHORTEST, LONGEST = 1.0, 30.0


class Attention(nn.Module):
    """Multi-head attention of each atom to its neighbours and itself, on pair-dependent keys and values.

    Features of pairs are a bias of logits, and are added to keys and values. If `rotary`, these are turned by the
    pair's vector instead: rotary positions whose frequencies, vectors here, are learnt (Heo et al., "Rotary position
    embedding for vision transformer", 2024), and which also act on values, since these must tell directions.
    """

    logits: ClassVar[str] = "norm_q.scale"

    def __init__(self, channels: int, heads: int, pair_features: int, rotary: bool) -> None:
        super().__init__()
        self.heads, self.width = heads, channels // heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.rotary = rotary
        if rotary:
            self.frequencies = nn.Parameter(spread_frequencies(heads, self.width // 2))
        else:
            self.pair = nn.Linear(pair_features, 2 * channels, bias=False)
        self.pair_bias = nn.Linear(pair_features, heads, bias=False)
        self.norm_q, self.norm_k = RMSNorm(self.width), RMSNorm(self.width)
        self.out = nn.Linear(channels, channels, bias=False)

    def forward(
        self,
        x: Float[Tensor, "atoms channels"],
        graph: Graph,
        pairs: Float[Tensor, "edges features"],
        envelope: Float[Tensor, " edges"],
    ) -> Float[Tensor, "atoms channels"]:
        """[N, C] → [N, C]"""
        q, k, v = self.qkv(x).unflatten(1, (3, self.heads, self.width)).unbind(1)
        sent = k.index_select(0, graph.senders), v.index_select(0, graph.senders)
        q, scale = self.norm_q(q), self.width**-0.5
        if self.rotary:
            angles = torch.einsum("ec,hpc->ehp", graph.vectors, self.frequencies)
            turn = Rotation(angles.cos(), angles.sin()).turn
            key, value = turn(sent[0]), turn(sent[1])
        else:
            pair_k, pair_v = self.pair(pairs).unflatten(1, (2, self.heads, self.width)).unbind(1)
            key, value = sent[0] + pair_k, sent[1] + pair_v
        logits = (q.index_select(0, graph.receivers) * self.norm_k(key)).sum(-1) * scale + self.pair_bias(pairs)
        own = (q * self.norm_k(k)).sum(-1) * scale
        weights, own_weights = envelope_softmax(logits, own, envelope, graph)
        mixed = sum_to(value * weights[:, :, None], graph.receivers, x.shape[0]) + v * own_weights[:, :, None]
        return self.out(mixed.flatten(1))


def spread_frequencies(heads: int, planes: int) -> Float[Tensor, "heads planes 3"]:
    """Frequency vectors in random directions, of wavelengths spread evenly by logarithm over all heads and planes."""
    directions = nn.functional.normalize(torch.randn(heads * planes, 3), dim=1)
    wavelengths = torch.logspace(math.log10(SHORTEST), math.log10(LONGEST), heads * planes)
    return (directions * 2 * math.pi / wavelengths[:, None]).unflatten(0, (heads, planes))


class Block(nn.Module):
    """Attention, then SwiGLU (Shazeer, 2020), each on normalised input and added to the residual stream."""

    def __init__(self, channels: int, heads: int, pair_features: int, rotary: bool) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed_forward = RMSNorm(channels), RMSNorm(channels)
        self.attention = Attention(channels, heads, pair_features, rotary)
        self.gate_up = nn.Linear(channels, 4 * channels, bias=False)
        self.down = nn.Linear(2 * channels, channels, bias=False)

    def forward(
        self,
        x: Float[Tensor, "atoms channels"],
        graph: Graph,
        pairs: Float[Tensor, "edges features"],
        envelope: Float[Tensor, " edges"],
    ) -> Float[Tensor, "atoms channels"]:
        """[N, C] → [N, C]"""
        x = x + self.attention(self.norm_attention(x), graph, pairs, envelope)
        gate, up = self.gate_up(self.norm_feed_forward(x)).chunk(2, dim=1)
        return x + self.down(nn.functional.silu(gate) * up)


@register("transformer")
class Transformer(nn.Module):
    """A transformer over atoms that learns rotations and reflections from data, if at all.

    Args:
        inputs: what nodes carry: elements, scalars, vectors.
        average_neighbors: unused: attention weights are normalised; every backbone takes it.
        channels: width; a multiple of `heads`.
        layers: number of blocks.
        heads: attention heads.
        cutoff: Å; pairs beyond it do not attend to each other.
        radial_basis: number of Bessel functions.
        radial_range: Å; features of pairs are zero beyond it. The cutoff where that is less.
        positions: how keys and values know directions: "features" of pairs, or "rotary".
    """

    symmetry: ClassVar[dict[str, str]] = {
        "rotation": "none",
        "reflection": "none",
        "translation": "exact",
        "permutation": "exact",
    }
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 14, "layers": 1, "heads": 2},
        "10k": {"channels": 16, "layers": 3, "heads": 2},
        "30k": {"channels": 28, "layers": 3, "heads": 4},
        "100k": {"channels": 48, "layers": 4, "heads": 4},
        "300k": {"channels": 80, "layers": 4, "heads": 8},
        "1M": {"channels": 128, "layers": 6, "heads": 8},
        "3M": {"channels": 224, "layers": 6, "heads": 14},
        "10M": {"channels": 352, "layers": 8, "heads": 22},
    }
    WIDTHS: ClassVar[tuple[str, ...]] = ("channels", "heads")

    def __init__(
        self,
        inputs: Inputs,
        average_neighbors: float,
        channels: int = 32,
        layers: int = 3,
        heads: int = 4,
        cutoff: float = 5.0,
        radial_basis: int = 8,
        radial_range: float = math.inf,
        positions: str = "features",
    ) -> None:
        super().__init__()
        if positions not in ("features", "rotary"):
            raise unknown_name("positions of transformer", positions, ("features", "rotary"))
        if channels % heads:
            raise ValueError(f"channels ({channels}) must be a multiple of heads ({heads})")
        self.inputs, self.cutoff = inputs, cutoff
        self.embedding = NodeEmbedding(inputs, channels, vectors="components")
        rotary, radial_range = positions == "rotary", min(cutoff, radial_range)
        basis = BesselBasis(radial_range, radial_basis) if rotary else RawVectorFeatures(radial_range, radial_basis)
        self.pair_features, features = basis, radial_basis if rotary else 4 * radial_basis
        self.envelope = Envelope(cutoff)
        self.blocks = nn.ModuleList(Block(channels, heads, features, rotary) for _ in range(layers))
        self.rotary = rotary
        self.norm = RMSNorm(channels)
        self.scalar_channels, self.vector_channels = channels, 0

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C]"""
        x = self.embedding(graph)
        lengths = (graph.lengths,) if self.rotary else (graph.vectors, graph.lengths)
        pairs, envelope = self.pair_features(*lengths), self.envelope(graph.lengths)
        for block in self.blocks:
            x = block(x, graph, pairs, envelope)
        return Features(self.norm(x), None)
