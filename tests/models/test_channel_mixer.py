"""The channel mixer: what channels say of each other is used, whatever their order."""

from __future__ import annotations

import pytest
import torch

from scisci.models import registry
from scisci.models.channel_mixer import Body
from scisci.models.potential import parameter_counts
from tests.models.test_patch import batch_of


def test_parameters_are_those_of_two_attentions_and_one_network() -> None:
    with torch.device("meta"):
        model = registry.build_forecaster("channel_mixer", 512, 64, channels=128, layers=3)
    # Per block: 8 d² of attention, 3 d 344 of SwiGLU, norms of three inputs, and of queries and keys of 64 channels.
    body = 3 * (8 * 128**2 + 3 * 128 * 344 + 3 * 128 + 4 * 64) + 128
    assert parameter_counts(model) == (body + 33 * 128 + 128 + 129 * 512, body)


def test_the_body_commutes_with_any_order_of_channels_and_never_looks_at_what_is_not_seen() -> None:
    torch.manual_seed(0)
    body = Body(12, 2).double()
    x, seen = torch.randn(2, 5, 7, 12, dtype=torch.float64), torch.rand(2, 5, 7) < 0.7
    order = torch.tensor([3, 1, 4, 0, 2])
    found = body(x, seen)
    torch.testing.assert_close(body(x[:, order], seen[:, order]), found[:, order], rtol=0, atol=1e-12)
    other = torch.where(seen[..., None], x, torch.randn_like(x))
    torch.testing.assert_close(body(other, seen)[seen], found[seen], rtol=0, atol=1e-12)
    seen[:, 4] = False
    torch.testing.assert_close(body(x, seen)[:, :4], body(x[:, :4], seen[:, :4]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "mixes"), [("channel_mixer", True), ("patch_encoder", False)])
def test_a_forecast_depends_on_the_other_channels(name: str, mixes: bool) -> None:
    torch.manual_seed(0)
    model = registry.build_forecaster(name, 128, 40, channels=24, layers=2).double().eval()
    past = torch.randn(2, 3, 128, dtype=torch.float64, requires_grad=True)
    first = model(batch_of(past, torch.zeros(2, 3, 40)))["loc"][0, 0].sum()
    (reach,) = torch.autograd.grad(first, past)
    assert reach[0, 0].any()
    assert bool(reach[0, 1:].any()) == mixes
    assert not reach[1].any()
