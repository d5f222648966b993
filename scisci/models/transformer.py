"""Transformer: atoms as tokens, attention between all pairs within the cutoff, no symmetry built in.

Pre-norm blocks with RMSNorm, QK-norm and SwiGLU. Logits and values carry features of the raw pair vector, since
attention on absolute coordinates alone does not learn forces. The softmax is weighted by the envelope of each pair
and includes the atom itself, so energies stay smooth when an atom crosses the cutoff.
"""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from scisci.models.blocks.attention import envelope_softmax
from scisci.models.blocks.embedding import NodeEmbedding
from scisci.models.blocks.graph import Features, Graph, Inputs, sum_to
from scisci.models.blocks.norm import RMSNorm
from scisci.models.blocks.radial import Envelope, RawVectorFeatures
from scisci.models.registry import register


class Attention(nn.Module):
    """Multi-head attention of each atom to its neighbours and itself, on pair-dependent keys and values."""

    def __init__(self, channels: int, heads: int, pair_features: int) -> None:
        super().__init__()
        self.heads, self.width = heads, channels // heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
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
        pair_k, pair_v = self.pair(pairs).unflatten(1, (2, self.heads, self.width)).unbind(1)
        q, scale = self.norm_q(q), self.width**-0.5
        key = self.norm_k(k.index_select(0, graph.senders) + pair_k)
        logits = (q.index_select(0, graph.receivers) * key).sum(-1) * scale + self.pair_bias(pairs)
        own = (q * self.norm_k(k)).sum(-1) * scale
        weights, own_weights = envelope_softmax(logits, own, envelope, graph)
        values = (v.index_select(0, graph.senders) + pair_v) * weights[:, :, None]
        mixed = sum_to(values, graph.receivers, x.shape[0]) + v * own_weights[:, :, None]
        return self.out(mixed.flatten(1))


class Block(nn.Module):
    """Attention, then SwiGLU (Shazeer, 2020), each on normalised input and added to the residual stream."""

    def __init__(self, channels: int, heads: int, pair_features: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed_forward = RMSNorm(channels), RMSNorm(channels)
        self.attention = Attention(channels, heads, pair_features)
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
    }

    def __init__(
        self,
        inputs: Inputs,
        average_neighbors: float,
        channels: int = 32,
        layers: int = 3,
        heads: int = 4,
        cutoff: float = 5.0,
        radial_basis: int = 8,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels ({channels}) must be a multiple of heads ({heads})")
        self.inputs, self.cutoff = inputs, cutoff
        self.embedding = NodeEmbedding(inputs, channels, vectors="components")
        self.pair_features = RawVectorFeatures(cutoff, radial_basis)
        self.envelope = Envelope(cutoff)
        self.blocks = nn.ModuleList(Block(channels, heads, self.pair_features.features) for _ in range(layers))
        self.norm = RMSNorm(channels)
        self.scalar_channels, self.vector_channels = channels, 0

    def forward(self, graph: Graph) -> Features:
        """Graph → scalars [N, C]"""
        x = self.embedding(graph)
        pairs, envelope = self.pair_features(graph.vectors, graph.lengths), self.envelope(graph.lengths)
        for block in self.blocks:
            x = block(x, graph, pairs, envelope)
        return Features(self.norm(x), None)
