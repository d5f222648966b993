from __future__ import annotations

import math

import pytest
import torch
from scipy.special import spherical_jn
from torch_geometric.nn.models.schnet import InteractionBlock

from scisci.models.blocks.bounded import BoundedBesselBasis
from scisci.models.blocks.graph import Graph, Inputs
from scisci.models.blocks.readout import EdgeVectors
from scisci.models.schnet import Interaction, SchNet


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def cluster(nodes: int = 5, vectors: int = 0, scalars: int = 0) -> Graph:
    """All ordered pairs of random points, in random order."""
    positions = torch.randn(nodes, 3) * 1.5
    pairs = torch.tensor([(i, j) for i in range(nodes) for j in range(nodes) if i != j])
    senders, receivers = pairs[torch.randperm(len(pairs))].T
    edges = positions[senders] - positions[receivers]
    return Graph(
        torch.randint(0, 2, (nodes,)) * 5 + 1,
        senders,
        receivers,
        edges,
        edges.norm(dim=1),
        torch.randn(nodes, scalars) if scalars else None,
        torch.randn(nodes, 3, vectors) if vectors else None,
    )


def test_interaction_equals_that_of_pytorch_geometric() -> None:
    """Same weights, same edge features; PyG's cutoff is put so far away that its cosine is 1."""
    channels, features, neighbors = 6, 4, 3.0
    ours, graph = Interaction(channels, features, neighbors), cluster()
    theirs = InteractionBlock(channels, features, channels, cutoff=1e9)
    scale = neighbors**-0.5
    pairs = [
        (theirs.mlp[0].weight, ours.filter[0].weight),
        (theirs.mlp[2].weight, ours.filter[2].weight),
        (theirs.conv.lin1.weight, ours.up.weight),
        (theirs.conv.lin2.weight, ours.update[0].weight * scale),
        (theirs.lin.weight, ours.update[2].weight),
        (theirs.conv.lin2.bias, torch.randn(channels)),
        (theirs.lin.bias, torch.randn(channels)),
    ]
    with torch.no_grad():
        for to, value in pairs:
            to.copy_(value)
        ours.update[0].bias.copy_(theirs.conv.lin2.bias)
        ours.update[2].bias.copy_(theirs.lin.bias)
    x, edges = torch.randn(5, channels), torch.randn(len(graph.senders), features)
    expected = x + theirs(x, torch.stack([graph.senders, graph.receivers]), graph.lengths, edges)
    torch.testing.assert_close(ours(x, graph, edges), expected, rtol=1e-12, atol=1e-12)


def test_structures_with_the_same_distances_have_the_same_energy() -> None:
    """Bond length, neighbours' distances: all one layer sees. An angle alone changes nothing for it."""

    def features(angle: float, layers: int) -> torch.Tensor:
        torch.manual_seed(1)
        model = SchNet(Inputs((1, 8)), 2.0, layers=layers, channels=8, cutoff=1.5).double()
        ends = torch.tensor([[1.0, 0.0, 0.0], [math.cos(angle), math.sin(angle), 0.0]])
        senders, receivers = torch.tensor([1, 2, 0, 0]), torch.tensor([0, 0, 1, 2])
        vectors = torch.cat([ends, -ends])
        return model(Graph(torch.tensor([8, 1, 1]), senders, receivers, vectors, vectors.norm(dim=1))).scalars

    torch.testing.assert_close(features(1.8, 3), features(2.5, 3), rtol=1e-12, atol=1e-12)


def test_edge_vectors_equal_the_sum_written_out() -> None:
    inputs, channels, neighbors = Inputs((1, 6), vectors=2), 3, 4.0
    graph, readout = cluster(vectors=2), EdgeVectors(inputs, channels, 5, neighbors)
    with torch.no_grad():
        readout.nodes.bias.normal_()
        readout.gate.bias.normal_()
    x, edges = torch.randn(5, channels), torch.randn(len(graph.senders), 5)
    a, b = (x @ readout.nodes.weight.T + readout.nodes.bias).chunk(2, dim=1)
    expected = torch.zeros(5, 3, channels)
    for e, (j, i) in enumerate(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)):
        for c in range(channels):
            weight = a[i, c] * b[j, c] * (readout.edge.weight[c] @ edges[e]) / 2.0
            expected[i, :, c] += weight * graph.vectors[e] / graph.vectors[e].norm()
    for i in range(5):
        gates = readout.gate.weight @ x[i] + readout.gate.bias
        expected[i] += (graph.node_vectors[i] @ readout.own.weight) * gates
    torch.testing.assert_close(readout(x, graph, edges), expected, rtol=1e-12, atol=1e-12)


def test_velocities_enter_and_turn_with_the_system() -> None:
    graph = cluster(vectors=1, scalars=2)
    model = SchNet(Inputs((1, 6), scalars=2, vectors=1), 4.0, channels=8, layers=2).double()
    rotation = torch.linalg.qr(torch.randn(3, 3)).Q
    turned = graph._replace(vectors=graph.vectors @ rotation.T, node_vectors=rotation @ graph.node_vectors)
    before, after = model(graph), model(turned)
    torch.testing.assert_close(after.scalars, before.scalars, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(after.vectors, rotation @ before.vectors, rtol=1e-11, atol=1e-11)
    # Turning velocities alone is another system.
    other = model(graph._replace(node_vectors=rotation @ graph.node_vectors))
    assert (other.scalars - before.scalars).abs().max() > 1e-3


def test_bounded_basis_is_the_spherical_bessel_function_within_bounds() -> None:
    """sin(n pi r / c) / r as j_0 of scipy, times the envelope, divided by sqrt(1 + mean square)."""
    cutoff, count, lengths = 7.0, 5, torch.linspace(1e-9, 7.0, 200)
    x = lengths / cutoff
    envelope = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    n = torch.arange(1, count + 1)
    j0 = torch.from_numpy(spherical_jn(0, (n * math.pi * x[:, None]).numpy()))
    plain = math.sqrt(2 * cutoff / 3) * n * math.pi / cutoff * j0 * envelope[:, None]
    expected = plain / torch.sqrt(1 + (plain**2).mean(dim=1, keepdim=True))
    found = BoundedBesselBasis(cutoff, count).double()(lengths)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert found.square().mean(dim=1).max() < 1 < plain.square().mean(dim=1).max()


def test_a_close_pair_in_a_cloud_does_not_rule_the_outputs() -> None:
    graph = cluster(8, vectors=1)
    closest = graph.lengths.argmin()
    # Both directions of the closest pair, brought a thousand times closer.
    ends = {int(graph.senders[closest]), int(graph.receivers[closest])}
    pair = [{s, r} == ends for s, r in zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)]
    vectors = torch.where(torch.tensor(pair)[:, None], graph.vectors * 1e-3, graph.vectors)
    close = graph._replace(vectors=vectors, lengths=vectors.norm(dim=1))
    model = SchNet(Inputs((1, 6), vectors=1), 7.0, layers=4, cutoff=20.0, radial_basis=32).double()
    for one, other in zip(model(graph), model(close), strict=True):
        assert 0.1 < (other.square().mean() / one.square().mean()).sqrt() < 10
