"""Instance normalisation: every series in units of its own mean and standard deviation, and forecasts taken back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# A spread below this share of the largest value is what rounding to float32 leaves of a constant.
FLAT = 4 * torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Instance:
    """Mean and scale, [B, C, 1] each, of every channel of every series; the scale is above zero.

    `varies` [B, C, 1] is false where a channel is constant, and its scale therefore not its own.
    """

    mean: Tensor
    scale: Tensor
    varies: Tensor

    def normalise(self, values: Tensor) -> Tensor:
        """Values [B, C, n] in the units of the data → in units of each channel."""
        return (values - self.mean) / self.scale

    def restore(self, values: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return self.mean + self.scale * values


def instance(values: Float[Tensor, "batch channels times"], observed: Bool[Tensor, "batch channels times"]) -> Instance:
    """Mean and standard deviation over the observed values of every channel (Kim et al., RevIN, 2022).

    No epsilon is added to the variance, so the map is affine-equivariant at any scale: of a x + b the mean is a mean +
    b and the scale |a| scale. Only a channel that is constant, to float32's rounding, has no scale of its own: it gets
    its largest absolute value, or 1 where that is zero. A channel without any observation has mean 0 and scale 1.
    """
    exact = torch.where(observed, values, 0).double()
    count = observed.sum(dim=-1, keepdim=True).clamp(min=1)
    mean = exact.sum(dim=-1, keepdim=True) / count
    spread = ((exact - mean) * observed).square().sum(dim=-1, keepdim=True).div(count).sqrt()
    largest = exact.abs().amax(dim=-1, keepdim=True)
    size = torch.where(largest > 0, largest, 1)
    varies = spread > FLAT * largest
    scale = torch.where(varies, spread, size)
    return Instance(mean.to(values.dtype), scale.to(values.dtype), varies)
