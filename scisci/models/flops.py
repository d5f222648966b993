"""FLOPs of a model by torch's count: matrix products, two per multiply-add; elementwise work is not counted.

See docs/accounting.md for the closed forms that the counts of transformers are held to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from scisci.models.potential import Potential


def flop_counter() -> FlopCounterMode:
    """Counts the FLOPs of what is done inside it; `get_total_flops` tells them.

    torch's own counter knows the fused attention of GPUs and takes that of CPUs for nothing. Attention is counted over
    all pairs of positions, masked or not; its backward pass as five products, since it works the scores out again.
    """
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return FlopCounterMode(display=False, custom_mapping={attention: _attention, backward: _attention_backward})


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


def forward_flops(model: nn.Module, batch: Any) -> int:
    """FLOPs of what is predicted of a batch; of a potential the energies alone."""
    with flop_counter() as counter, torch.no_grad():
        if isinstance(model, Potential):
            model.energies(model.geometry(batch))
        else:
            model(batch)
    return int(counter.get_total_flops())


def step_flops(model: nn.Module, batch: Any) -> int:
    """FLOPs of a training step on all outputs: of a potential forward, gradient, and the backward pass through both."""
    was_training = model.training
    with flop_counter() as counter:
        sum(values.square().sum() for values in model.train()(batch).values()).backward()
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return int(counter.get_total_flops())
