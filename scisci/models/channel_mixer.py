"""Channel-mixing transformer: attention over time, then over channels, in every block.

Channels have no positions and share all weights, so an exchange of channels exchanges their forecasts; what one channel
says of another is learned from the data. The layout of axes is that of Crossformer (Zhang & Yan, 2023) and of attention
to any variate (Woo et al., "Moirai", 2024), but exactly equivariant to permutations; patches, masks and mixtures are
those of `scisci.models.patch_encoder`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from scisci.models.blocks.norm import RMSNorm
from scisci.models.blocks.patch import MixtureHead, restored, window
from scisci.models.blocks.rope import Rotation
from scisci.models.blocks.sequence import SelfAttention, SwiGLU, hidden_width, visible
from scisci.models.registry import register


class Block(nn.Module):
    """Attention of each channel over time, of each time over channels, then SwiGLU; each on normalised input, added."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm_times, self.norm_channels, self.norm_feed_forward = (RMSNorm(channels) for _ in range(3))
        self.times, self.channels = SelfAttention(channels, heads), SelfAttention(channels, heads)
        self.feed_forward = SwiGLU(channels, hidden_width(channels))

    def forward(
        self, x: Tensor, rotation: Rotation, times: Tensor | None, channels: Tensor | None
    ) -> Float[Tensor, "batch channels patches width"]:
        """[B, C, N, W] → [B, C, N, W]"""
        size = x.shape
        x = x + self.times(self.norm_times(x).flatten(0, 1), rotation, times).view(size)
        across = self.norm_channels(x).transpose(1, 2)
        x = x + self.channels(across.flatten(0, 1), None, channels).view(across.shape).transpose(1, 2)
        return x + self.feed_forward(self.norm_feed_forward(x))


class Body(nn.Module):
    """Blocks, and a last norm."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        heads = max(1, channels // 64)
        self.blocks = nn.ModuleList(Block(channels, heads) for _ in range(layers))
        self.norm = RMSNorm(channels)
        self.rotated = channels // heads // 2

    def forward(
        self, x: Float[Tensor, "batch channels patches width"], seen: Bool[Tensor, "batch channels patches"]
    ) -> Float[Tensor, "batch channels patches width"]:
        """[B, C, N, W] → [B, C, N, W]; nobody looks at what is not `seen`."""
        rotation = Rotation.over(x.shape[2], self.rotated, x)
        times, channels = (visible(part.flatten(0, 1), causal=False) for part in (seen, seen.transpose(1, 2)))
        for block in self.blocks:
            x = block(x, rotation, times, channels)
        return self.norm(x)


@register("channel_mixer")
class ChannelMixer(nn.Module):
    """All channels of a series at once, each seeing the others, whatever their order and number.

    Args:
        context: steps of the past that it is for.
        horizon: steps that it forecasts.
        channels: width of the features; one head of attention per 64.
        layers: number of blocks.
        patch: steps that make up one position.
        components: of the mixture.
    """

    symmetry: ClassVar[dict[str, str]] = {
        "scale": "exact",
        "offset": "exact",
        "delay": "none",
        "channels": "exact",
        "flow": "none",
    }
    domains: ClassVar[tuple[str, ...]] = ("series",)
    causal: ClassVar[bool] = False
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "1k": {"channels": 8, "layers": 1},
        "3k": {"channels": 12, "layers": 1},
        "10k": {"channels": 24, "layers": 1},
        "30k": {"channels": 28, "layers": 2},
        "100k": {"channels": 56, "layers": 2},
        "300k": {"channels": 64, "layers": 4},
        "1M": {"channels": 128, "layers": 4},
        "3M": {"channels": 192, "layers": 5},
    }

    def __init__(
        self, context: int, horizon: int, channels: int = 56, layers: int = 2, patch: int = 32, components: int = 4
    ) -> None:
        super().__init__()
        self.context, self.horizon, self.patch = context, horizon, patch
        self.embedding = nn.Linear(patch, channels)
        self.masked = nn.Parameter(torch.randn(channels))
        self.body = Body(channels, layers)
        self.head = MixtureHead(channels, patch, components)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Batch of series → mixture `logits`, `df`, `loc`, `scale` [B, C, S, K] in the units of the data.

        S is the horizon; in training it is the predicted part of the window, with its `values` and `weights` [B, C, S].
        """
        of = window(batch, self.horizon, self.patch, self.training)
        tokens, present = self.embedding(of.tokens[:, :, : of.known]), batch.past_observed.any(dim=-1, keepdim=True)
        masked = self.masked.expand(*present.shape[:2], of.ahead, -1)
        seen = torch.cat([of.patches_observed[..., : of.known], present.expand(-1, -1, of.ahead)], dim=2)
        features = self.body(torch.cat([tokens, masked], dim=2), seen)[:, :, of.known :]
        outputs = restored({name: part.flatten(2, 3) for name, part in self.head(features).items()}, of.instance)
        if self.training:
            return outputs | of.scored()
        return {name: part[:, :, : self.horizon] for name, part in outputs.items()}
