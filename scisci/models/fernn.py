"""FERNN: a recurrent network on a ring of sensors whose hidden state rides along with every velocity of a set.

Keller, "Flow equivariant recurrent neural networks" (2025), on one dimension. With convolutions U, W around the ring,

    h_0[v] = 0,  h_{t+1}[v] = ReLU(U u_t + n W roll(h_t[v], v)),  forecast_t = decoder(max over v of p[v] h_{t+1}[v])

for the velocities v in -V..V (sensors a step). If what the sensors see starts to flow, u_t -> roll(u_t, w t), then
h_{t+1}[v] -> roll(h_{t+1}[v - w], w t): velocities are permuted, exactly, as long as v - w is one of them. With at
least as many velocities as sensors all of them are, and forecasts are exactly equivariant too; with fewer, they are as
far as the largest state is not found at an edge. With V = 0 it is the plain convolutional recurrent network, of as many
parameters.

n and p are 1 in Keller's; here both serve forecasts longer than those trained on. Of |h[v]|^2, a sum over channels and
sensors that is the same in every frame, n makes ReLU(n W roll(h)) have as much as h: a state that nothing drives never
grows or fades, however long it runs. p[v] = (|h[v]| / max over v of |h|)^8 leaves the frame in which a pattern adds up
and little of what it smears over others, which a plain maximum would mix in elsewhere at every step to come.

u_t is (x_t, 1) where a sensor is observed and (0, 0) where it is not: forecasting is running on without observations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import conv1d

from scisci.models.blocks.instance_norm import instance
from scisci.models.registry import register

# Of a sum of squares, which must have a gradient where it is zero.
SMALLEST = 1e-12
# How many times larger n makes a state at most, should W leave next to nothing that is positive.
MOST = 4.0
# p as a power of |h|^2.
POWER = 4


def around(sensors: Int[Tensor, " batch"], places: int, width: int, moved: Int[Tensor, " moves"]) -> Tensor:
    """[B, M, C + width - 1] from which sensor of its own ring each place of a padded ring, moved along, is read.

    `sensors` [B] are the sizes of the rings, `places` C that of the largest, `width` that of the convolution to come.
    """
    window = torch.arange(places + width - 1, device=sensors.device) - width // 2
    return (window - moved[:, None]) % sensors[:, None, None]


class RingConv(nn.Module):
    """Convolution around a ring; what it takes is padded by `around`."""

    def __init__(self, inputs: int, outputs: int, width: int, bias: bool = False) -> None:
        super().__init__()
        made = nn.Conv1d(inputs, outputs, width, bias=bias)
        self.weight, self.bias = made.weight, made.bias

    def forward(
        self, x: Float[Tensor, "batch moves inputs places"], index: Int[Tensor, "batch moves padded"]
    ) -> Float[Tensor, "batch moves outputs places"]:
        """[B, M, inputs, C] → [B, M, outputs, C]"""
        padded = x.gather(3, index[:, :, None].expand(*x.shape[:3], -1))
        return conv1d(padded.flatten(0, 1), self.weight, self.bias).unflatten(0, x.shape[:2])


def energy(
    state: Float[Tensor, "batch moves channels places"], real: Float[Tensor, "batch 1 1 places"]
) -> Float[Tensor, "batch moves 1 1"]:
    """Sum of squares of each state over channels and those places that are `real`."""
    return (state * real).square().sum(dim=(2, 3), keepdim=True) + SMALLEST


def real_places(state: Float[Tensor, "batch moves channels places"], sensors: Int[Tensor, " batch"]) -> Tensor:
    """[B, 1, 1, C] 1 where a ring has a sensor, 0 beyond it."""
    return (torch.arange(state.shape[3], device=sensors.device) < sensors[:, None])[:, None, None].to(state.dtype)


def over_velocities(
    state: Float[Tensor, "batch velocities channels places"], sensors: Int[Tensor, " batch"]
) -> Float[Tensor, "batch channels places"]:
    """Maximum over velocities of states, each times the `POWER`th power of its part of the largest sum of squares."""
    squares = energy(state, real_places(state, sensors))
    return (state * (squares / squares.amax(dim=1, keepdim=True)) ** POWER).amax(dim=1)


@register("fernn")
class FERNN(nn.Module):
    """Recurrent network on a ring of sensors, equivariant to flows around it: one hidden state per velocity.

    A ring is normalised by one mean and one standard deviation of all of its sensors, so that neither a flow nor a
    change of the unit makes a difference.

    Args:
        context: times that forecasts are made from.
        horizon: times to forecast.
        channels: hidden channels.
        width: of the convolutions, in sensors; odd.
        velocities: V, the largest velocity of a hidden state, in sensors a step; 0 is the plain recurrent network.
    """

    symmetry: ClassVar[dict[str, str]] = {
        "scale": "exact",
        "offset": "exact",
        "delay": "none",
        "channels": "none",
        "flow": "approximate",
    }
    domains: ClassVar[tuple[str, ...]] = ("series",)
    SIZES: ClassVar[dict[str, dict[str, int]]] = {
        "3k": {"channels": 14},
        "10k": {"channels": 26},
        "30k": {"channels": 46},
        "100k": {"channels": 84},
        "300k": {"channels": 146},
        "1M": {"channels": 267},
    }

    velocities: Tensor

    def __init__(self, context: int, horizon: int, channels: int = 14, width: int = 7, velocities: int = 3) -> None:
        super().__init__()
        if width % 2 == 0 or velocities < 0:
            raise ValueError("width must be odd, and velocities at least 0")
        if velocities == 0:
            self.symmetry = {**FERNN.symmetry, "flow": "none"}  # type: ignore[misc]
        self.context, self.horizon, self.width = context, horizon, width
        self.register_buffer("velocities", torch.arange(-velocities, velocities + 1), persistent=False)
        self.inputs = RingConv(2, channels, width)
        self.recurrence = RingConv(channels, channels, width)
        self.decoder = nn.ModuleList(RingConv(channels, outputs, width, bias=True) for outputs in (channels, 1))
        with torch.no_grad():
            # A state that stays what it is while nothing is observed (Le, Jaitly and Hinton 2015).
            self.recurrence.weight.mul_(0.1)[:, :, width // 2] += torch.eye(channels)

    def states(
        self,
        past: Float[Tensor, "batch sensors times"],
        observed: Bool[Tensor, "batch sensors times"],
        sensors: Int[Tensor, " batch"],
        more: int = 0,
    ) -> Iterator[Float[Tensor, "batch velocities channels sensors"]]:
        """h_1, h_2, ... [B, 2 V + 1, channels, C], after each time of `past` and after `more` times without any."""
        batch, places, times = past.shape
        still = around(sensors, places, self.width, self.velocities.new_zeros(1))
        moving = around(sensors, places, self.width, self.velocities)
        seen = torch.stack([past.where(observed, 0), observed.to(past.dtype)], dim=2)
        driven = self.inputs(seen.permute(0, 3, 2, 1), still)
        state = past.new_zeros(batch, len(self.velocities), driven.shape[2], places)
        real = real_places(state, sensors)
        for time in range(times + more):
            moved = self.recurrence(state, moving)
            moved = moved * (energy(state, real) / energy(moved.relu(), real)).sqrt().clamp(max=MOST)
            state = (moved + driven[:, time, None] if time < times else moved).relu()
            yield state

    def read(
        self, largest: Float[Tensor, "batch times channels sensors"], sensors: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch times sensors"]:
        """What the sensors see, of the maximum over velocities of hidden states: [B, n, C]"""
        still = around(sensors, largest.shape[3], self.width, self.velocities.new_zeros(1))
        first, second = self.decoder
        found: Tensor = second(first(largest, still).relu(), still)
        return found[:, :, 0]

    def forecast(
        self,
        past: Float[Tensor, "batch sensors times"],
        observed: Bool[Tensor, "batch sensors times"],
        sensors: Int[Tensor, " batch"],
        horizon: int,
    ) -> Float[Tensor, "batch sensors horizon"]:
        """What the sensors see in the `horizon` steps after `past`, in its units; rings are of the sizes `sensors`."""
        unit = instance(past.flatten(1)[:, None], observed.flatten(1)[:, None])
        states = self.states(unit.normalise(past), observed, sensors, horizon)
        largest = [over_velocities(state, sensors) for time, state in enumerate(states) if time >= past.shape[2]]
        return unit.restore(self.read(torch.stack(largest, dim=1), sensors).transpose(1, 2))

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Batch of windows → `point` [B, C, H]; in training also what it is scored against."""
        past = batch.past.to(self.inputs.weight.dtype)
        outputs = {"point": self.forecast(past, batch.past_observed, batch.channels, self.horizon)}
        if self.training:
            outputs |= {"values": batch.future, "weights": batch.future_observed.to(past.dtype)}
        return outputs
