"""Maximal update: closed forms of initial values and rates, and training against constants in the forward pass."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from scisci.contracts.errors import UserError
from scisci.models import registry, width
from scisci.models.blocks.graph import Inputs
from scisci.models.cloud import VectorHead
from scisci.models.width import maximal_update


def network(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, channels), nn.SiLU(), nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 2)
    )


class WithConstants(nn.Module):
    """Table 8 of the paper written out: the output is divided by the ratio, its weights start at ratio^1/2."""

    def __init__(self, model: nn.Sequential, ratio: float) -> None:
        super().__init__()
        *body, self.last = model
        self.body, self.ratio = nn.Sequential(*body), ratio
        with torch.no_grad():
            for layer in (body[2], self.last):
                layer.bias.mul_(ratio**0.5)
            self.last.weight.mul_(ratio**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.body(x) / self.ratio, self.last.weight, self.last.bias)


def test_training_is_that_of_constants_in_the_forward_pass() -> None:
    torch.manual_seed(0)
    ratio, rate, decay = 5.0, 1e-2, 0.1
    ours, x, y = network(40).double(), torch.randn(64, 3).double(), torch.randn(64, 2).double()
    written_out = network(40).double()
    written_out.load_state_dict(ours.state_dict())
    written_out = WithConstants(written_out, ratio)
    rates = maximal_update(ours, network(8))
    groups = [
        {"params": [p], "lr": rate * rates[name], "weight_decay": decay / rates[name]}
        for name, p in ours.named_parameters()
    ]
    hidden = {id(written_out.body[2].weight)}
    slow = [p for p in written_out.parameters() if id(p) in hidden]
    others = [p for p in written_out.parameters() if id(p) not in hidden]
    theirs = [
        {"params": slow, "lr": rate / ratio, "weight_decay": decay * ratio},
        {"params": others, "lr": rate, "weight_decay": decay},
    ]
    # Adam's epsilon alone knows the scale of gradients.
    pairs = [(m, torch.optim.AdamW(g, eps=1e-30)) for m, g in ((ours, groups), (written_out, theirs))]
    first = ours(x).detach()
    for _ in range(30):
        for model, optimizer in pairs:
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours(x), written_out(x), rtol=1e-9, atol=1e-9)
    assert (ours(x) - first).detach().std() > first.std()


def backbone(name: str, **options: int) -> nn.Module:
    torch.manual_seed(1)
    return registry.build(name, Inputs((1, 6, 8)), 10.0, **options)


WIDE = {
    "transformer": {"channels": 128, "heads": 16},
    "mpnn": {"channels": 128},
    "escaip": {"channels": 128, "edge_channels": 96, "heads": 4},
}


@pytest.mark.parametrize("name", WIDE)
def test_rates_and_initial_values_in_closed_form(name: str) -> None:
    """All widths at four times the reference's: every matrix that sums over one is slower by that, no vector is."""
    standard, model = backbone(name, **WIDE[name]), backbone(name, **WIDE[name])
    small = backbone(name, **width.at_reference(name, WIDE[name]))
    rates = maximal_update(model, small)
    assert set(rates) == {path for path, _ in model.named_parameters()}
    for path, parameter in model.named_parameters():
        before, twin = standard.get_parameter(path), small.get_parameter(path)
        sums_over_width = parameter.ndim == 2 and parameter.shape[1] == 4 * twin.shape[1] and "elements" not in path
        assert rates[path] == (0.25 if sums_over_width else 1.0)
        spread_by_fan_in = parameter.ndim == 1 and not torch.equal(before, before.mean().expand_as(before))
        grows = spread_by_fan_in and name == "mpnn"
        torch.testing.assert_close(parameter, before * (2.0 if grows else 1.0), rtol=0, atol=0)
        if grows:
            assert parameter.abs().max() <= twin.abs().max() * 1.2


@pytest.mark.parametrize(("name", "query"), [("transformer", "attention.norm_q.scale"), ("escaip", "query.weight")])
def test_logits_of_wider_heads_are_divided_by_their_width(name: str, query: str) -> None:
    wide = WIDE[name] | {"heads": width.at_reference(name, {})["heads"]}
    standard, model = backbone(name, **wide), backbone(name, **wide)
    rates = maximal_update(model, backbone(name, **width.at_reference(name, wide)))
    found = [path for path, _ in model.named_parameters() if path.endswith(query)]
    assert len(found) == len(model.blocks)
    for path in found:
        torch.testing.assert_close(model.get_parameter(path), standard.get_parameter(path) / 2)
        assert rates[path] == (0.5 if name == "transformer" else 0.5 / 4)


def test_products_over_a_width_become_means() -> None:
    """A vector head sums weights times vectors over channels: four times as many, and each counts a quarter."""
    torch.manual_seed(0)
    head, standard = (VectorHead(128, 96, own=2, sees_axes=False) for _ in range(2))
    standard.load_state_dict(head.state_dict())
    rates = maximal_update(head, VectorHead(32, 24, own=2, sees_axes=False))
    torch.testing.assert_close(head.mix.weight, standard.mix.weight / 4)
    assert rates["mix.weight"] == 1 / 16
    torch.testing.assert_close(head.weights[2].weight[:128], standard.weights[2].weight[:128])
    torch.testing.assert_close(head.weights[2].weight[128:], standard.weights[2].weight[128:] / 2)
    assert rates["weights.2.weight"] == 1 / 4


def test_outputs_start_smaller_by_the_root_of_the_width_and_hidden_layers_alike() -> None:
    """Over many draws: standard outputs have one spread at every width, those of maximal update r^-1/2 of it."""
    torch.manual_seed(0)
    x, spread = torch.randn(256, 3), {}
    for channels in (16, 128):
        outputs = []
        for _ in range(40):
            model = network(channels)
            maximal_update(model, network(16))
            nn.init.zeros_(model[4].bias)
            outputs.append((model[:3](x).detach().std(), model(x).detach().square().mean().sqrt()))
        spread[channels] = [float(torch.stack(values).square().mean().sqrt()) for values in zip(*outputs, strict=True)]
    assert spread[128][0] == pytest.approx(spread[16][0], rel=0.15)
    assert spread[128][1] == pytest.approx(spread[16][1] / math.sqrt(8), rel=0.25)


def test_architectures_that_declare_no_widths_are_refused() -> None:
    with pytest.raises(UserError, match=r"nequip has no maximal-update parametrisation; .*: escaip, mpnn, transformer"):
        width.widths("nequip")
