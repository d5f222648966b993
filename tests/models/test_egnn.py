from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scisci.models.blocks.graph import Graph, Inputs
from scisci.models.egnn import EGNN, Layer


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def graph_of(positions: Tensor, scalars: Tensor | None = None, vectors: Tensor | None = None) -> Graph:
    """All ordered pairs of points, in random order."""
    nodes = len(positions)
    pairs = torch.tensor([(i, j) for i in range(nodes) for j in range(nodes) if i != j])
    senders, receivers = pairs[torch.randperm(len(pairs))].T
    edges = positions[senders] - positions[receivers]
    return Graph(torch.full((nodes,), 6), senders, receivers, edges, edges.norm(dim=1), scalars, vectors)


def written_out(
    layer: Layer, x: Tensor, coordinates: Tensor, velocities: Tensor, graph: Graph, edge: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Satorras et al., eq. 3-7, pair by pair in absolute coordinates [N, 3, K], with the layer's weights."""
    radial, envelope = edge
    channels, new_x, new_coordinates = x.shape[1], [], []
    normed = x / torch.sqrt((x**2).mean(dim=1, keepdim=True) + 1e-6)
    for i in range(len(x)):
        total, pull = torch.zeros(channels), torch.zeros(3, coordinates.shape[2])
        for e in torch.where(graph.receivers == i)[0].tolist():
            j = int(graph.senders[e])
            difference = coordinates[j] - coordinates[i]
            squared = (difference**2).sum(dim=0)
            from_sender = layer.nodes.weight[:channels] @ normed[j] + layer.nodes.bias[:channels]
            from_receiver = layer.nodes.weight[channels:] @ normed[i] + layer.nodes.bias[channels:]
            from_edge = layer.edge.weight @ torch.cat([radial[e], torch.log(1 + squared)])
            message = layer.message(from_sender + from_receiver + from_edge) * envelope[e]
            total += message * layer.scale
            pull += difference / torch.sqrt(1 + squared) * (layer.weights.weight @ message) * layer.scale
        new_x.append(x[i] + layer.update(torch.cat([normed[i], total])))
        push = layer.push.weight @ normed[i] + layer.push.bias
        new_coordinates.append(coordinates[i] + pull @ layer.mix.weight.T + velocities[i] * push)
    return torch.stack(new_x), torch.stack(new_coordinates)


def test_network_equals_the_equations_written_out_in_absolute_coordinates() -> None:
    positions, velocities = torch.randn(4, 3) * 2, torch.randn(4, 3, 2)
    graph = graph_of(positions, vectors=velocities)
    model = EGNN(Inputs((6,), vectors=2), 3.0, channels=5, layers=3, coordinates=3, length_scale=1.7).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    found = model(graph)

    carried = velocities @ model.carried.weight
    x, coordinates = model.embedding(graph), positions[:, :, None] / 1.7 + carried
    edge = model.radial(graph.lengths), model.radial.envelope(graph.lengths)
    for layer in model.layers:
        x, coordinates = written_out(layer, x, coordinates, carried, graph, edge)
    torch.testing.assert_close(found.vectors, coordinates - positions[:, :, None] / 1.7, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.scalars, model.norm(x), rtol=1e-10, atol=1e-10)


def test_velocities_and_charges_enter_and_turn_with_the_system() -> None:
    """A point cloud far smaller than the cutoff, as in the charged n-body system."""
    positions, charges, velocities = (
        torch.randn(5, 3),
        torch.tensor([[1.0], [-1], [1], [1], [-1]]),
        torch.randn(5, 3, 1),
    )
    graph = graph_of(positions, charges, velocities)
    model = EGNN(Inputs((), scalars=1, vectors=1), 4.0, layers=4, cutoff=1000.0).double()
    rotation = torch.linalg.qr(torch.randn(3, 3)).Q
    turned = graph._replace(vectors=graph.vectors @ rotation.T, node_vectors=rotation @ velocities)
    before, after = model(graph), model(turned)
    torch.testing.assert_close(after.scalars, before.scalars, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(after.vectors, rotation @ before.vectors, rtol=1e-10, atol=1e-10)
    for other in (graph._replace(node_vectors=rotation @ velocities), graph._replace(node_scalars=-charges)):
        assert (model(other).scalars - before.scalars).abs().max() > 1e-3
        assert (model(other).vectors - before.vectors).abs().max() > 1e-3


def test_a_cloud_of_any_extent_moves_its_coordinates_alike() -> None:
    """Differences enter by direction and logarithm, so a million times the extent changes moves by a small factor."""
    model, positions = EGNN(Inputs(()), 4.0, layers=5, cutoff=1e9).double(), torch.randn(6, 3)
    with torch.inference_mode():
        moves = [model(graph_of(positions * extent)).vectors.square().mean().sqrt() for extent in (1.0, 1e6)]
    assert 0.03 < moves[1] / moves[0] < 30


def test_second_layer_sees_an_angle() -> None:
    """Two bonds at one atom whose ends do not see each other: the moved coordinates carry the angle."""

    def features(angle: float, layers: int) -> Tensor:
        torch.manual_seed(1)
        model = EGNN(Inputs((1, 8)), 2.0, layers=layers, channels=8, cutoff=1.5).double()
        ends = torch.tensor([[1.0, 0.0, 0.0], [math.cos(angle), math.sin(angle), 0.0]])
        senders, receivers = torch.tensor([1, 2, 0, 0]), torch.tensor([0, 0, 1, 2])
        vectors = torch.cat([ends, -ends])
        return model(Graph(torch.tensor([8, 1, 1]), senders, receivers, vectors, vectors.norm(dim=1))).scalars

    assert (features(1.8, 1) - features(2.5, 1)).abs().max() < 1e-12
    assert (features(1.8, 2) - features(2.5, 2)).abs().max() > 1e-3
