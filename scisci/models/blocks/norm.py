"""Normalisation over channels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last axis, then scale. Zhang & Sennrich (2019), eq. 4.

    Written out, since the fused kernel has no second derivative on every device and forces need one.
    """

    def __init__(self, channels: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.epsilon = epsilon

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows channels"]:
        """[..., C] → [..., C]"""
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.epsilon) * self.scale
