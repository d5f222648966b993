"""Group actions on batches of time series: targets [B, C, T], and what models say of them at later times.

Columns of a target are at times 0 to T - 1, those of a forecast [B, C, H] at T to T + H - 1. An element acts on values
from any time on, so the same one acts on a target and, by its inverse, takes a forecast back. Every series of a batch
has its own element.

    scale     x -> a x, one a > 0 for all channels, log-uniform from 1/10 to 10
    offset    x -> x + b, one b for all channels, uniform up to 10 standard deviations of what is observed
    delay     x(c, t) -> x(c, t - k mod T), uniform on Z_T; a symmetry of signals with period T alone
    channels  any order of the channels, uniform on S_C
    flow      x(c, t) -> x(c - v t mod C, t), uniform on Z_C: sensors on a ring, seen from a frame that moves by v
              sensors a step (Keller, "Flow equivariant recurrent neural networks", 2025)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scisci.contracts.errors import unknown_name

LARGEST_SCALE = 10.0
LARGEST_OFFSET = 10.0


@dataclass(frozen=True)
class Affine:
    """x -> scale x + offset."""

    scale: Float[Tensor, "batch 1 1"]
    offset: Float[Tensor, "batch 1 1"]

    def __call__(self, values: Tensor, start: int = 0) -> Tensor:
        """[B, C, n] → [B, C, n]"""
        return self.scale.to(values) * values + self.offset.to(values)

    def inverse(self) -> Affine:
        """The element that takes everything back."""
        return Affine(1 / self.scale, -self.offset / self.scale)

    def __matmul__(self, first: Affine) -> Affine:
        """This element after `first`."""
        return Affine(self.scale * first.scale, self.scale * first.offset + self.offset)


@dataclass(frozen=True)
class Delay:
    """x(c, t) -> x(c, t - steps), for signals of which `period` steps repeat."""

    steps: Int[Tensor, " batch"]
    period: int

    def __call__(self, values: Tensor, start: int = 0) -> Tensor:
        """[B, C, n] → [B, C, n]; NaN at times whose counterpart is not among the n, as near a short forecast's end."""
        count = values.shape[2]
        come_from = (torch.arange(count, device=values.device) - self.steps.to(values.device)[:, None]) % self.period
        known = come_from < count
        found = values.gather(2, come_from.clamp(max=count - 1)[:, None].expand_as(values))
        return found if known.all() else torch.where(known[:, None], found, torch.nan)

    def inverse(self) -> Delay:
        """The element that takes everything back."""
        return Delay(-self.steps % self.period, self.period)

    def __matmul__(self, first: Delay) -> Delay:
        """This element after `first`."""
        return Delay((self.steps + first.steps) % self.period, self.period)


@dataclass(frozen=True)
class Reorder:
    """Channel k becomes what channel `order[k]` was."""

    order: Int[Tensor, "batch channels"]

    def __call__(self, values: Tensor, start: int = 0) -> Tensor:
        """[B, C, n] → [B, C, n]"""
        return values.gather(1, self.order.to(values.device)[:, :, None].expand_as(values))

    def inverse(self) -> Reorder:
        """The element that takes everything back."""
        return Reorder(torch.argsort(self.order))

    def __matmul__(self, first: Reorder) -> Reorder:
        """This element after `first`."""
        return Reorder(first.order.gather(1, self.order))


@dataclass(frozen=True)
class Flow:
    """x(c, t) -> x(c - velocity t, t) on a ring of channels; the velocity is in channels a step, a whole number."""

    velocity: Int[Tensor, " batch"]

    def __call__(self, values: Tensor, start: int = 0) -> Tensor:
        """[B, C, n] at times from `start` on → [B, C, n]"""
        channels, times = (torch.arange(n, device=values.device) for n in values.shape[1:])
        moved = self.velocity.to(values.device)[:, None, None] * (start + times)
        return values.gather(1, (channels[:, None] - moved) % values.shape[1])

    def inverse(self) -> Flow:
        """The element that takes everything back."""
        return Flow(-self.velocity)

    def __matmul__(self, first: Flow) -> Flow:
        """This element after `first`."""
        return Flow(self.velocity + first.velocity)


SeriesElement = Affine | Delay | Reorder | Flow
# Of a target [B, C, T] that is NaN where nothing was observed.
Draw = Callable[[Tensor, np.random.Generator], SeriesElement]


def _scale(target: Tensor, rng: np.random.Generator) -> Affine:
    drawn = torch.from_numpy(LARGEST_SCALE ** rng.uniform(-1, 1, (len(target), 1, 1)))
    return Affine(drawn, torch.zeros_like(drawn))


def _offset(target: Tensor, rng: np.random.Generator) -> Affine:
    values = target.double().flatten(1)
    spread = (values - values.nanmean(dim=1, keepdim=True)).square().nanmean(dim=1).sqrt().nan_to_num().cpu()
    drawn = torch.from_numpy(rng.uniform(-LARGEST_OFFSET, LARGEST_OFFSET, (len(target), 1, 1)))
    return Affine(torch.ones_like(drawn), drawn * spread[:, None, None])


def _delay(target: Tensor, rng: np.random.Generator) -> Delay:
    return Delay(torch.from_numpy(rng.integers(target.shape[2], size=len(target))), target.shape[2])


def _channels(target: Tensor, rng: np.random.Generator) -> Reorder:
    return Reorder(torch.from_numpy(np.argsort(rng.random(target.shape[:2]), axis=1)))


def _flow(target: Tensor, rng: np.random.Generator) -> Flow:
    return Flow(torch.from_numpy(rng.integers(target.shape[1], size=len(target))))


SERIES: dict[str, Draw] = {
    "scale": _scale,
    "offset": _offset,
    "delay": _delay,
    "channels": _channels,
    "flow": _flow,
}


def apply_to_series(
    element: SeriesElement, target: Float[Tensor, "batch channels times"], mask: Bool[Tensor, "batch channels times"]
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """The acted target and mask, and what takes a forecast [B, C, H] of the acted target back.

    `mask` is true where values are observed; it moves with them. Values in the padding stay what they are.
    """
    after = target.shape[2]

    def undo(forecast: Tensor) -> Tensor:
        return element.inverse()(forecast, after)

    if isinstance(element, Affine):
        return torch.where(mask, element(target), target), mask, undo
    return element(target), element(mask), undo


def act_on_series(
    group: str, target: Tensor, rng: np.random.Generator, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Act on every series of a batch with its own random element of `group`; returns as `apply_to_series` does.

    Without a mask everything is observed. An unknown group is a `UserError` with the closest names.
    """
    if group not in SERIES:
        raise unknown_name("symmetry group of series", group, SERIES)
    mask = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    return apply_to_series(SERIES[group](target.where(mask, torch.nan), rng), target, mask)
