from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from e3nn import o3

from scisci.models.blocks.attention import envelope_softmax
from scisci.models.blocks.graph import Graph, Inputs
from scisci.models.blocks.irreps import hidden_irreps
from scisci.models.equiformer import Attention, Equiformer, smooth_leaky_relu

FLOAT64 = torch.float64


@pytest.fixture(autouse=True)
def float64() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(FLOAT64)
    yield
    torch.set_default_dtype(before)


def all_pairs(nodes: int, spread: float = 2.0) -> Graph:
    generator = torch.Generator().manual_seed(0)
    positions = torch.rand(nodes, 3, generator=generator) * spread
    receivers, senders = torch.tensor(list(itertools.permutations(range(nodes), 2))).T
    edges = positions[senders] - positions[receivers]
    return Graph(torch.zeros(nodes, dtype=torch.int64), senders, receivers, edges, edges.norm(dim=1))


def test_envelope_softmax_is_the_softmax_of_logits_plus_the_logarithm_of_the_envelope() -> None:
    """Dense twin, with logits whose exponentials overflow unless the highest is taken off first."""
    graph, generator = all_pairs(5), torch.Generator().manual_seed(1)
    logits = 2000 * torch.randn(20, 3, generator=generator)
    own = 2000 * torch.randn(5, 3, generator=generator)
    envelope = torch.rand(20, generator=generator)
    weights, own_weights = envelope_softmax(logits, own, envelope, graph)
    for node in range(5):
        edges = graph.receivers == node
        dense = torch.cat([logits[edges] + envelope[edges, None].log(), own[node : node + 1]]).softmax(dim=0)
        torch.testing.assert_close(torch.cat([weights[edges], own_weights[node : node + 1]]), dense)


def test_leaky_relu_has_its_slopes_far_from_zero_and_is_smooth_at_it() -> None:
    x = torch.tensor([-40.0, 0.0, 40.0])
    torch.testing.assert_close(smooth_leaky_relu(x), torch.tensor([-8.0, 0.0, 40.0]))
    assert torch.autograd.gradcheck(smooth_leaky_relu, (x.requires_grad_(),))
    assert torch.autograd.gradgradcheck(smooth_leaky_relu, (x,))


@pytest.mark.parametrize("l_max", [0, 1, 2])
def test_attention_equals_a_sum_over_neighbours_with_tensor_products_of_e3nn(l_max: int) -> None:
    """Slow twin: node by node and edge by edge, messages from e3nn, weights from the plain softmax."""
    torch.manual_seed(0)
    channels, heads, neighbors = 4, 2, 3.0
    irreps, harmonics = hidden_irreps(l_max, parity=False), o3.Irreps.spherical_harmonics(l_max)
    layer = Attention(irreps, irreps, harmonics, channels, heads, (8, 5), neighbors)
    graph = all_pairs(4)
    x = torch.randn(4, irreps.dim, channels)
    radial, envelope = torch.randn(12, 8), torch.rand(12)
    y = o3.spherical_harmonics(harmonics, graph.vectors, True, "component")
    paths = layer.product.paths
    product = o3.TensorProduct(
        irreps,
        harmonics,
        o3.Irreps([irreps[path.output] for path in paths]),
        [(path.feature, path.harmonic, k, "uuu", True, 1.0) for k, path in enumerate(paths)],
        shared_weights=False,
        irrep_normalization="component",
        path_normalization="element",
    )
    weights = layer.radial(radial)
    sent, received = layer.sender(x), layer.receiver(x)
    expected = torch.zeros(4, irreps.dim, channels)
    for node in range(4):
        scores, values = [torch.zeros(heads)], []
        for e in (graph.receivers == node).nonzero()[:, 0].tolist():
            ends = sent[graph.senders[e]] + received[node]
            message = product(ends.T, y[e].expand(channels, -1), weights[e].T).T
            scalars = message[: sum(path.output == 0 for path in paths)].flatten()
            hidden = smooth_leaky_relu(layer.hidden(scalars)).view(heads, channels // heads)
            scores.append((hidden * layer.query).sum(dim=1) + envelope[e].log())
            values.append(layer.gate(layer.value(message[None]))[0])
        shares = torch.stack(scores).softmax(dim=0)[1:].repeat_interleave(channels // heads, dim=1)
        mixed = sum(share * value for share, value in zip(shares, values, strict=True))
        expected[node] = layer.out(mixed[None] * math.sqrt(neighbors))[0]
    torch.testing.assert_close(layer(x, graph, y, radial, envelope), expected, rtol=1e-10, atol=1e-12)


def test_vectors_of_nodes_change_the_output_and_turn_with_it() -> None:
    torch.manual_seed(0)
    model = Equiformer(Inputs(vectors=1), 4.0, channels=8, heads=2)
    graph = all_pairs(5)
    rotation = o3.rand_matrix()
    velocity = torch.randn(5, 3, 1)
    plain = model(graph._replace(node_vectors=velocity))
    turned = model(
        graph._replace(vectors=graph.vectors @ rotation.T, node_vectors=torch.einsum("ij,njv->niv", rotation, velocity))
    )
    torch.testing.assert_close(turned.scalars, plain.scalars, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(
        turned.vectors, torch.einsum("ij,njc->nic", rotation, plain.vectors), rtol=1e-10, atol=1e-11
    )
    still = model(graph._replace(node_vectors=torch.zeros(5, 3, 1)))
    assert (plain.scalars - still.scalars).abs().max() > 1e-3
    flipped = model(graph._replace(node_vectors=-velocity))
    assert (plain.scalars - flipped.scalars).abs().max() > 1e-3


def test_channels_that_heads_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        Equiformer(Inputs(), 4.0, channels=10, heads=4)
