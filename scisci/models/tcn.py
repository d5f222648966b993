"""Temporal convolutional network: causal convolutions whose dilation doubles from block to block.

Bai, Kolter & Koltun, "An empirical evaluation of generic convolutional and recurrent networks for sequence modeling"
(2018): two convolutions of three steps per block, their weights normalised, each block added to its input. A head
reads the whole horizon off the last known step. In training it does so from several steps, a horizon apart, so that
every step of the predicted part is scored once.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from scisci.models.blocks.patch import MixtureHead, restored, spread, window
from scisci.models.registry import register

KERNEL = 3


class Block(nn.Module):
    """Two causal convolutions with the same dilation, added to their input."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.reach = (KERNEL - 1) * dilation
        self.first, self.second = (
            weight_norm(nn.Conv1d(channels, channels, KERNEL, dilation=dilation)) for _ in range(2)
        )

    def forward(self, x: Float[Tensor, "rows channels steps"], begun: Tensor) -> Float[Tensor, "rows channels steps"]:
        """[R, C, T] → [R, C, T]; zero until a row has begun, as if nothing came before."""
        change = functional.relu(self.first(functional.pad(x, (self.reach, 0)))) * begun
        change = functional.relu(self.second(functional.pad(change, (self.reach, 0)))) * begun
        return x + change


class Body(nn.Module):
    """Blocks of dilation 1, 2, 4, ..., each seeing as many steps as all before it together."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, 2**i) for i in range(layers))

    def forward(self, x: Float[Tensor, "rows channels steps"], begun: Tensor) -> Float[Tensor, "rows channels steps"]:
        """[R, C, T] → [R, C, T]"""
        for block in self.blocks:
            x = block(x, begun)
        return x


@register("tcn")
class TCN(nn.Module):
    """Dilated causal convolutions over steps, for each channel by itself.

    Args:
        context: steps of the past that it is for.
        horizon: steps that it forecasts, all from one state.
        channels: width.
        layers: number of blocks; together they see 4 (2^layers - 1) + 1 steps.
        output: "mixture" of Student t distributions or "point".
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
    causal: ClassVar[bool] = True
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "1k": {"channels": 5, "layers": 7},
        "3k": {"channels": 8, "layers": 7},
        "10k": {"channels": 15, "layers": 7},
        "30k": {"channels": 26, "layers": 7},
        "100k": {"channels": 48, "layers": 7},
        "300k": {"channels": 84, "layers": 7},
        "1M": {"channels": 154, "layers": 7},
    }

    def __init__(
        self,
        context: int,
        horizon: int,
        channels: int = 48,
        layers: int = 7,
        output: str = "mixture",
        components: int = 4,
    ) -> None:
        super().__init__()
        if output not in ("mixture", "point"):
            raise ValueError(f"output is {output!r}, but must be 'mixture' or 'point'")
        self.context, self.horizon = context, horizon
        self.embedding = nn.Linear(2, channels)
        self.body = Body(channels, layers)
        self.head = MixtureHead(channels, horizon, components) if output == "mixture" else nn.Linear(channels, horizon)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Batch of series → mixture `logits`, `df`, `loc`, `scale` [B, C, S, K] or `point` [B, C, S] in data's units.

        S is the horizon; in training it is the predicted part of the window, with its `values` and `weights` [B, C, S].
        """
        where = batch.past_observed.any(dim=-1)
        rows = window(batch, self.horizon, self.horizon, self.training, where)
        last = -1 if self.training else rows.known
        features = self.states(rows.tokens[:, :last], rows.observed[:, :last])[:, rows.known - 1 :]
        found = self.head(features)
        outputs = {"point": found} if isinstance(found, Tensor) else found
        outputs = restored({name: part.flatten(1, 2) for name, part in outputs.items()}, rows.instance)
        return spread(outputs | rows.scored() if self.training else outputs, where)

    def states(
        self, values: Float[Tensor, "rows patches patch"], observed: Bool[Tensor, "rows patches patch"]
    ) -> Float[Tensor, "rows patches channels"]:
        """Features at the last step of each stretch of a horizon's length."""
        steps, seen = values.flatten(1), observed.flatten(1)
        begun = (seen.cumsum(dim=1) > 0).to(steps.dtype)[:, None]
        x = self.embedding(torch.stack([steps, seen.to(steps.dtype)], dim=-1)).transpose(1, 2) * begun
        return self.body(x, begun)[:, :, self.horizon - 1 :: self.horizon].transpose(1, 2)
