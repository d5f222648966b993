"""What the encoder-only and the decoder-only patch transformer share.

Yao et al., "Towards neural scaling laws for time series foundation models" (2024): every channel by itself, patches of
32 steps through one linear map, and a mixture of four Student t distributions for every step.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scisci.models.blocks.patch import MixtureHead, Window, restored, spread, window
from scisci.models.blocks.sequence import Transformer

MOST_PATCHES = 512
# Named by the parameters of the body. Those of 872, 7,032, 100,928, 302,656, 1,771,712 and 4,747,264 parameters and
# the two largest are published; the others fill the gaps between them.
SIZES = {
    "1k": {"channels": 8, "layers": 1},
    "3k": {"channels": 16, "layers": 1},
    "7k": {"channels": 24, "layers": 1},
    "10k": {"channels": 20, "layers": 2},
    "30k": {"channels": 32, "layers": 2},
    "100k": {"channels": 64, "layers": 2},
    "300k": {"channels": 64, "layers": 6},
    "1M": {"channels": 128, "layers": 5},
    "1.8M": {"channels": 192, "layers": 4},
    "4.7M": {"channels": 256, "layers": 6},
    "14M": {"channels": 384, "layers": 8},
    "38M": {"channels": 512, "layers": 12},
}


class PatchTransformer(nn.Module):
    """Patches in, a body of attention, mixtures out, for each channel by itself.

    Args:
        context: steps of the past that it is for.
        horizon: steps that it forecasts.
        channels: width; one head of attention per 64.
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
    causal: ClassVar[bool]
    SIZES: ClassVar[dict[str, dict[str, int]]] = SIZES

    def __init__(
        self, context: int, horizon: int, channels: int = 64, layers: int = 2, patch: int = 32, components: int = 4
    ) -> None:
        super().__init__()
        if (patches := -(-context // patch) - (-horizon // patch)) > MOST_PATCHES:
            raise ValueError(f"context and horizon make {patches} patches of {patch}, more than {MOST_PATCHES}")
        self.context, self.horizon, self.patch = context, horizon, patch
        self.embedding = nn.Linear(patch, channels)
        self.body = Transformer(channels, layers, self.causal)
        self.head = MixtureHead(channels, patch, components)
        if not self.causal:
            self.masked = nn.Parameter(torch.randn(channels))

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Batch of series → mixture `logits`, `df`, `loc`, `scale` [B, C, S, K] in the units of the data.

        S is the horizon; in training it is the predicted part of the window, with its `values` and `weights` [B, C, S].
        """
        where = batch.past_observed.any(dim=-1)
        rows = window(batch, self.horizon, self.patch, self.training, where)
        outputs = restored({name: part.flatten(1, 2) for name, part in self.mixture(rows).items()}, rows.instance)
        if self.training:
            return spread(outputs | rows.scored(), where)
        return spread({name: part[:, : self.horizon] for name, part in outputs.items()}, where)

    def mixture(self, rows: Window) -> dict[str, Float[Tensor, "rows predicted patch components"]]:
        """Of the predicted patches, in units of the instance."""
        raise NotImplementedError
