"""Rotary positions of the transformer against attention written out pair by pair with absolute positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.models import registry
from scisci.models.blocks.graph import Graph, Inputs
from scisci.models.conformance import CHECKS, Subject, checks_for
from scisci.models.transformer import Attention

ROTARY = registry.options("transformer", "3k") | {"positions": "rotary"}


def turned(x: Tensor, frequencies: Tensor, position: Tensor) -> Tensor:
    """One head's channels [C] as complex numbers, each times exp(i f · r); a last odd channel stays."""
    planes = len(frequencies)
    phases = torch.exp(1j * (frequencies @ position))
    found = (x[:planes] + 1j * x[planes : 2 * planes]) * phases
    return torch.cat([found.real, found.imag, x[2 * planes :]])


@pytest.mark.parametrize("channels", [8, 14])
def test_rotary_attention_is_that_of_absolute_positions(channels: int) -> None:
    """q and k turned by their own places have products of relative ones; values come back from the sender's place."""
    torch.manual_seed(0)
    heads, atoms, width = 2, 5, channels // 2
    layer = Attention(channels, heads, 3, rotary=True).double()
    pos, x = torch.randn(atoms, 3).double() * 3, torch.randn(atoms, channels).double()
    receivers, senders = (~torch.eye(atoms, dtype=torch.bool)).nonzero().T
    vectors = pos[senders] - pos[receivers]
    graph = Graph(torch.zeros(atoms), senders, receivers, vectors, vectors.norm(dim=1))
    pairs, envelope = torch.randn(len(senders), 3).double(), torch.rand(len(senders)).double()

    q, k, v = layer.qkv(x).unflatten(1, (3, heads, width)).unbind(1)
    q, k = layer.norm_q(q), layer.norm_k(k)
    bias = layer.pair_bias(pairs)
    mixed = torch.zeros(atoms, heads, width).double()
    for i in range(atoms):
        for h, frequencies in enumerate(layer.frequencies):
            logits = [q[i, h] @ k[i, h] / width**0.5]
            values, weights = [v[i, h]], [1.0]
            for e in (receivers == i).nonzero()[:, 0]:
                j = senders[e]
                here, there = (turned(*a) for a in ((q[i, h], frequencies, pos[i]), (k[j, h], frequencies, pos[j])))
                logits.append(here @ there / width**0.5 + bias[e, h])
                values.append(turned(turned(v[j, h], frequencies, pos[j]), frequencies, -pos[i]))
                weights.append(float(envelope[e]))
            shares = torch.tensor(weights).double() * torch.exp(torch.stack(logits))
            mixed[i, h] = (shares / shares.sum()) @ torch.stack(values)
    torch.testing.assert_close(layer(x, graph, pairs, envelope), layer.out(mixed.flatten(1)))


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "sizes"])
def test_conformance_of_rotary_positions(check: str) -> None:
    subject = Subject(registry.get("transformer"), ROTARY)
    if check in checks_for(subject.architecture):
        outcomes = CHECKS[check](subject)
        assert all(outcome.passed and np.isfinite(outcome.value) for outcome in outcomes), outcomes


def test_rotary_potentials_tell_directions_and_features_reach_no_further_than_asked() -> None:
    """A pair at 3 Å seen along x or y differs, even with one layer; beyond the radial range features are zero."""
    torch.manual_seed(0)
    inputs = Inputs((1,))
    model = registry.build("transformer", inputs, 1.0, **ROTARY)
    short = registry.build("transformer", inputs, 1.0, cutoff=50.0, radial_range=4.0)

    def pair(x: float, y: float) -> Graph:
        vectors = torch.tensor([[x, y, 0.0], [-x, -y, 0.0]])
        return Graph(torch.tensor([1, 1]), torch.tensor([1, 0]), torch.tensor([0, 1]), vectors, vectors.norm(dim=1))

    assert not torch.allclose(model(pair(3, 0)).scalars, model(pair(0, 3)).scalars, atol=1e-5)
    assert not torch.allclose(short(pair(3, 0)).scalars, short(pair(0, 3)).scalars, atol=1e-5)
    torch.testing.assert_close(short(pair(5, 0)).scalars, short(pair(0, 5)).scalars)


def test_unknown_positions_are_refused() -> None:
    with pytest.raises(UserError, match="unknown positions of transformer 'rotary '; did you mean 'rotary'"):
        registry.build("transformer", Inputs((1,)), 1.0, positions="rotary ")
