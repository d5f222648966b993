"""FLOPs of a model by torch's count: matrix products, two per multiply-add; elementwise work is not counted."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scisci.models.potential import Potential


def forward_flops(model: nn.Module, batch: Any) -> int:
    """FLOPs of what is predicted of a batch; of a potential the energies alone."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if isinstance(model, Potential):
            model.energies(model.geometry(batch))
        else:
            model(batch)
    return int(counter.get_total_flops())


def step_flops(model: nn.Module, batch: Any) -> int:
    """FLOPs of a training step on all outputs: of a potential forward, gradient, and the backward pass through both."""
    was_training = model.training
    with FlopCounterMode(display=False) as counter:
        sum(values.square().sum() for values in model.train()(batch).values()).backward()
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return int(counter.get_total_flops())
