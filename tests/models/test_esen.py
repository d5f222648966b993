from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from e3nn import o3
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.models import registry
from scisci.models.blocks.graph import Graph, Inputs
from scisci.models.blocks.irreps import hidden_irreps
from scisci.models.blocks.norm import EquivariantRMSNorm
from scisci.models.blocks.radial import Envelope
from scisci.models.esen import ESEN, EdgeConvolution


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def graph_of(positions: Tensor, cutoff: float = 5.0, scalars: int = 0, vectors: int = 0) -> Graph:
    """All ordered pairs within the cutoff, in random order."""
    pairs = torch.tensor(list(itertools.permutations(range(len(positions)), 2)))
    edges = positions[pairs[:, 0]] - positions[pairs[:, 1]]
    chosen = torch.randperm(len(pairs))
    chosen = chosen[edges[chosen].norm(dim=1) < cutoff]
    return Graph(
        torch.arange(len(positions)) % 2 * 5 + 1,
        pairs[chosen, 0],
        pairs[chosen, 1],
        edges[chosen],
        edges[chosen].norm(dim=1),
        torch.randn(len(positions), scalars) if scalars else None,
        torch.randn(len(positions), 3, vectors) if vectors else None,
    )


def acted(graph: Graph, matrix: Tensor) -> Graph:
    vectors = None if graph.node_vectors is None else torch.einsum("ij,njv->niv", matrix, graph.node_vectors)
    return graph._replace(vectors=graph.vectors @ matrix.T, node_vectors=vectors)


def slow_message(layer: EdgeConvolution, x: Tensor, edge: Tensor, weights: Tensor, envelope: float) -> Tensor:
    """One edge at a time, one output at a time, in complex numbers, in a frame from e3nn's angles.

    `x` [2, J, C] are the features of the edge's sender and receiver.
    """
    l_max, m_max, channels = layer.l_max, layer.m_max, layer.channels
    alpha, beta = o3.xyz_to_angles(edge)
    # e3nn's angles take the y axis to the edge; the way back is the inverse. Any third angle would do as well.
    frame = [o3.wigner_D(d, alpha, beta, torch.tensor(0.3)).T for d in range(l_max + 1)]
    both = torch.cat([x[0], x[1]], dim=1)
    turned = [frame[d] @ both[d**2 : (d + 1) ** 2] for d in range(l_max + 1)]

    def complex_rows(rows: list[Tensor], m: int) -> Tensor:
        return torch.cat([torch.complex(r[d + m], r[d - m]) if m else r[d] + 0j for d, r in enumerate(rows) if d >= m])

    def convolve(linear: Any, inputs: list[Tensor]) -> list[Tensor]:
        out = []
        for m, (row, weight) in enumerate(zip(inputs, linear.weights, strict=True)):
            width = linear.widths[m]
            if m == 0:
                out.append(row.real @ weight + linear.bias + 0j)
            elif linear.reflections:
                out.append(row @ (weight + 0j))
            else:
                out.append(row @ torch.complex(weight[:, :width], weight[:, width:]))
        return out

    start, inputs = 0, []
    for m in range(m_max + 1):
        row = complex_rows(turned, m)
        inputs.append(row * weights[start : start + len(row)])
        start += len(row)
    hidden = convolve(layer.first, inputs)
    gates, hidden[0] = hidden[0][: l_max * channels].real, hidden[0][l_max * channels :]
    for m, row in enumerate(hidden):
        for k, degree in enumerate(range(m, l_max + 1)):
            part = slice(k * channels, (k + 1) * channels)
            if degree == 0:
                row[part] = 1.7 * row[part].real * torch.sigmoid(row[part].real) + 0j
            else:
                row[part] = 1.7 * row[part] * torch.sigmoid(gates[(degree - 1) * channels : degree * channels])
    out = torch.zeros((l_max + 1) ** 2, channels)
    rows = [torch.zeros(2 * d + 1, channels) for d in range(l_max + 1)]
    for m, row in enumerate(convolve(layer.second, hidden)):
        for k, degree in enumerate(range(m, l_max + 1)):
            part = row[k * channels : (k + 1) * channels]
            rows[degree][degree + m] = part.real
            if m:
                rows[degree][degree - m] = part.imag
    for degree, row in enumerate(rows):
        out[degree**2 : (degree + 1) ** 2] = envelope * frame[degree].T @ row
    return out


@pytest.mark.parametrize("reflections", [True, False])
@pytest.mark.parametrize(("l_max", "m_max"), [(1, 1), (2, 2), (3, 1)])
def test_messages_equal_a_slow_complex_convolution_edge_by_edge(l_max: int, m_max: int, reflections: bool) -> None:
    model = ESEN(Inputs((1, 6)), 4.0, channels=3, layers=1, l_max=l_max, m_max=m_max, reflections=reflections)
    graph, layer = graph_of(torch.randn(4, 3)), model.blocks[0].convolution
    for linear in (layer.first, layer.second):
        torch.nn.init.normal_(linear.bias)
    x = torch.randn(4, (l_max + 1) ** 2, 3)
    hidden = torch.randn(len(graph.vectors), 16)
    envelope = Envelope(5.0)(graph.lengths)
    with torch.no_grad():
        found = layer(x, graph, model.frames(graph.vectors), hidden, envelope[:, None, None])
        weights = layer.radial(hidden)
        for e, (sender, receiver) in enumerate(zip(graph.senders, graph.receivers, strict=True)):
            expected = slow_message(
                layer, x[[int(sender), int(receiver)]], graph.vectors[e], weights[e], float(envelope[e])
            )
            torch.testing.assert_close(found[e], expected, rtol=1e-9, atol=1e-10)


