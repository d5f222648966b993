from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from e3nn import o3
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import lebedev_rule
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.models.blocks.fourier import SphereTransform
from scisci.models.blocks.gaunt import BLOCK, GauntEdgeProduct, GauntTensorProduct
from scisci.models.blocks.irreps import IrrepsLinear, PathWeights

degrees = st.integers(0, 4)


@pytest.fixture(autouse=True, scope="module")
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def harmonics(l_max: int, points: Tensor) -> Tensor:
    """e3nn's orthonormal harmonics at points of the sphere: [points, J]."""
    return o3.spherical_harmonics(list(range(l_max + 1)), points, normalize=True, normalization="integral")


@cache
def oracle(l_max_in1: int, l_max_in2: int, l_max_out: int) -> Tensor:
    """G_ijk by quadrature of e3nn's harmonics on a Lebedev grid, which shares no point with ours."""
    exact_to = [3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25]
    points, weights = lebedev_rule(next(n for n in exact_to if n >= l_max_in1 + l_max_in2 + l_max_out))
    on_grid = [harmonics(top, torch.from_numpy(points.T.copy())) for top in (l_max_in1, l_max_in2, l_max_out)]
    return torch.einsum("pi,pj,pk,p->ijk", *on_grid, torch.from_numpy(weights))


def three_j_zeros(a: int, b: int, c: int) -> float:
    """The closed form of the 3j symbol (a b c; 0 0 0), up to its sign, in exact integers."""
    if (a + b + c) % 2 or not abs(a - b) <= c <= a + b:
        return 0.0
    f, g = math.factorial, (a + b + c) // 2
    ratio = f(2 * g - 2 * a) * f(2 * g - 2 * b) * f(2 * g - 2 * c) / f(2 * g + 1)
    return math.sqrt(ratio) * f(g) / (f(g - a) * f(g - b) * f(g - c))


def turn(x: Tensor, matrix: Tensor) -> Tensor:
    """A feature [N, J, C] after a rotation or rotoreflection of space."""
    irreps = o3.Irreps.spherical_harmonics(math.isqrt(x.shape[1]) - 1)
    return torch.einsum("ij,njc->nic", irreps.D_from_matrix(matrix), x)


@pytest.mark.parametrize("l_max", [0, 1, 4, 8])
def test_grid_values_are_those_of_the_harmonics_and_integrate_back(l_max: int) -> None:
    matrices, identity = SphereTransform(l_max, 2 * l_max).matrices(torch.float64), torch.eye((l_max + 1) ** 2)
    y = torch.from_numpy(np.polynomial.legendre.leggauss(l_max + 1)[0])
    azimuth = 2 * math.pi * torch.arange(2 * l_max + 1)[:, None] / (2 * l_max + 1)
    xz = [(1 - y**2).sqrt() * f(azimuth) for f in (torch.sin, torch.cos)]
    points = torch.stack([xz[0], y.expand_as(xz[0]), xz[1]], -1).flatten(0, 1)
    values = matrices.to_grid(identity[:, :, None])
    torch.testing.assert_close(values[:, :, 0], harmonics(l_max, points), rtol=0, atol=1e-12)
    torch.testing.assert_close(matrices.from_grid(values)[:, :, 0], identity, rtol=0, atol=1e-12)


@pytest.mark.parametrize("l_max", [(n, n, n) for n in range(9)] + [(8, 1, 7), (0, 5, 5), (5, 2, 0), (3, 4, 7)])
def test_coefficients_equal_the_integrals_of_three_harmonics(l_max: tuple[int, int, int]) -> None:
    torch.testing.assert_close(GauntTensorProduct(*l_max).coefficients(), oracle(*l_max), rtol=0, atol=1e-12)


def test_coefficients_are_those_of_clebsch_gordan_up_to_a_known_factor_per_path() -> None:
    l_max = 5
    ours, slices = GauntTensorProduct(*[l_max] * 3).coefficients(), o3.Irreps.spherical_harmonics(l_max).slices()
    paths = 0
    for a in range(l_max + 1):
        for b in range(l_max + 1):
            for c in range(l_max + 1):
                block = ours[slices[a], slices[b], slices[c]]
                factor = math.sqrt((2 * a + 1) * (2 * b + 1) * (2 * c + 1) / (4 * math.pi)) * three_j_zeros(a, b, c)
                if factor == 0:
                    assert block.abs().max() < 1e-14
                    continue
                reference = o3.wigner_3j(a, b, c)
                sign = torch.sum(block * reference).sign()
                torch.testing.assert_close(block, sign * factor * reference, rtol=0, atol=1e-12)
                paths += 1
    assert paths == 69


