"""Edge frames and SO(2) convolutions against e3nn's matrices and tensor products."""

from __future__ import annotations

import math

import pytest
import torch
from e3nn import o3
from hypothesis import given, settings
from hypothesis import strategies as st

from scisci.models.blocks.irreps import EdgeTensorProduct, hidden_irreps
from scisci.models.blocks.so2 import EdgeFrame, EdgeRotation, SO2EdgeProduct, SO2Linear, by_order

POLES = torch.tensor(
    [[0, 1, 0], [0, -1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 1], [0, 0, -1], [1, 0, 1], [-1, 0, 1]], dtype=torch.float64
)
BESIDE_POLES = POLES + torch.tensor([1e-9, -1e-9, 2e-9], dtype=torch.float64)


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def edges(count: int = 12) -> torch.Tensor:
    """Edges along all axes, next to them, and anywhere, of lengths from 0.1 to 10."""
    anywhere = torch.nn.functional.normalize(torch.randn(count, 3), dim=1) * torch.logspace(-1, 1, count)[:, None]
    return torch.cat([POLES, BESIDE_POLES, anywhere])


def harmonics(irreps: o3.Irreps, vectors: torch.Tensor) -> torch.Tensor:
    return o3.spherical_harmonics(irreps, vectors, normalize=True, normalization="component")


def features(irreps: o3.Irreps, rows: int, channels: int) -> torch.Tensor:
    return torch.randn(rows, irreps.dim, channels)


