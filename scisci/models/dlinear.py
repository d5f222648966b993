"""DLinear: a moving average and what is left of it, each through one linear map from the context to the horizon.

Zeng et al., "Are transformers effective for time series forecasting?" (2023), with maps that all channels share, in
units of each channel's own mean and standard deviation.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from scisci.models.blocks.instance_norm import instance
from scisci.models.registry import register


def carried_forward(values: Tensor, observed: Bool[Tensor, "*rows times"]) -> Float[Tensor, "*rows times"]:
    """Values [..., T] with the last observed one where one is missing; before the first, that one."""
    time = torch.arange(values.shape[-1], device=values.device)
    latest = torch.where(observed, time, -1).cummax(dim=-1).values
    first = observed.to(torch.uint8).argmax(dim=-1, keepdim=True)
    return values.gather(-1, torch.where(latest < 0, first, latest))


@register("dlinear")
class DLinear(nn.Module):
    """Linear maps of a channel's trend and of its remainder; forecasts points.

    Args:
        context: steps of the past that it is for.
        horizon: steps that it forecasts.
        kernel: steps of the moving average, an odd number.
    """

    symmetry: ClassVar[dict[str, str]] = {
        "scale": "exact",
        "offset": "exact",
        "delay": "none",
        "channels": "exact",
        "flow": "none",
    }
    domains: ClassVar[tuple[str, ...]] = ("series",)
    # How many parameters there are follows from context and horizon alone.
    SIZES: ClassVar[dict[str, dict[str, int]]] = {"linear": {"kernel": 25}}

    def __init__(self, context: int, horizon: int, kernel: int = 25) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel ({kernel}) must be odd")
        self.context, self.horizon, self.kernel = context, horizon, kernel
        self.trend, self.remainder = nn.Linear(context, horizon), nn.Linear(context, horizon)

    def forward(self, batch: Any) -> dict[str, Float[Tensor, "batch channels horizon"]]:
        """Batch of series → `point` [B, C, H] in the units of the data; missing values take the last observed one."""
        units = instance(batch.past, batch.past_observed)
        known = torch.where(batch.past_observed, units.normalise(batch.past), 0)
        x = carried_forward(known, batch.past_observed)
        reach = self.kernel // 2
        trend = functional.avg_pool1d(functional.pad(x, (reach, reach), mode="replicate"), self.kernel, stride=1)
        return {"point": units.restore(self.trend(trend) + self.remainder(x - trend))}
