from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from e3nn import o3
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scisci.models.blocks.irreps import hidden_irreps
from scisci.models.blocks.symmetric_contraction import SymmetricContraction, symmetric_basis

HARMONICS = [o3.Irreps.spherical_harmonics(degree) for degree in range(4)]


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(5)
    yield
    torch.set_default_dtype(before)


def multiplicity(irreps: o3.Irreps, output: o3.Irrep, order: int) -> int:
    """Times an irrep occurs in the symmetric power of order 1 to 3, from characters: no couplings involved.

    The character of the symmetric power follows from those of g, g² and g³; averaging over O(3) with the Haar measure
    (1 - cos t) / pi dt of the rotation angle t projects on the irrep.
    """
    points = 512
    angles = (torch.arange(points) + 0.5) * math.pi / points

    def character(ir: o3.Irrep, power: int, improper: bool) -> Tensor:
        sign = ir.p if improper and power % 2 else 1
        orders = torch.arange(-ir.l, ir.l + 1)
        return sign * torch.cos(power * orders * angles[:, None]).sum(dim=1)

    total = 0.0
    for improper in (False, True):
        g1, g2, g3 = (sum(character(ir, power, improper) for _, ir in irreps) for power in (1, 2, 3))
        symmetric = {1: g1, 2: (g1**2 + g2) / 2, 3: (g1**3 + 3 * g1 * g2 + 2 * g3) / 6}[order]
        weight = (1 - torch.cos(angles)) / points
        total += 0.5 * float((weight * symmetric * character(output, 1, improper)).sum())
    assert abs(total - round(total)) < 1e-9
    return round(total)


IRREPS = [(degree, parity) for degree in range(4) for parity in (1, -1)]


@given(chosen=st.sets(st.sampled_from(IRREPS), min_size=1, max_size=4), output=st.sampled_from(IRREPS[:6]))
def test_couplings_are_as_many_as_characters_say(chosen: set[tuple[int, int]], output: tuple[int, int]) -> None:
    irreps, wanted = o3.Irreps([(1, ir) for ir in sorted(chosen)]), o3.Irrep(*output)
    orders = symmetric_basis(irreps, wanted, 3).orders
    assert [orders.count(order) for order in (1, 2, 3)] == [multiplicity(irreps, wanted, k) for k in (1, 2, 3)]


def tensors(contraction: SymmetricContraction, components: int, order: int) -> Tensor:
    """[couplings, M, J, ..., J], the symmetric tensor of each coupling: the derivative of that order at zero."""
    couplings = contraction.weight.shape[1]
    with torch.no_grad():
        contraction.weight.copy_(torch.eye(couplings)[None])

    def one_per_channel(x: Tensor) -> Tensor:
        return contraction(x[None, :, None].expand(-1, -1, couplings), torch.zeros(1, dtype=torch.int64))[0].T

    derivative = one_per_channel
    for _ in range(order):
        derivative = torch.func.jacfwd(derivative)
    return derivative(torch.zeros(components)).detach() / math.factorial(order)


@pytest.mark.parametrize(("degree", "order"), [(1, 2), (1, 3), (2, 2), (2, 3), (3, 2)])
def test_couplings_are_an_orthonormal_basis_of_those_of_e3nn(degree: int, order: int) -> None:
    """Same span as e3nn's change of basis to the irreps of the symmetric power, which it finds numerically."""
    irreps, outputs = HARMONICS[degree], o3.Irreps("0e+1o+2e")
    formula = {2: "ij=ji", 3: "ijk=jik=ikj"}[order]
    theirs = o3.ReducedTensorProducts(formula, i=irreps, filter_ir_out=[ir for _, ir in outputs])
    contraction = SymmetricContraction(irreps, outputs, sum(_counts(irreps, outputs)), 3, 1)
    found, start = tensors(contraction, irreps.dim, order), 0
    for (_, output), place, count in zip(outputs, outputs.slices(), _counts(irreps, outputs), strict=True):
        own = found[start : start + count, place].flatten(1)
        own = own[own.norm(dim=1) > 1e-12]
        start += count
        parts = zip(theirs.irreps_out, theirs.irreps_out.slices(), strict=True)
        expected = torch.cat([theirs.change_of_basis[part].flatten(1) for (_, ir), part in parts if ir == output])
        assert len(own) * output.dim == len(expected)
        gram = own @ own.T * math.factorial(order) / output.dim
        torch.testing.assert_close(gram, torch.eye(len(own)), rtol=0, atol=1e-10)
        rows = own.unflatten(1, (output.dim, -1)).flatten(0, 1) * math.sqrt(math.factorial(order))
        projector = expected.T @ torch.linalg.solve(expected @ expected.T, expected)
        torch.testing.assert_close(rows.T @ rows, projector, rtol=0, atol=1e-10)


