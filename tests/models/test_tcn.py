"""The TCN: how far it sees, its blocks against a loop over steps, and what it is scored on."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from scisci.contracts.errors import UserError
from scisci.models import registry
from scisci.models.potential import parameter_counts
from scisci.models.tcn import KERNEL, TCN, Block
from tests.models.test_patch import batch_of


@pytest.mark.parametrize("layers", [1, 3, 5])
def test_it_sees_as_far_as_it_says(layers: int) -> None:
    torch.manual_seed(0)
    model, reach = TCN(200, 4, channels=16, layers=layers).double(), 4 * (2**layers - 1) + 1
    values = torch.randn(1, 50, 4, dtype=torch.float64, requires_grad=True)
    last = model.states(values, torch.ones(1, 50, 4, dtype=torch.bool))[0, -1]
    (seen,) = torch.autograd.grad(last.square().sum(), values)
    assert seen.flatten().nonzero().min() == 200 - reach


def test_a_block_agrees_with_a_loop_over_steps() -> None:
    torch.manual_seed(0)
    block = Block(3, 4).double()
    x, begun = torch.randn(2, 3, 30, dtype=torch.float64), torch.ones(2, 1, 30, dtype=torch.float64)
    begun[1, :, :11] = 0
    x = x * begun

    def convolved(inputs: torch.Tensor, convolution: nn.Module) -> torch.Tensor:
        out = torch.zeros_like(inputs)
        for t in range(30):
            total = convolution.bias.expand(2, 3).clone()
            for tap in range(KERNEL):
                if (at := t - 4 * (KERNEL - 1 - tap)) >= 0:
                    total = total + inputs[:, :, at] @ convolution.weight[:, :, tap].T
            out[:, :, t] = functional.relu(total) * begun[:, :, t]
        return out

    torch.testing.assert_close(block(x, begun), x + convolved(convolved(x, block.first), block.second))


def test_every_predicted_step_is_scored_once_up_to_the_end() -> None:
    times = torch.arange(120.0).expand(1, 1, 120)
    counts = set()
    for seed in range(20):
        torch.manual_seed(seed)
        model = TCN(100, 20, channels=4, layers=2)
        values = model(batch_of(*times.split((100, 20), -1)))["values"][0, 0].tolist()
        assert all(b - a == 1 for a, b in pairwise(values))
        assert values[-1] == 119
        counts.add(len(values))
    # 15 to 50 % of six pieces of a horizon.
    assert counts == {20, 40, 60}


def test_outputs_are_mixtures_or_points() -> None:
    batch = batch_of(torch.randn(2, 3, 30), torch.zeros(2, 3, 7))
    mixture = registry.build_forecaster("tcn", 30, 7, channels=4, layers=2).eval()(batch)
    assert {name: tuple(part.shape) for name, part in mixture.items()} == dict.fromkeys(
        ("logits", "df", "loc", "scale"), (2, 3, 7, 4)
    )
    model = registry.build_forecaster("tcn", 30, 7, channels=4, layers=2, output="point")
    assert {name: tuple(part.shape) for name, part in model.eval()(batch).items()} == {"point": (2, 3, 7)}
    # Two convolutions of 3 steps with bias and weight norm in each block; two linear maps around them.
    body = 2 * 2 * (3 * 4 * 4 + 4 + 4)
    assert parameter_counts(model) == (body + 12 + 35, body)
    with pytest.raises(UserError, match="'mixture' or 'point'"):
        registry.build_forecaster("tcn", 30, 7, output="points")