def test_normalised_features_have_unit_mean_square_over_degrees_and_turn_with_the_input() -> None:
    irreps, norm = hidden_irreps(3, False), EquivariantRMSNorm(3, 5)
    x = torch.randn(6, irreps.dim, 5) * torch.logspace(-1, 3, 6)[:, None, None]
    with torch.no_grad():
        out = norm(x)
        squares = torch.stack([out[:, part].square().mean(dim=(1, 2)) for part in irreps.slices()])
        torch.testing.assert_close(squares.mean(dim=0), torch.ones(6), rtol=1e-3, atol=0)
        torch.testing.assert_close(out[:, 0].mean(dim=1), torch.zeros(6), rtol=0, atol=1e-12)
        torch.nn.init.normal_(norm.scale)
        torch.nn.init.normal_(norm.bias)
        matrix = irreps.D_from_matrix(o3.rand_matrix())
        torch.testing.assert_close(norm(matrix @ x), matrix @ norm(x), rtol=1e-9, atol=1e-10)


def errors(model: ESEN, graph: Graph, matrix: Tensor) -> tuple[float, float]:
    """Of scalars and vectors, relative to their size."""
    with torch.no_grad():
        plain, moved = model(graph), model(acted(graph, matrix))
        assert plain.vectors is not None
        scalars = (moved.scalars - plain.scalars).norm() / plain.scalars.norm()
        vectors = (moved.vectors - torch.einsum("ij,njc->nic", matrix, plain.vectors)).norm() / plain.vectors.norm()
    return float(scalars), float(vectors)


@pytest.mark.parametrize("reflections", [True, False])
@pytest.mark.parametrize(("l_max", "m_max"), [(1, 1), (2, 2), (3, 2), (4, 3)])
def test_rotations_are_exact_and_reflections_are_as_claimed(l_max: int, m_max: int, reflections: bool) -> None:
    inputs = Inputs((1, 6), scalars=1, vectors=2)
    model = ESEN(inputs, 4.0, channels=4, l_max=l_max, m_max=m_max, reflections=reflections)
    graph = graph_of(torch.randn(6, 3) * 1.5, scalars=1, vectors=2)
    rotation = o3.rand_matrix()
    assert max(errors(model, graph, rotation)) < 1e-11
    mirrored = errors(model, graph, -rotation)
    if reflections:
        assert model.symmetry["reflection"] == "exact"
        assert max(mirrored) < 1e-11
    else:
        assert model.symmetry == {**ESEN.symmetry, "reflection": "none"}
        assert min(mirrored) > 1e-3


def test_quarter_turns_that_swap_the_axes_and_hemispheres_change_nothing() -> None:
    """Edges along the axes, where the frames of other codes are singular, come to lie along other axes."""
    positions = torch.tensor([[0.0, 0, 0], [0, 1.5, 0], [0, -1.2, 0], [1.4, 0, 0], [0, 0, 1.3]])
    graph, model = graph_of(positions, vectors=1), ESEN(Inputs((1, 6), vectors=1), 4.0, channels=4)
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            assert max(errors(model, graph, torch.eye(3)[list(axes)] * torch.tensor(signs))) < 1e-12


def test_second_derivatives_are_finite_and_right_along_the_axes() -> None:
    positions = torch.tensor([[0.0, 0, 0], [0, 1.5, 0], [0, -1.2, 0], [1.4, 0, 0]])
    graph = graph_of(positions)
    model = ESEN(Inputs((1, 6)), 3.0, channels=2, layers=1, radial_hidden=4)

    def energy(vectors: Tensor) -> Tensor:
        return model(graph._replace(vectors=vectors, lengths=vectors.norm(dim=1))).scalars.square().sum()

    vectors = graph.vectors.clone().requires_grad_()
    assert torch.autograd.gradcheck(energy, (vectors,))
    assert torch.autograd.gradgradcheck(energy, (vectors,))


def test_features_start_at_order_one() -> None:
    torch.set_default_dtype(torch.float32)
    model = ESEN(Inputs((1, 6)), 11.0, channels=16, layers=3)
    x = model(graph_of(torch.randn(12, 3) * 1.5))
    assert x.vectors is not None
    for values in (x.scalars, x.vectors):
        assert 0.1 < float(values.detach().square().mean().sqrt()) < 3.0


def test_orders_above_the_highest_degree_do_not_exist() -> None:
    torch.manual_seed(0)
    narrow = ESEN(Inputs((1, 6)), 4.0, l_max=1, m_max=1)
    torch.manual_seed(0)
    wide = ESEN(Inputs((1, 6)), 4.0, l_max=1, m_max=3)
    graph = graph_of(torch.randn(4, 3))
    torch.testing.assert_close(narrow(graph).scalars, wide(graph).scalars)


def test_degree_zero_is_refused() -> None:
    with pytest.raises(UserError, match="l_max must be 1 or more"):
        registry.build("esen", Inputs((1, 6)), 4.0, l_max=0)


def test_fewer_orders_cost_fewer_parameters_but_keep_directions() -> None:
    graph = graph_of(torch.randn(5, 3))
    bent = graph._replace(vectors=graph.vectors[torch.randperm(len(graph.vectors))])
    bent = bent._replace(vectors=torch.nn.functional.normalize(bent.vectors, dim=1) * graph.lengths[:, None])
    counts = []
    for m_max in (1, 2, 3):
        model = ESEN(Inputs((1, 6)), 4.0, l_max=3, m_max=m_max)
        counts.append(sum(p.numel() for p in model.parameters()))
        difference = (model(graph).scalars - model(bent).scalars).detach().norm() / math.sqrt(graph.numbers.numel())
        assert difference > 1e-2
    assert counts == sorted(set(counts))
