"""Linear layers that keep the variance of their inputs at the start."""

from __future__ import annotations

import math

from torch import nn


def scaled_linear(inputs: int, outputs: int, bias: bool = True, gain: float = 1.0) -> nn.Linear:
    """A linear layer whose outputs have `gain` times the root mean square of its inputs; the bias starts at zero.

    Weights are drawn from a normal distribution of variance gain² / inputs (LeCun et al., "Efficient backprop", 1998,
    eq. 16).
    """
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(inputs))
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
