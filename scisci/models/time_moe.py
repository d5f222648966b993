"""Time-MoE: a decoder over single steps whose feed-forward layers are mixtures of experts.

Shi et al., "Time-MoE: billion-scale time series foundation models with mixture of experts" (2025). Each step picks two
of eight experts, whose weights are the router's probabilities as they are, beside one shared expert behind a gate of
its own. Heads for several horizons are trained at once; a forecast takes the longest that fits into what is left of
the horizon, again and again.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from scisci.models.blocks.experts import Experts, balance
from scisci.models.blocks.norm import RMSNorm
from scisci.models.blocks.patch import Window, restored, spread, window
from scisci.models.blocks.rope import Rotation
from scisci.models.blocks.sequence import SelfAttention, visible
from scisci.models.registry import register

HORIZONS = (1, 8, 32, 64)
BALANCE = 0.02


class Layer(nn.Module):
    """Attention, then experts, each on input divided by its root mean square and added to the residual stream."""

    def __init__(self, channels: int, heads: int, hidden: int, experts: int, chosen: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed_forward = RMSNorm(channels), RMSNorm(channels)
        self.attention = SelfAttention(channels, heads, normalised=False, bias=True)
        self.feed_forward = Experts(channels, hidden, experts, chosen)

    def forward(self, x: Tensor, rotation: Rotation, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """[R, N, C] → [R, N, C], and the probabilities [R, N, E] that the router gave to the experts."""
        x = x + self.attention(self.norm_attention(x), rotation, mask, causal=True)
        change, probabilities = self.feed_forward(self.norm_feed_forward(x))
        return x + change, probabilities


class Body(nn.Module):
    """Layers of experts, and a last norm."""

    def __init__(self, channels: int, layers: int, heads: int, hidden: int, experts: int, chosen: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(channels, heads, hidden, experts, chosen) for _ in range(layers))
        self.norm = RMSNorm(channels)
        self.rotated = channels // heads

    def forward(self, x: Float[Tensor, "rows steps channels"], observed: Tensor) -> tuple[Tensor, Tensor]:
        """[R, N, C] → [R, N, C], and all probabilities of routing [layers, R, N, E]."""
        rotation, mask = Rotation.over(x.shape[1], self.rotated, x), visible(observed, causal=True)
        routes = []
        for layer in self.layers:
            x, probabilities = layer(x, rotation, mask)
            routes.append(probabilities)
        return self.norm(x), torch.stack(routes)


@register("time_moe")
class TimeMoE(nn.Module):
    """A decoder over steps with sparse experts, for each channel by itself; forecasts points.

    Args:
        context: steps of the past that it is for.
        horizon: steps that it forecasts.
        channels: width; a multiple of twice the `heads`.
        layers: number of layers.
        heads: attention heads.
        experts: among which the router of each layer chooses.
        chosen: how many of them each step sees. An expert is 4 / `chosen` times as wide as the model, the shared one 4.
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
    # Named by the parameters of the body; the published ones, too large for a CPU, are for overrides.
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "4k": {"channels": 8, "layers": 1, "heads": 1},
        "10k": {"channels": 12, "layers": 1, "heads": 1},
        "30k": {"channels": 16, "layers": 2, "heads": 2},
        "100k": {"channels": 24, "layers": 3, "heads": 2},
        "300k": {"channels": 40, "layers": 3, "heads": 2},
        "1M": {"channels": 64, "layers": 4, "heads": 4},
        "3M": {"channels": 96, "layers": 5, "heads": 4},
    }
    PUBLISHED: ClassVar[dict[str, dict[str, int]]] = {
        "base": {"channels": 384, "layers": 12, "heads": 12},
        "large": {"channels": 768, "layers": 12, "heads": 12},
    }

    def __init__(
        self,
        context: int,
        horizon: int,
        channels: int = 24,
        layers: int = 3,
        heads: int = 2,
        experts: int = 8,
        chosen: int = 2,
    ) -> None:
        super().__init__()
        if channels % (2 * heads):
            raise ValueError(f"channels ({channels}) must be a multiple of twice the heads ({heads})")
        if chosen > experts:
            raise ValueError(f"a step cannot see {chosen} of {experts} experts")
        self.context, self.horizon, self.chosen = context, horizon, chosen
        self.embedding = nn.Linear(1, 2 * channels, bias=False)
        self.body = Body(channels, layers, heads, 4 * channels, experts, chosen)
        self.heads = nn.ModuleList(nn.Linear(channels, steps, bias=False) for steps in HORIZONS)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Batch of series → `point` [B, C, S] in the units of the data.

        S is the horizon. In training it is every step of every head from every known-to-predicted origin, with `values`
        and `weights` that count all heads alike, and `penalty`, which keeps the experts in equal use.
        """
        where = batch.past_observed.any(dim=-1)
        rows = window(batch, self.horizon, 1, self.training, where)
        if not self.training:
            return spread(restored({"point": self.forecast(rows)}, rows.instance), where)
        hidden, penalty = self.hidden(rows.tokens[:, :-1], rows.patches_observed[:, :-1])
        point = torch.cat([head(hidden[:, rows.known - 1 :]).flatten(1) for head in self.heads], dim=1)
        scored = restored({"point": point}, rows.instance) | self.targets(rows)
        return spread(scored, where) | {"penalty": penalty}

    def hidden(self, steps: Float[Tensor, "rows steps one"], observed: Tensor) -> tuple[Tensor, Tensor]:
        """[R, N, C] features after each step, and the penalty on unequal use of experts."""
        gate, embedded = self.embedding(steps).chunk(2, dim=-1)
        x, routes = self.body(functional.silu(gate) * embedded, observed)
        return x, BALANCE * balance(routes[:, observed], self.chosen)

    def targets(self, rows: Window) -> dict[str, Tensor]:
        """What each head is to say from each origin: `values` and `weights` [R, S], S over heads, origins and steps.

        The weights of each head sum to the number of steps predicted, so that the mean is one over heads.
        """
        scored, values, weights = rows.scored(), [], []
        for steps in HORIZONS:
            # Beyond the end of the window nothing is observed.
            of_head = {name: functional.pad(part, (0, steps - 1)).unfold(1, steps, 1) for name, part in scored.items()}
            balanced = scored["weights"].sum() / of_head["weights"].sum().clamp(min=1)
            values.append(of_head["values"].flatten(1))
            weights.append((of_head["weights"] * balanced).flatten(1))
        return {"values": torch.cat(values, dim=1), "weights": torch.cat(weights, dim=1)}

    def forecast(self, rows: Window) -> Float[Tensor, "rows horizon"]:
        """In units of the instance."""
        steps, observed = rows.tokens[:, : rows.known], rows.patches_observed[:, : rows.known]
        while (left := rows.ahead + rows.known - steps.shape[1]) > 0:
            head = max(i for i, length in enumerate(HORIZONS) if length <= left)
            found = self.heads[head](self.hidden(steps, observed)[0][:, -1])
            steps = torch.cat([steps, found[..., None]], dim=1)
            observed = torch.cat([observed, torch.ones_like(found, dtype=torch.bool)], dim=1)
        return steps[:, rows.known :, 0]
