from __future__ import annotations

import math

import pytest
import torch
from e3nn import o3

from scisci.models.blocks.graph import Graph, Inputs
from scisci.models.painn import ROUNDING, Message, PaiNN, Update


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def cluster(nodes: int = 5, vectors: int = 0) -> Graph:
    """All ordered pairs of random points, in random order."""
    positions = torch.randn(nodes, 3) * 1.5
    pairs = torch.tensor([(i, j) for i in range(nodes) for j in range(nodes) if i != j])
    senders, receivers = pairs[torch.randperm(len(pairs))].T
    edges = positions[senders] - positions[receivers]
    carried = torch.randn(nodes, 3, vectors) if vectors else None
    return Graph(torch.full((nodes,), 6), senders, receivers, edges, edges.norm(dim=1), None, carried)


def test_message_equals_tensor_product_of_e3nn() -> None:
    """Eq. 7-8 are the paths 0x0→0, 0x1→1 and 1x0→1 of features with the harmonics of the edge."""
    channels, basis, neighbors, graph = 3, 4, 2.5, cluster()
    block = Message(channels, basis, neighbors, vectors_in=True)
    scalars, vectors, radial = torch.randn(5, channels), torch.randn(5, 3, channels), torch.randn(20, basis)
    direction = graph.vectors / graph.lengths[:, None]
    found = block(scalars, vectors, graph, direction[:, :, None], radial)

    product = o3.TensorProduct(
        "0e + 1o",
        "0e + 1o",
        "0e + 1o + 1o",
        [(0, 0, 0, "uuu", True, 1.0), (0, 1, 1, "uuu", True, 1.0), (1, 0, 2, "uuu", True, 1.0)],
        shared_weights=False,
        irrep_normalization="component",
        path_normalization="element",
    )
    # "norm" makes the scalar harmonic 1 and the vector harmonic the unit vector.
    harmonics = o3.spherical_harmonics("0e + 1o", direction, normalize=True, normalization="norm")
    # The network acts on s_j before it is sent, so the features that travel are 1 and v_j.
    weights = (block.nodes(scalars)[graph.senders] * block.filter(radial)).unflatten(1, (3, channels))
    for c in range(channels):
        features = torch.cat([torch.ones(20, 1), vectors[graph.senders, :, c]], dim=1)
        messages = product(features, harmonics, weights[:, :, c])
        sums = torch.stack([messages[graph.receivers == i].sum(0) for i in range(5)]) / math.sqrt(neighbors)
        torch.testing.assert_close(found[0][:, c], sums[:, 0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found[1][:, :, c], sums[:, 1:4] + sums[:, 4:], rtol=1e-10, atol=1e-10)


def test_first_message_leaves_out_vectors_that_are_zero() -> None:
    graph, channels = cluster(), 4
    full, short = Message(channels, 8, 4.0, vectors_in=True), Message(channels, 8, 4.0, vectors_in=False)
    with torch.no_grad():
        short.nodes[1].weight.copy_(full.nodes[1].weight)
        short.nodes[3].weight.copy_(full.nodes[3].weight[: 2 * channels])
        short.filter.weight.copy_(full.filter.weight[: 2 * channels])
    arguments = torch.randn(5, channels), torch.zeros(5, 3, channels), graph, torch.randn(20, 3, 1), torch.randn(20, 8)
    for one, other in zip(full(*arguments), short(*arguments), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_update_equals_the_equations_written_out() -> None:
    channels, block = 3, Update(3)
    scalars, vectors = torch.randn(2, channels) * 2, torch.randn(2, 3, channels)
    found = block(scalars, vectors)
    u, v = block.mix.weight[:channels], block.mix.weight[channels:]
    for i in range(2):
        normed = scalars[i] / torch.sqrt((scalars[i] ** 2).mean() + 1e-6)
        first = [sum(u[c, k] * vectors[i, :, k] for k in range(channels)) for c in range(channels)]
        second = [sum(v[c, k] * vectors[i, :, k] for k in range(channels)) for c in range(channels)]
        lengths = torch.stack([torch.sqrt(w @ w + ROUNDING) for w in second])
        ss, sv, vv = block.network(torch.cat([normed, lengths])).chunk(3)
        for c in range(channels):
            scalar = ss[c] + sv[c] * (first[c] @ second[c]) / math.sqrt(3)
            torch.testing.assert_close(found[0][i, c], scalar, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(found[1][i, :, c], vv[c] * first[c], rtol=1e-12, atol=1e-12)


def test_an_angle_changes_the_energy_where_distances_do_not() -> None:
    """Two bonds at one atom, whose ends do not see each other: a network of distances could not tell."""

    def features(angle: float) -> torch.Tensor:
        torch.manual_seed(1)
        model = PaiNN(Inputs((1, 8)), 2.0, layers=1, channels=8, cutoff=1.5).double()
        ends = torch.tensor([[1.0, 0.0, 0.0], [math.cos(angle), math.sin(angle), 0.0]])
        senders, receivers = torch.tensor([1, 2, 0, 0]), torch.tensor([0, 0, 1, 2])
        vectors = torch.cat([ends, -ends])
        return model(Graph(torch.tensor([8, 1, 1]), senders, receivers, vectors, vectors.norm(dim=1))).scalars

    change = (features(1.8) - features(2.5)).abs().amax(dim=1)
    assert change[0] > 1e-3
    assert change[1:].max() < 1e-12  # One layer carries the angle to the atom in the middle alone.


def test_velocities_enter_and_turn_with_the_system() -> None:
    graph = cluster(vectors=2)
    model = PaiNN(Inputs((6,), vectors=2), 4.0, channels=8, layers=2).double()
    rotation = torch.linalg.qr(torch.randn(3, 3)).Q
    turned = graph._replace(vectors=graph.vectors @ rotation.T, node_vectors=rotation @ graph.node_vectors)
    before, after = model(graph), model(turned)
    torch.testing.assert_close(after.scalars, before.scalars, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(after.vectors, rotation @ before.vectors, rtol=1e-10, atol=1e-10)
    # Turning velocities alone is another system.
    other = model(graph._replace(node_vectors=rotation @ graph.node_vectors))
    assert (other.scalars - before.scalars).abs().max() > 1e-3


def test_a_close_pair_in_a_cloud_does_not_rule_the_outputs() -> None:
    graph = cluster(8, vectors=1)
    closest = graph.lengths.argmin()
    # Both directions of the closest pair, brought a thousand times closer.
    ends = {int(graph.senders[closest]), int(graph.receivers[closest])}
    pair = [{s, r} == ends for s, r in zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)]
    vectors = torch.where(torch.tensor(pair)[:, None], graph.vectors * 1e-3, graph.vectors)
    close = graph._replace(vectors=vectors, lengths=vectors.norm(dim=1))
    model = PaiNN(Inputs((1, 6), vectors=1), 7.0, layers=4, cutoff=20.0, radial_basis=32).double()
    for one, other in zip(model(graph), model(close), strict=True):
        assert 0.1 < (other.square().mean() / one.square().mean()).sqrt() < 10
