"""Series cut into windows and patches, for models that forecast them: what is known, what is predicted, what is scored.

In training a model sees past and future and predicts the last part of both, whose length is drawn anew for each batch:
15 to 50 % of the window, as in Yao et al. (2024). Mean and scale are those of the part before it, so they tell nothing
of what is predicted. In evaluation it predicts the horizon, from the whole past.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from scisci.models.blocks.instance_norm import Instance, instance

LEAST_PREDICTED, MOST_PREDICTED = 0.15, 0.5
MIXTURE = ("logits", "df", "loc", "scale")
# Stands for what a model says of channels that hold nothing to forecast from.
NOTHING = {"df": 3.0, "scale": 1.0}
# Inputs beyond this many scales, after a constant past, are cut to it, so that their squares stay finite.
FARTHEST = 1e6


class Window(NamedTuple):
    """A stretch of time [*rows, N, P], in N patches of P steps (P = 1: single steps) of which `known` come first.

    `values` are in the units of the data, 0 where not `observed`; `instance` is taken from the known patches alone.
    """

    values: Tensor
    observed: Tensor
    known: int
    instance: Instance

    @property
    def ahead(self) -> int:
        """How many patches are predicted."""
        return self.values.shape[-2] - self.known

    @property
    def tokens(self) -> Float[Tensor, "*rows patches patch"]:
        """Values in units of the instance, 0 (its mean) where not observed."""
        normalised = self.instance.normalise(self.values.flatten(-2)).unflatten(-1, self.values.shape[-2:])
        return torch.where(self.observed, normalised.clamp(-FARTHEST, FARTHEST), 0)

    @property
    def patches_observed(self) -> Bool[Tensor, "*rows patches"]:
        """Whether any value of a patch is."""
        return self.observed.any(dim=-1)

    def scored(self) -> dict[str, Tensor]:
        """`values` and `weights` [*rows, S] of the predicted steps; no weight where nothing known sets the scale."""
        known = self.patches_observed[..., : self.known].any(dim=-1, keepdim=True)
        values, observed = (part[..., self.known :, :].flatten(-2) for part in (self.values, self.observed))
        return {"values": values, "weights": (observed & known).to(values.dtype)}


def predicted(total: int) -> int:
    """How many of the last pieces of a training window are predicted: 15 to 50 %, but neither none nor all."""
    share = torch.empty(()).uniform_(LEAST_PREDICTED, MOST_PREDICTED).item()
    return max(1, min(total - 1, round(share * total)))


def window(
    batch: Any, horizon: int, patch: int, training: bool, where: Bool[Tensor, "batch channels"] | None = None
) -> Window:
    """The window [B, C, N, P] of a batch of series, or [R, N, P] of the R channels `where` says.

    Patches are counted from where the past ends; incomplete ones are filled with unobserved steps. In evaluation the
    future is not read.
    """
    values, observed = [batch.past, batch.future], [batch.past_observed, batch.future_observed]
    if not training:
        values[1] = batch.past.new_zeros((*batch.past.shape[:-1], horizon))
        observed[1] = torch.zeros_like(values[1], dtype=torch.bool)
    if where is not None:
        values, observed = [part[where] for part in values], [part[where] for part in observed]
    fill = [-part.shape[-1] % patch for part in values]
    seen = functional.pad(torch.cat(observed, dim=-1), fill)
    cut = torch.where(seen, functional.pad(torch.cat(values, dim=-1), fill), 0)
    total, ahead = cut.shape[-1] // patch, -(-values[1].shape[-1] // patch)
    known = total - (predicted(total) if training else ahead)
    statistics = instance(cut[..., : known * patch], seen[..., : known * patch])
    return Window(cut.unflatten(-1, (-1, patch)), seen.unflatten(-1, (-1, patch)), known, statistics)


def restored(outputs: dict[str, Tensor], statistics: Instance) -> dict[str, Tensor]:
    """A mixture [*rows, S, K] or points [*rows, S], in units of the instance, in those of the data."""
    if "point" in outputs:
        return {"point": statistics.restore(outputs["point"])}
    mean, scale = statistics.mean[..., None], statistics.scale[..., None]
    return outputs | {"loc": mean + scale * outputs["loc"], "scale": scale * outputs["scale"]}


def spread(rows: dict[str, Tensor], where: Bool[Tensor, "batch channels"]) -> dict[str, Tensor]:
    """What is said of the channels `where`, [R, ...] each, back in their places [B, C, ...]."""
    outputs = {}
    for name, values in rows.items():
        outputs[name] = values.new_full((*where.shape, *values.shape[1:]), NOTHING.get(name, 0.0))
        outputs[name][where] = values
    return outputs


class MixtureHead(nn.Module):
    """The next steps as mixtures of Student t distributions, in units of the instance: df is 2 + softplus."""

    def __init__(self, channels: int, steps: int, components: int) -> None:
        super().__init__()
        self.steps, self.components = steps, components
        self.linear = nn.Linear(channels, len(MIXTURE) * steps * components)

    def forward(self, x: Float[Tensor, "*rows channels"]) -> dict[str, Float[Tensor, "*rows steps components"]]:
        """[..., C] → each [..., steps, K]"""
        logits, df, loc, scale = self.linear(x).unflatten(-1, (len(MIXTURE), self.steps, self.components)).unbind(-3)
        least = torch.finfo(scale.dtype).eps
        return {
            "logits": logits,
            "df": 2 + functional.softplus(df),
            "loc": loc,
            "scale": functional.softplus(scale).clamp(min=least),
        }
