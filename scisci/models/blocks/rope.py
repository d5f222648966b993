"""Rotary positions: queries and keys turned by angles that grow with time, so that their products see time differences.

Su et al., "RoFormer: enhanced transformer with rotary position embedding" (2021).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Rotation(NamedTuple):
    """Cosine and sine [N, 1, width / 2] of the angle of each position in each plane."""

    cosine: Tensor
    sine: Tensor

    @classmethod
    def over(cls, positions: int, width: int, like: Tensor, base: float = 10_000.0) -> Rotation:
        """Angles of positions 0, 1, ... in `width / 2` planes; plane i turns by base^(-2 i / width) per position."""
        planes = torch.arange(0, width, 2, device=like.device, dtype=torch.float64)
        steps = torch.arange(positions, device=like.device, dtype=torch.float64)
        angle = steps[:, None, None] * base ** (-planes / width)
        return cls(angle.cos().to(like.dtype), angle.sin().to(like.dtype))

    def turn(
        self, x: Float[Tensor, "*rows positions heads channels"]
    ) -> Float[Tensor, "*rows positions heads channels"]:
        """[..., N, heads, C] with the first `width` channels turned and the others left as they are."""
        half = self.cosine.shape[-1]
        first, second, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
        turned = (first * self.cosine - second * self.sine, second * self.cosine + first * self.sine, rest)
        return torch.cat(turned, dim=-1)
