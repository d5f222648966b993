"""Time-MoE: published sizes, experts against a loop over rows, the balance of their use, and its heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from scisci.contracts.errors import UserError
from scisci.models import registry
from scisci.models.blocks.experts import Experts, balance
from scisci.models.potential import parameter_counts
from scisci.models.time_moe import HORIZONS, TimeMoE
from tests.models.test_patch import batch_of


# Shi et al. (2025): all parameters, and those that a step uses.
@pytest.mark.parametrize(("size", "total", "active"), [("base", 113_352_192, 49.65e6), ("large", 453_196_800, 198.4e6)])
def test_published_sizes(size: str, total: int, active: float) -> None:
    with torch.device("meta"):
        model = TimeMoE(4096, 64, **TimeMoE.PUBLISHED[size])
    experts = sum(p.numel() for e in model.modules() if isinstance(e, Experts) for p in (e.gate_up, e.down))
    around = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("body"))
    assert parameter_counts(model) == (total, total - around)
    assert total - experts * 6 / 8 == pytest.approx(active, rel=1e-3)


def test_experts_in_mixed_precision_differ_by_rounding_alone() -> None:
    torch.manual_seed(0)
    experts, x = Experts(6, 24, 8, 2), torch.randn(32, 6)
    expected, _ = experts(x)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = experts(x)
    # Another expert may be chosen where two are as probable.
    close = (found - expected).abs().amax(dim=1) < 0.05 * expected.abs().max()
    assert (found - expected).abs().max() > 0
    assert close.float().mean() > 0.9


def test_experts_agree_with_a_loop_over_rows() -> None:
    torch.manual_seed(0)
    experts = Experts(6, 24, 8, 2).double()
    x = torch.randn(3, 11, 6, dtype=torch.float64)
    found, probabilities = experts(x)
    for at in np.ndindex(3, 11):
        row = x[at]
        p = torch.softmax(experts.router.weight @ row, 0)
        torch.testing.assert_close(probabilities[at], p)
        expected = torch.sigmoid(experts.shared_gate.weight @ row) * experts.shared(row)
        for e in p.argsort(descending=True)[:2]:
            gate, up = (experts.gate_up[e] @ row).chunk(2)
            expected = expected + p[e] * (experts.down[e] @ (functional.silu(gate) * up))
        torch.testing.assert_close(found[at], expected)
    assert torch.autograd.gradcheck(lambda part: experts(part)[0], x[:1, :3].clone().requires_grad_())


def test_balance_is_least_where_experts_are_in_equal_use() -> None:
    spread = torch.full((2, 8, 8), 0.1) + 0.2 * torch.eye(8).roll(1, 0) + torch.eye(8) * 0.1
    spread = spread / spread.sum(-1, keepdim=True)
    torch.testing.assert_close(balance(spread, 2), torch.tensor(2.0))
    crowded = torch.tensor([0.5, 0.3, *[0.2 / 6] * 6]).expand(2, 8, 8)
    # All choose the same two: 8 (1 * .5 + 1 * .3).
    torch.testing.assert_close(balance(crowded, 2), torch.tensor(6.4))


def test_the_penalty_is_a_fiftieth_of_the_balance_over_observed_steps_of_all_layers() -> None:
    torch.manual_seed(0)
    model, whole = TimeMoE(24, 8, channels=8, layers=2, heads=1).double(), torch.randn(2, 1, 32).double()
    seen = torch.rand(2, 1, 32) < 0.7
    routes = []
    for layer in model.body.layers:
        layer.feed_forward.register_forward_hook(lambda _, __, out: routes.append(out[1]))
    found = model(batch_of(*whole.split((24, 8), -1), seen))["penalty"]
    rows = torch.stack(routes)[:, seen[:, 0, :-1]].flatten(0, 1)
    picked = torch.zeros_like(rows).scatter(1, rows.topk(2).indices, 1.0)
    torch.testing.assert_close(found, 0.02 * 8 * (picked.mean(0) * rows.mean(0)).sum())


def test_heads_are_scored_at_every_step_ahead_and_count_alike() -> None:
    torch.manual_seed(0)
    times = torch.arange(96.0).expand(1, 1, 96).double()
    seen = torch.rand(1, 1, 96) < 0.8
    model = TimeMoE(64, 32, channels=8, layers=1, heads=1).double()
    outputs = model(batch_of(*times.split((64, 32), -1), seen))
    values, weights = outputs["values"][0, 0], outputs["weights"][0, 0]
    count = len(values) // sum(HORIZONS)
    first, start = 96 - count, 0
    for steps in HORIZONS:
        for origin in range(count):
            for ahead in range(steps):
                at, place = first + origin + ahead, start + origin * steps + ahead
                scored = at < 96 and bool(seen[0, 0, at])
                assert (weights[place] > 0) == scored
                assert values[place] == at or not scored
        part = slice(start, start + count * steps)
        torch.testing.assert_close(weights[part].sum(), seen[..., first:].sum().double())
        start += count * steps


def test_the_loss_is_the_mean_over_heads() -> None:
    torch.manual_seed(0)
    model, whole = TimeMoE(64, 32, channels=8, layers=1, heads=1).double(), torch.randn(2, 1, 96).double()
    outputs = model(batch_of(*whole.split((64, 32), -1)))
    missed = functional.huber_loss(outputs["point"], outputs["values"], reduction="none", delta=2.0)
    weights, count = outputs["weights"], missed.shape[-1] // sum(HORIZONS)
    parts = [part * count for part in HORIZONS]
    means = [m[w > 0].mean() for m, w in zip(missed.split(parts, -1), weights.split(parts, -1), strict=True)]
    torch.testing.assert_close((missed * weights).sum() / weights.sum(), torch.stack(means).mean())


@pytest.mark.parametrize(("horizon", "heads"), [(1, [1]), (40, [32, 8]), (75, [64, 8, 1, 1, 1]), (128, [64, 64])])
def test_forecasts_take_the_longest_head_that_fits(horizon: int, heads: list[int]) -> None:
    model, used = TimeMoE(16, horizon, channels=8, layers=1, heads=1).eval(), []
    for head in model.heads:
        head.register_forward_hook(lambda module, _, __: used.append(module.out_features))
    found = model(batch_of(torch.randn(1, 2, 16), torch.zeros(1, 2, horizon)))["point"]
    assert found.shape == (1, 2, horizon)
    assert used == heads


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="multiple of twice the heads"):
        registry.build_forecaster("time_moe", 16, 8, channels=6, heads=2)
    with pytest.raises(UserError, match="cannot see 9 of 8"):
        registry.build_forecaster("time_moe", 16, 8, chosen=9)