def turn(irreps: o3.Irreps, x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    return torch.einsum("ij,njc->nic", irreps.D_from_matrix(rotation), x)


@pytest.mark.parametrize("l_max", [1, 2, 4, 6])
def test_matrices_are_the_wigner_matrices_of_one_rotation_that_takes_edges_to_the_y_axis(l_max: int) -> None:
    vectors = edges()
    matrices = EdgeRotation(l_max)(vectors)
    rotation = matrices[1]
    along_y = torch.einsum("eij,ej->ei", rotation, torch.nn.functional.normalize(vectors, dim=1))
    torch.testing.assert_close(along_y, torch.tensor([0.0, 1.0, 0.0]).expand_as(along_y), rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(len(vectors)), rtol=0, atol=1e-13)
    for degree, found in enumerate(matrices):
        # e3nn goes through angles, which lose half of the digits next to the poles; there the harmonics are the test.
        safe = slice(len(POLES) + len(BESIDE_POLES), None)
        expected = o3.wigner_D(degree, *o3.matrix_to_angles(rotation[safe]))
        torch.testing.assert_close(found[safe], expected, rtol=0, atol=1e-12)
        points = torch.randn(len(vectors), 7, 3)
        moved = o3.spherical_harmonics(degree, torch.einsum("eij,epj->epi", rotation, points), True)
        turned = torch.einsum("eij,epj->epi", found, o3.spherical_harmonics(degree, points, True))
        torch.testing.assert_close(turned, moved, rtol=0, atol=1e-12)


def test_rounding_of_matrices_in_single_precision_is_that_of_their_inputs() -> None:
    vectors = edges(1000)
    double, single = EdgeRotation(6)(vectors), EdgeRotation(6)(vectors.float())
    for expected, found in zip(double, single, strict=True):
        assert (found.double() - expected).abs().max() < 1e-5


def test_frame_has_the_rows_of_the_matrices_sorted_by_order() -> None:
    vectors, l_max, m_max = edges(), 3, 2
    frame, matrices = EdgeFrame(l_max, m_max)(vectors), EdgeRotation(l_max)(vectors)
    orders = [(0, 0), (1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (3, 1), (1, -1), (2, -1), (3, -1)]
    orders += [(2, 2), (3, 2), (2, -2), (3, -2)]
    assert frame.shape == (len(vectors), len(orders), 16)
    for row, (degree, order) in enumerate(orders):
        expected = torch.zeros(len(vectors), 16)
        expected[:, degree**2 : (degree + 1) ** 2] = matrices[degree][:, degree + order]
        torch.testing.assert_close(frame[:, row], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("l_max", "parity"), [(1, False), (1, True), (2, True), (3, True), (4, False)])
def test_edge_product_equals_tensor_products_with_harmonics(l_max: int, parity: bool) -> None:
    irreps, sphere, channels = hidden_irreps(l_max, parity), o3.Irreps.spherical_harmonics(l_max), 3
    ours, dense = SO2EdgeProduct(irreps, sphere, irreps), EdgeTensorProduct(irreps, sphere, irreps)
    assert ours.paths == dense.paths
    vectors = edges(4)
    x, weights = features(irreps, len(vectors), channels), torch.randn(len(vectors), len(ours.paths), channels)
    y = harmonics(sphere, vectors)
    found = ours(x, EdgeRotation(l_max)(vectors), weights)
    torch.testing.assert_close(found, dense(x, y, weights), rtol=1e-10, atol=1e-10)
    theirs = o3.TensorProduct(
        irreps,
        sphere,
        o3.Irreps([irreps[p.output] for p in ours.paths]),
        [(p.feature, p.harmonic, k, "uuu", True, 1.0) for k, p in enumerate(ours.paths)],
        shared_weights=False,
        irrep_normalization="component",
        path_normalization="element",
    )
    expected = torch.stack([theirs(x[:, :, c], y, weights[:, :, c]) for c in range(channels)], dim=2)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_edge_product_between_different_irreps_in_any_order() -> None:
    inputs, sphere, outputs = o3.Irreps("2e+0e+1o+1e"), o3.Irreps("0e+1o+2e"), o3.Irreps("1e+0o+2e+1o+3o")
    ours, dense = SO2EdgeProduct(inputs, sphere, outputs), EdgeTensorProduct(inputs, sphere, outputs)
    vectors = edges(4)
    x, weights = features(inputs, len(vectors), 2), torch.randn(len(vectors), len(ours.paths), 2)
    found = ours(x, EdgeRotation(3)(vectors), weights)
    torch.testing.assert_close(found, dense(x, harmonics(sphere, vectors), weights), rtol=1e-10, atol=1e-10)


def test_derivatives_of_the_edge_product_along_edges_of_every_direction() -> None:
    irreps, sphere = hidden_irreps(2, True), o3.Irreps.spherical_harmonics(2)
    ours, rotation = SO2EdgeProduct(irreps, sphere, irreps), EdgeRotation(2)
    dense = EdgeTensorProduct(irreps, sphere, irreps)
    vectors = edges(2)
    x, weights = features(irreps, len(vectors), 1), torch.randn(len(vectors), len(ours.paths), 1)

    def scalar(v: torch.Tensor, so2: bool) -> torch.Tensor:
        out = ours(x, rotation(v), weights) if so2 else dense(x, harmonics(sphere, v), weights)
        return out.sin().sum()

    # The hemispheres' charts must give the derivatives of the one smooth function that harmonics give, to third order.
    slopes: list[list[torch.Tensor]] = []
    for so2 in (True, False):
        v = vectors.clone().requires_grad_()
        value, orders = scalar(v, so2), []
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, v, create_graph=True)
            orders.append(gradient.detach())
            value = (gradient * torch.linspace(-1, 1, v.numel()).view_as(v)).sum()
        slopes.append(orders)
    for found, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def test_second_derivatives_of_a_convolution_in_frames() -> None:
    frame, linear = EdgeFrame(2, 2), SO2Linear(2, 2, 2, 2)
    x = torch.randn(len(POLES), 9, 2)

    def convolve(v: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        matrices = frame(v)
        out = linear(by_order(torch.bmm(matrices, x), 2, 2))[:-1]
        rows = torch.cat([order.unflatten(2, (-1, 2)).flatten(1, 2) for order in out], dim=1)
        return torch.bmm(matrices.transpose(1, 2), rows)

    v, x = POLES.clone().requires_grad_(), x.requires_grad_()
    assert torch.autograd.gradcheck(convolve, (v, x))
    assert torch.autograd.gradgradcheck(convolve, (v, x))


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(*[st.floats(-3, 3) for _ in range(3)]).filter(lambda v: math.hypot(*v) > 1e-2),
    st.booleans(),
    st.booleans(),
    st.integers(1, 3),
    st.integers(0, 2**16),
)
def test_convolution_commutes_with_the_groups_it_claims(
    vector: tuple[float, float, float], reflections: bool, improper: bool, m_max: int, seed: int
) -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    l_max, channels = 3, 2
    irreps, frame = hidden_irreps(l_max, False), EdgeFrame(l_max, min(l_max, m_max))
    linear = SO2Linear(l_max, m_max, channels, channels, scalars=2, reflections=reflections)
    x, edge = torch.randn(1, irreps.dim, channels), torch.tensor([vector])
    rotation = o3.rand_matrix() * (-1 if improper else 1)

    def convolve(edge: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        matrix = frame(edge)
        *out, scalars = linear(by_order(torch.bmm(matrix, x), l_max, m_max))
        rows = torch.cat([order.unflatten(2, (-1, channels)).flatten(1, 2) for order in out], dim=1)
        return torch.bmm(matrix.transpose(1, 2), rows), scalars

    out, scalars = convolve(edge, x)
    moved, moved_scalars = convolve(edge @ rotation.T, turn(irreps, x, rotation))
    error = float((moved - turn(irreps, out, rotation)).detach().norm() / out.detach().norm())
    torch.testing.assert_close(moved_scalars, scalars, rtol=1e-9, atol=1e-10)
    if improper and not reflections:
        assert error > 1e-3
    else:
        assert error < 1e-10


def test_convolution_does_not_depend_on_the_free_angle_of_the_frame() -> None:
    l_max, channels, angle = 3, 2, torch.tensor(0.7)
    irreps, vectors = hidden_irreps(l_max, False), edges(3)
    matrix, linear = EdgeFrame(l_max, l_max)(vectors), SO2Linear(l_max, l_max, channels, channels, reflections=False)
    about_y = irreps.D_from_angles(angle, torch.tensor(0.0), torch.tensor(0.0))
    rows = EdgeFrame(l_max, l_max)(torch.tensor([[0.0, 1.0, 0.0]]))[0]  # the order of rows: a permutation
    other = (rows @ about_y @ rows.T) @ matrix
    x = features(irreps, len(vectors), channels)

    def convolve(matrix: torch.Tensor) -> torch.Tensor:
        out = linear(by_order(torch.bmm(matrix, x), l_max, l_max))[:-1]
        return matrix.transpose(1, 2) @ torch.cat([o.unflatten(2, (-1, channels)).flatten(1, 2) for o in out], dim=1)

    assert (other - matrix).abs().max() > 0.1
    torch.testing.assert_close(convolve(other), convolve(matrix), rtol=1e-10, atol=1e-11)


def test_convolution_of_even_weights_is_the_clebsch_gordan_convolution() -> None:
    """Every weight of a reflection-keeping convolution is a sum of tensor product paths: they span the same maps."""
    l_max, l1, l3 = 3, 2, 1
    irreps, vectors = hidden_irreps(l_max, False), edges(3)
    linear, x = SO2Linear(l_max, l_max, 1, 1), features(irreps, len(vectors), 1)
    for m, weight in enumerate(linear.weights):
        keep = torch.zeros_like(weight)
        if m <= min(l1, l3):
            keep[l1 - m, l3 - m] = weight[l1 - m, l3 - m]
        weight.data.copy_(keep)
    matrix = EdgeFrame(l_max, l_max)(vectors)
    out = linear(by_order(torch.bmm(matrix, x), l_max, l_max))[:-1]
    found = matrix.transpose(1, 2) @ torch.cat([o.unflatten(2, (-1, 1)).flatten(1, 2) for o in out], dim=1)
    degrees = [degree for degree in range(abs(l1 - l3), l1 + l3 + 1) if (l1 + degree + l3) % 2 == 0]
    columns = [
        torch.einsum("ijk,ei,ej->ek", o3.wigner_3j(l1, degree, l3), x[:, l1**2 : (l1 + 1) ** 2, 0], y)
        for degree in degrees
        for y in [o3.spherical_harmonics(degree, vectors, True)]
    ]
    basis, target = torch.stack([c.flatten() for c in columns], dim=1), found[:, l3**2 : (l3 + 1) ** 2, 0].flatten()
    coefficients = torch.linalg.lstsq(basis, target[:, None]).solution
    assert len(degrees) == min(l1, l3) + 1
    torch.testing.assert_close(basis @ coefficients, target[:, None], rtol=1e-10, atol=1e-11)
