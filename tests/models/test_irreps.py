from __future__ import annotations

import math

import pytest
import torch
from e3nn import o3

from scisci.models.blocks.irreps import EdgeTensorProduct, Gate, IrrepsLinear, hidden_irreps


def random_features(irreps: o3.Irreps, rows: int, channels: int) -> torch.Tensor:
    return torch.randn(rows, irreps.dim, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def turn(irreps: o3.Irreps, x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    return torch.einsum("ij,njc->nic", irreps.D_from_matrix(rotation), x)


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize(("l_max", "parity"), [(0, False), (1, False), (2, False), (2, True), (3, False)])
def test_tensor_product_equals_that_of_e3nn(l_max: int, parity: bool) -> None:
    """Slow twin: e3nn's own tensor product with the same paths, one channel at a time."""
    irreps, harmonics = hidden_irreps(l_max, parity), o3.Irreps.spherical_harmonics(l_max)
    ours = EdgeTensorProduct(irreps, harmonics, irreps)
    edges, channels = 5, 3
    x, y = random_features(irreps, edges, channels), random_features(harmonics, edges, 1)[:, :, 0]
    weights = torch.randn(edges, len(ours.paths), channels)
    instructions = [(p.feature, p.harmonic, k, "uuu", True, 1.0) for k, p in enumerate(ours.paths)]
    outputs = o3.Irreps([irreps[p.output] for p in ours.paths])
    theirs = o3.TensorProduct(
        irreps,
        harmonics,
        outputs,
        instructions,
        shared_weights=False,
        irrep_normalization="component",
        path_normalization="element",
    )
    expected = torch.stack([theirs(x[:, :, c], y, weights[:, :, c]) for c in range(channels)], dim=2)
    torch.testing.assert_close(ours(x, y, weights), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize("improper", [False, True])
def test_linear_and_gate_commute_with_o3(parity: bool, improper: bool) -> None:
    irreps = hidden_irreps(2, parity)
    x = random_features(irreps, 4, 6)
    rotation = o3.rand_matrix() * (-1 if improper else 1)
    for module in (IrrepsLinear(irreps, [1] * len(irreps), 6, 6), Gate(irreps, 6)):
        torch.testing.assert_close(
            module(turn(irreps, x, rotation)), turn(irreps, module(x), rotation), rtol=1e-9, atol=1e-10
        )


def test_message_of_unit_variance_inputs_has_unit_variance() -> None:
    irreps, harmonics = hidden_irreps(2, False), o3.Irreps.spherical_harmonics(2)
    product = EdgeTensorProduct(irreps, harmonics, irreps)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, irreps.dim, 2, generator=generator)
    y = o3.spherical_harmonics(harmonics, torch.randn(20_000, 3, generator=generator), True, "component")
    out = product(x, y, torch.ones(20_000, len(product.paths), 2))
    assert math.isclose(float(out.square().mean()), 1.0, rel_tol=0.05)