def _counts(irreps: o3.Irreps, outputs: o3.Irreps) -> list[int]:
    return [len(symmetric_basis(irreps, output, 3).orders) for _, output in outputs]


@cache
def e3nn_product(left: o3.Irrep, right: o3.Irrep, output: o3.Irrep) -> o3.TensorProduct:
    return o3.TensorProduct(
        [(1, left)], [(1, right)], [(1, output)], [(0, 0, 0, "uuu", False)], irrep_normalization="none"
    )


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize("correlation", [1, 2, 3])
def test_contraction_equals_a_loop_over_products_of_e3nn(correlation: int, parity: bool) -> None:
    """Slow twin: every tree by two tensor products of e3nn, one coupling at a time."""
    irreps, outputs, atoms, channels = hidden_irreps(2, parity), hidden_irreps(1, parity), 4, 2
    contraction = SymmetricContraction(irreps, outputs, channels, correlation, 3)
    x, element = torch.randn(atoms, irreps.dim, channels), torch.tensor([2, 0, 1, 1])
    padded = o3.Irreps("0e") + irreps
    columns = torch.cat([torch.ones(atoms, 1, channels), x], dim=1).transpose(1, 2)
    parts = [columns[:, :, part] for part in padded.slices()]

    def couple(a: Tensor, left: o3.Irrep, b: Tensor, right: o3.Irrep, to: o3.Irrep) -> Tensor:
        return e3nn_product(left, right, to)(a, b) * math.sqrt(to.dim)

    expected, coupling = torch.zeros(atoms, channels, outputs.dim), 0
    for (_, output), place in zip(outputs, outputs.slices(), strict=True):
        basis = symmetric_basis(irreps, output, correlation)
        for shares in basis.combinations:
            weight = contraction.weight.detach()[element, coupling, :, None]
            for tree, share in zip(basis.trees, shares, strict=True):
                if share:
                    first, second, last = (padded[k].ir for k in tree[:3])
                    middle = couple(parts[tree.first], first, parts[tree.second], second, tree.middle)
                    product = couple(middle, tree.middle, parts[tree.last], last, output)
                    expected[:, :, place] += share * weight * product
            coupling += 1
    assert coupling == contraction.weight.shape[1]
    torch.testing.assert_close(contraction(x, element).detach(), expected.transpose(1, 2), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize(("degree", "parity"), [(3, False), (2, True)])
def test_contraction_commutes_with_o3_though_built_in_single_precision(
    degree: int, parity: bool, improper: bool
) -> None:
    torch.set_default_dtype(torch.float32)
    irreps, outputs = hidden_irreps(degree, parity), hidden_irreps(2, parity)
    contraction = SymmetricContraction(irreps, outputs, 3, 3, 2).double()
    torch.set_default_dtype(torch.float64)
    x, element = torch.randn(5, irreps.dim, 3), torch.tensor([0, 1, 1, 0, 1])
    rotation = o3.rand_matrix() * (-1 if improper else 1)
    turned = contraction(torch.einsum("ij,njc->nic", irreps.D_from_matrix(rotation), x), element)
    expected = torch.einsum("ij,njc->nic", outputs.D_from_matrix(rotation), contraction(x, element))
    assert (turned - expected).norm() < 1e-10 * expected.norm()


def test_first_and_second_derivatives_are_right() -> None:
    contraction = SymmetricContraction(HARMONICS[1], o3.Irreps("0e+1o"), 2, 3, 2)
    x, element = torch.randn(2, 4, 2, requires_grad=True), torch.tensor([0, 1])
    assert torch.autograd.gradcheck(lambda x: contraction(x, element), x)
    assert torch.autograd.gradgradcheck(lambda x: contraction(x, element), x)


def test_components_have_unit_variance_where_factors_differ() -> None:
    """The tensors have |U|² = d / nu!; for 1o x 2e -> 1o of independent normal factors that is variance one."""
    basis = symmetric_basis(o3.Irreps("1o+2e"), o3.Irrep("1o"), 2)
    assert basis.orders == [1, 2]
    contraction = SymmetricContraction(o3.Irreps("1o+2e"), o3.Irreps("1o"), 1, 2, 1)
    with torch.no_grad():
        contraction.weight.copy_(torch.tensor([0.0, 1.0])[None, :, None])
    x = torch.randn(50_000, 8, 1, generator=torch.Generator().manual_seed(0))
    out = contraction(x, torch.zeros(50_000, dtype=torch.int64)).detach()
    torch.testing.assert_close(out.square().mean(dim=(0, 2)), torch.ones(3), rtol=0, atol=0.05)


def test_other_correlations_are_refused() -> None:
    with pytest.raises(ValueError, match="correlation is 4, but must be 1, 2 or 3"):
        SymmetricContraction(HARMONICS[1], o3.Irreps("0e"), 1, 4, 1)
