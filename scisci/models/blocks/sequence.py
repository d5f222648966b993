"""Transformer blocks over sequences: attention with rotary positions, SwiGLU, and a stack of both."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from scisci.models.blocks.norm import RMSNorm
from scisci.models.blocks.rope import Rotation


class SelfAttention(nn.Module):
    """Multi-head attention of every position to the others.

    Args:
        channels: width; a multiple of `heads`.
        heads: attention heads.
        normalised: whether queries and keys are divided by their root mean square (Henry et al., 2020).
        bias: of queries, keys and values.
    """

    def __init__(self, channels: int, heads: int, normalised: bool = True, bias: bool = False) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels ({channels}) must be a multiple of heads ({heads})")
        self.heads, self.width = heads, channels // heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=bias)
        self.norm_q, self.norm_k = (RMSNorm(self.width) if normalised else nn.Identity() for _ in range(2))
        self.out = nn.Linear(channels, channels, bias=False)

    def forward(
        self,
        x: Float[Tensor, "rows positions channels"],
        rotation: Rotation | None = None,
        mask: Bool[Tensor, "rows 1 positions positions"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "rows positions channels"]:
        """[R, N, C] → [R, N, C]; `mask` is true where a position may look, `causal` keeps it from looking ahead."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.width)).unbind(2)
        q, k = self.norm_q(q), self.norm_k(k)
        if rotation is not None:
            q, k = rotation.turn(q), rotation.turn(k)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal and mask is None)
        return self.out(mixed.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """down(SiLU(gate x) * up x), without bias; Shazeer, "GLU variants improve transformer" (2020)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(channels, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows channels"]:
        """[..., C] → [..., C]"""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)


def hidden_width(channels: int) -> int:
    """8/3 of the channels in multiples of 8: as many parameters as in a plain network of 4 times the channels."""
    return (int(8 * channels / 3) + 7) // 8 * 8


class Block(nn.Module):
    """Attention, then SwiGLU, each on input divided by its root mean square and added to the residual stream."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed_forward = RMSNorm(channels), RMSNorm(channels)
        self.attention = SelfAttention(channels, heads)
        self.feed_forward = SwiGLU(channels, hidden_width(channels))

    def forward(
        self, x: Tensor, rotation: Rotation | None, mask: Tensor | None, causal: bool
    ) -> Float[Tensor, "rows positions channels"]:
        """[R, N, C] → [R, N, C]"""
        x = x + self.attention(self.norm_attention(x), rotation, mask, causal)
        return x + self.feed_forward(self.norm_feed_forward(x))


class Transformer(nn.Module):
    """A stack of blocks with rotary positions on half of each head, and a last norm.

    The body of Yao et al., "Towards neural scaling laws for time series foundation models" (2024): one head per 64
    channels, no bias anywhere.
    """

    def __init__(self, channels: int, layers: int, causal: bool) -> None:
        super().__init__()
        heads = max(1, channels // 64)
        self.blocks = nn.ModuleList(Block(channels, heads) for _ in range(layers))
        self.norm = RMSNorm(channels)
        self.rotated, self.causal = channels // heads // 2, causal

    def forward(
        self, x: Float[Tensor, "rows positions channels"], observed: Bool[Tensor, "rows positions"]
    ) -> Float[Tensor, "rows positions channels"]:
        """[R, N, C] → [R, N, C]; nobody looks at positions that are not `observed`, except they themselves."""
        rotation, mask = Rotation.over(x.shape[1], self.rotated, x), visible(observed, self.causal)
        for block in self.blocks:
            x = block(x, rotation, mask, self.causal)
        return self.norm(x)


def visible(
    observed: Bool[Tensor, "rows positions"], causal: bool
) -> Bool[Tensor, "rows 1 positions positions"] | None:
    """Which positions each position may look at; `None` where nothing but causality forbids any."""
    if bool(observed.all()):
        return None
    itself = torch.eye(observed.shape[1], dtype=torch.bool, device=observed.device)
    seen = (observed[:, None, :] | itself)[:, None]
    return seen & torch.ones_like(itself).tril() if causal else seen