def test_antisymmetric_paths_are_missing() -> None:
    """1 x 1 → 1 is the cross product: Clebsch-Gordan has it, the commuting product of functions cannot."""
    x, y, product = randn(5, 9, 2), randn(5, 9, 2, seed=1), GauntTensorProduct(2, 2, 4)
    torch.testing.assert_close(product(x, y), product(y, x), rtol=0, atol=1e-13)
    a, b = randn(3), randn(3, seed=1)
    cross = torch.einsum("ijk,i,j->k", o3.wigner_3j(1, 1, 1), a, b) * math.sqrt(6)
    torch.testing.assert_close(cross.abs(), torch.linalg.cross(a, b).abs())
    vectors = [torch.cat([torch.zeros(1), v])[None, :, None] for v in (a, b)]
    assert GauntTensorProduct(1, 1, 1)(*vectors)[:, 1:].abs().max() < 1e-14


@given(degrees, degrees, st.integers(0, 2**31))
def test_product_is_that_of_the_functions_at_every_point(l_max_in1: int, l_max_in2: int, seed: int) -> None:
    x, y = randn(2, (l_max_in1 + 1) ** 2, 3, seed=seed), randn(2, (l_max_in2 + 1) ** 2, 3, seed=seed + 1)
    points = randn(7, 3, seed=seed + 2)
    z = GauntTensorProduct(l_max_in1, l_max_in2, l_max_in1 + l_max_in2)(x, y)
    f, g, h = (harmonics(math.isqrt(t.shape[1]) - 1, points) @ t for t in (x, y, z))
    torch.testing.assert_close(h, f * g, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize("l_max", [(2, 2, 2), (4, 3, 5), (8, 8, 8)])
def test_product_commutes_with_o3(l_max: tuple[int, int, int], improper: bool) -> None:
    product = GauntTensorProduct(*l_max, channels=3)
    torch.nn.init.normal_(product.weights[0], generator=torch.Generator().manual_seed(2))
    x, y = randn(4, (l_max[0] + 1) ** 2, 3), randn(4, (l_max[1] + 1) ** 2, 3, seed=1)
    matrix = o3.rand_matrix() * (-1 if improper else 1)
    before, after = turn(product(x, y), matrix), product(turn(x, matrix), turn(y, matrix))
    assert (before - after).norm() < 1e-10 * before.norm()


def test_weights_scale_each_degree_and_channel() -> None:
    product = GauntTensorProduct(2, 1, 3, channels=2)
    for number, weight in enumerate(product.weights):
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(number))
    x, y = randn(4, 9, 2), randn(4, 4, 2, seed=1)
    w1, w2, w3 = (
        torch.stack([w[math.isqrt(k)] for k in range(len(w) ** 2)]) for w in (p.detach() for p in product.weights)
    )
    expected = torch.einsum("ijk,nic,njc,ic,jc,kc->nkc", oracle(2, 1, 3), x, y, w1, w2, w3)
    torch.testing.assert_close(product(x, y), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("l_in", "l_edge", "l_out"), [(0, 2, 2), (2, 2, 2), (3, 3, 1)])
def test_messages_sum_the_weighted_paths_over_both_sides(l_in: int, l_edge: int, l_out: int) -> None:
    features, edges, outputs = (o3.Irreps.spherical_harmonics(top) for top in (l_in, l_edge, l_out))
    product = GauntEdgeProduct(features, edges, outputs)
    weights = randn(6, product.rows, 3, seed=2)
    x, y = randn(6, features.dim, 3), randn(6, edges.dim, seed=1)
    incoming, outgoing = [[math.isqrt(k) for k in range(irreps.dim)] for irreps in (features, outputs)]
    before, after = weights[:, incoming], weights[:, [l_in + 1 + degree for degree in outgoing]]
    plain = torch.einsum("ijk,nic,nj,nic->nkc", oracle(l_in, l_edge, l_out), x, y, before) * after
    power = torch.stack(
        [
            sum(
                (2 * a + 1) * (2 * b + 1) / (4 * math.pi) * torch.tensor(three_j_zeros(a, b, degree)) ** 2
                for a in range(l_in + 1)
                for b in range(l_edge + 1)
            )
            for degree in outgoing
        ]
    )
    torch.testing.assert_close(product(x, y, weights), plain / power[:, None].sqrt(), rtol=0, atol=1e-12)


