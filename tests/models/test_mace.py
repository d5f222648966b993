from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from e3nn import o3
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.models import registry
from scisci.models.blocks.graph import Graph, Inputs
from scisci.models.mace import MACE, Interaction

ELEMENTS = (1, 6, 8)


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(11)
    yield
    torch.set_default_dtype(before)


def star(positions: Tensor, numbers: Tensor) -> Graph:
    """Atom 0 and its neighbours, with edges to atom 0 only."""
    count = len(positions) - 1
    vectors = positions[1:] - positions[:1]
    receivers = torch.zeros(count, dtype=torch.int64)
    return Graph(numbers, torch.arange(1, count + 1), receivers, vectors, torch.linalg.vector_norm(vectors, dim=1))


@pytest.mark.parametrize("correlation", [1, 2, 3])
def test_one_layer_is_an_expansion_to_body_order_correlation_plus_one(correlation: int) -> None:
    """Sums over subsets of neighbours with alternating signs leave the irreducible many-body term alone.

    The term of atom 0 with `correlation` neighbours is there, the next one is zero; for scalars and vectors.
    """
    model = MACE(Inputs(ELEMENTS), 1.0, channels=4, layers=1, l_max_edge=2, correlation=correlation)
    positions, numbers = torch.nn.functional.normalize(torch.randn(5, 3)), torch.tensor([6, 1, 8, 6, 1])
    positions[0] = 0

    def irreducible(neighbors: int) -> Tensor:
        total = torch.zeros(16)
        for size in range(neighbors + 1):
            for subset in itertools.combinations(range(1, neighbors + 1), size):
                atoms = torch.tensor([0, *subset])
                features = model(star(positions[atoms], numbers[atoms]))
                assert features.vectors is not None
                found = torch.cat([features.scalars[0], features.vectors[0].flatten()])
                total = total + (-1) ** (neighbors - size) * found
        return total.detach()

    assert irreducible(correlation).abs().min() > 1e-3
    assert irreducible(correlation + 1).abs().max() < 1e-12


@pytest.mark.parametrize(("l_max", "parity"), [(0, False), (1, False), (2, False), (1, True)])
def test_one_particle_basis_equals_a_loop_over_edges_with_products_of_e3nn(l_max: int, parity: bool) -> None:
    """Slow twin of eqs. 8 and 9: with correlation 1 and unit weights a layer returns the basis itself."""
    irreps = o3.Irreps([(1, (k, p)) for k in range(l_max + 1) for p in ((1, -1) if parity else ((-1) ** k,))])
    harmonics, channels, atoms, edges = o3.Irreps.spherical_harmonics(2), 2, 4, 9
    layer = Interaction(irreps, harmonics, harmonics, harmonics, channels, 1, [3, 5, 5], 2, 6.0)
    with torch.no_grad():
        layer.contraction.weight.fill_(1.0)
        for weight in layer.mix.weights:
            weight.copy_(torch.eye(channels))
        layer.own.scale.weight.zero_()
    x, radial = torch.randn(atoms, irreps.dim, channels), torch.randn(edges, 3)
    senders, receivers = torch.randint(atoms, (edges,)), torch.randint(atoms, (edges,))
    vectors = torch.randn(edges, 3)
    angular = o3.spherical_harmonics(harmonics, vectors, True, "component")
    graph = Graph(torch.zeros(atoms), senders, receivers, vectors, vectors.norm(dim=1))
    found = layer(x, torch.tensor([0, 1, 0, 1]), graph, angular, radial).detach()

    weights, up = layer.radial(radial).detach(), layer.up(x).detach()
    rows = torch.zeros(atoms, layer.product.rows, channels)
    for edge, channel in itertools.product(range(edges), range(channels)):
        start = 0
        for number, path in enumerate(layer.product.paths):
            left, right, out = irreps[path.feature].ir, harmonics[path.harmonic].ir, harmonics[path.output].ir
            a = up[senders[edge], irreps.slices()[path.feature], channel]
            b = angular[edge, harmonics.slices()[path.harmonic]]
            coupled = torch.einsum("ijk,i,j->k", o3.wigner_3j(left.l, right.l, out.l), a, b) * out.dim**0.5
            place = slice(start, start + out.dim)
            rows[receivers[edge], place, channel] += weights[edge, number, channel] * coupled / 6.0
            start += out.dim
    expected = layer.down(rows).detach()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_weights_of_products_are_those_of_the_atoms_own_element() -> None:
    model = MACE(Inputs(ELEMENTS), 4.0, channels=4, layers=1)
    positions, numbers = torch.randn(4, 3), torch.tensor([6, 1, 8, 1])
    before = model(star(positions, numbers)).scalars[0].detach()
    weight = model.interactions[0].contraction.weight
    for element, changes in ((0, False), (1, True), (2, False)):
        with torch.no_grad():
            kept = weight[element].clone()
            weight[element] += 1.0
            after = model(star(positions, numbers)).scalars[0].detach()
            weight[element] = kept
        assert bool((after - before).abs().max() > 1e-3) == changes


@pytest.mark.parametrize("options", [{"correlation": 4}, {"l_max": 12}])
def test_what_cannot_be_built_is_refused_in_one_sentence(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="mace cannot be built with"):
        registry.build("mace", Inputs(ELEMENTS), 4.0, **options)
