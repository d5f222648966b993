"""FLOPs of a potential by torch's count: matrix products, two per multiply-add; elementwise work is not counted."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from scisci.models.potential import Potential


def energy_flops(model: Potential, batch: Any) -> int:
    """FLOPs of the energies of a batch."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.energies(model.geometry(batch))
    return int(counter.get_total_flops())


def step_flops(model: Potential, batch: Any) -> int:
    """FLOPs of a training step on energies and forces: forward, gradient, and the backward pass through both."""
    was_training = model.training
    with FlopCounterMode(display=False) as counter:
        outputs = model.train()(batch)
        (outputs["interaction"].sum() + outputs["forces"].square().sum()).backward()
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return int(counter.get_total_flops())