def test_unit_variance_stays_unit_variance() -> None:
    natural = o3.Irreps.spherical_harmonics(3)
    edge, both = GauntEdgeProduct(natural, natural, natural), GauntTensorProduct(3, 3, 3, channels=2)
    x, y = randn(20_000, 16, 2), randn(20_000, 16, 2, seed=1)
    directions = harmonics(3, randn(20_000, 3, seed=2)) * math.sqrt(4 * math.pi)
    messages = edge(x, directions, torch.ones(20_000, edge.rows, 2))
    for z in (both(x, y).detach(), messages):
        per_degree = [z[:, rows].square().mean() for rows in natural.slices()]
        torch.testing.assert_close(torch.stack(per_degree), torch.ones(4), rtol=0.05, atol=0)


def test_edge_product_takes_the_place_of_the_clebsch_gordan_one() -> None:
    """The radial network and the channel mixing of a layer work on it, and the whole commutes with O(3)."""
    natural = o3.Irreps.spherical_harmonics(2)
    product = GauntEdgeProduct(natural, natural, natural)
    radial = PathWeights(len(product.paths), channels=4, basis=5, hidden=6)
    down = IrrepsLinear(natural, product.copies, 4, 4)
    x, vectors, basis, matrix = randn(7, 9, 4), randn(7, 3, seed=1), randn(7, 5, seed=2), -o3.rand_matrix()

    def layer(x: Tensor, vectors: Tensor) -> Tensor:
        return down(product(x, harmonics(2, vectors), radial(basis)))

    before, after = turn(layer(x, vectors), matrix), layer(turn(x, matrix), vectors @ matrix.T)
    assert (before - after).norm() < 1e-10 * before.norm()


def test_first_and_second_derivatives() -> None:
    product, natural = GauntTensorProduct(2, 1, 2, channels=2), o3.Irreps.spherical_harmonics(1)
    edge = GauntEdgeProduct(natural, natural, natural)
    factors = [randn(2, 9, 2).requires_grad_(), randn(2, 4, 2, seed=1).requires_grad_()]
    message = [randn(2, 4, 2), randn(2, 4, seed=1), randn(2, edge.rows, 2, seed=2)]
    for module, inputs in ((product, factors), (edge, [t.requires_grad_() for t in message])):
        assert torch.autograd.gradcheck(module, inputs)
        assert torch.autograd.gradgradcheck(module, inputs)


def test_float32_is_as_accurate_as_float32_can_be() -> None:
    product = GauntTensorProduct(8, 8, 8)
    x, y = randn(16, 81, 4), randn(16, 81, 4, seed=1)
    single, double = product(x.float(), y.float()), product(x, y)
    assert single.dtype == torch.float32
    assert (single - double).norm() < 1e-6 * double.norm()


@pytest.mark.parametrize("rows", [0, 1, BLOCK // (18 * 64) + 3])
def test_blocks_of_rows_do_not_show(rows: int) -> None:
    product = GauntTensorProduct(1, 2, 2)
    x, y = randn(rows, 4, 64), randn(rows, 9, 1, seed=1)
    expected = torch.einsum("ijk,nic,nj->nkc", oracle(1, 2, 2), x, y[:, :, 0])
    torch.testing.assert_close(product(x, y), expected, rtol=0, atol=1e-12)


def test_a_compiler_traces_any_number_of_rows_once() -> None:
    product = GauntTensorProduct(1, 1, 1)
    compiled = torch.compile(product, backend="aot_eager", fullgraph=True, dynamic=True)
    few, many = ([randn(rows, 4, 2), randn(rows, 4, 2, seed=1)] for rows in (5, BLOCK // 8))
    torch.testing.assert_close(compiled(*few), product(*few))
    with torch.compiler.set_stance("fail_on_recompile"):
        torch.testing.assert_close(compiled(*many), product(*many))


def test_what_cannot_be_coupled_is_said() -> None:
    natural = o3.Irreps.spherical_harmonics(1)
    for irreps in ("0e+0o+1e+1o", "1o", "0e+1e", "2x0e+1o"):
        with pytest.raises(UserError, match="Clebsch-Gordan"):
            GauntEdgeProduct(o3.Irreps(irreps), natural, natural)
    with pytest.raises(UserError, match="do not reach degree 4; ask for outputs up to 3"):
        GauntTensorProduct(1, 2, 4)
    with pytest.raises(ValueError, match="factor 2 has 9 components; l_max 1 has 4"):
        GauntTensorProduct(1, 1, 1)(randn(2, 4, 1), randn(2, 9, 1))
