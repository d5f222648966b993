from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from e3nn import o3
from torch import Tensor

from scisci.models.blocks.graph import Graph, Inputs
from scisci.models.blocks.sphere import orientation_grid
from scisci.models.ponita import PONITA, Block, FibreKernel, SpatialKernel


@pytest.mark.parametrize(
    ("count", "cosines"),
    [(6, [-1, 0]), (8, [-1, -1 / 3, 1 / 3]), (12, [-1, -1 / math.sqrt(5), 1 / math.sqrt(5)])],
    ids=["octahedron", "cube", "icosahedron"],
)
def test_small_grids_are_regular_solids(count: int, cosines: list[float]) -> None:
    grid = orientation_grid(count)
    between = (grid @ grid.T)[~np.eye(count, dtype=bool)]
    distance = np.abs(between[:, None] - np.array(cosines))
    assert distance.min(axis=1).max() < 1e-7
    assert distance.min(axis=0).max() < 1e-7


@pytest.mark.parametrize(("count", "degree"), [(6, 3), (12, 5), (18, 5), (20, 5), (32, 7), (48, 9), (128, 15)])
def test_grid_averages_of_harmonics_vanish_up_to_its_degree(count: int, degree: int) -> None:
    """Harmonics of e3nn, as far as it has them."""
    grid = torch.tensor(orientation_grid(count))
    assert grid.shape == (count, 3)
    torch.testing.assert_close(grid.norm(dim=1), torch.ones(count, dtype=torch.float64), rtol=1e-14, atol=0)
    distances = torch.cdist(grid, grid) + 2 * torch.eye(count)
    assert distances.min() > 2 / math.sqrt(count)
    harmonics = o3.spherical_harmonics(list(range(1, min(degree, 11) + 1)), grid, False, "component")
    assert harmonics.mean(dim=0).abs().max() < 1e-11


@pytest.mark.parametrize("count", [0, 4, 7, 21])
def test_grids_that_cannot_be_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="even and at least 6"):
        orientation_grid(count)


def random_graph(nodes: int, inputs: Inputs, turn: Tensor | None = None, seed: int = 0) -> Graph:
    """All pairs of random points, turned."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.eye(3, dtype=torch.float64) if turn is None else turn
    positions = torch.rand(nodes, 3, generator=generator, dtype=torch.float64) * 3 @ turn.T
    vectors = torch.randn(nodes, 3, inputs.vectors, generator=generator, dtype=torch.float64)
    receivers, senders = torch.tensor(list(itertools.permutations(range(nodes), 2))).T
    edges = positions[senders] - positions[receivers]
    node_vectors = torch.einsum("ij,njv->niv", turn, vectors) if inputs.vectors else None
    kinds = torch.zeros(nodes, dtype=torch.int64)
    return Graph(kinds, senders, receivers, edges, edges.norm(dim=1), None, node_vectors)


def symmetry_of(grid: np.ndarray, rng: np.random.Generator) -> Tensor:
    """A proper rotation that maps the grid onto itself: it takes one triple of its points to another."""
    triples = list(itertools.permutations(range(len(grid)), 3))
    for k in rng.permutation(len(triples)):
        source, target = grid[[0, 1, 2]], grid[list(triples[k])]
        rotation = target.T @ np.linalg.inv(source.T)
        maps = np.abs((grid @ rotation.T) @ grid.T).max(axis=1) > 1 - 1e-9
        proper = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9) and np.linalg.det(rotation) > 0
        if proper and maps.all() and np.trace(rotation) < 2.9:
            # Polished, so that the test is not limited by the grid's own last digits.
            left, _, right = np.linalg.svd(rotation)
            return torch.tensor(left @ right)
    raise AssertionError("no rotation found")


@pytest.mark.parametrize("count", [6, 12])
def test_rotations_that_permute_the_grid_are_exact(count: int) -> None:
    torch.manual_seed(0)
    inputs = Inputs(vectors=2)
    model = PONITA(inputs, 5.0, channels=8, layers=2, orientations=count).double()
    rng = np.random.default_rng(0)
    plain = model(random_graph(6, inputs))
    for _ in range(3):
        rotation = symmetry_of(orientation_grid(count), rng)
        turned = model(random_graph(6, inputs, rotation))
        torch.testing.assert_close(turned.scalars, plain.scalars, rtol=1e-9, atol=1e-10)
        expected = torch.einsum("ij,njc->nic", rotation, plain.vectors)
        torch.testing.assert_close(turned.vectors, expected, rtol=1e-9, atol=1e-10)
        assert (turned.vectors - plain.vectors).abs().max() > 0.1


def test_inversion_is_exact_since_orientations_come_in_opposite_pairs() -> None:
    torch.manual_seed(0)
    inputs = Inputs(vectors=2)
    model = PONITA(inputs, 5.0, channels=8, layers=2).double()
    plain = model(random_graph(6, inputs))
    inverted = model(random_graph(6, inputs, -torch.eye(3, dtype=torch.float64)))
    torch.testing.assert_close(inverted.scalars, plain.scalars, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(inverted.vectors, -plain.vectors, rtol=1e-12, atol=1e-12)


def test_block_is_a_convolution_over_positions_and_orientations() -> None:
    """Slow twin: the sum over neighbours y and orientations o' of K(y - x, o') K'(o . o') f(y, o'), point by point."""
    torch.manual_seed(0)
    graph, channels, neighbors = random_graph(4, Inputs()), 5, 3.0
    grid = torch.tensor(orientation_grid(6))
    spatial, fibre = SpatialKernel(channels, 5.0, 8).double(), FibreKernel(channels).double()
    block = Block(channels, neighbors).double()
    torch.nn.init.normal_(block.own)
    x = torch.randn(4, 6, channels, dtype=torch.float64)

    def spatial_kernel(edge: Tensor, orientation: Tensor) -> Tensor:
        length = edge.norm()
        cosine = float(edge @ orientation / length)
        angular = torch.tensor([1.0, cosine, cosine**2, cosine**3], dtype=torch.float64)
        basis = spatial.basis(length[None])[0]
        weight = spatial.radial.weight.view(4, channels, 8)
        hidden = torch.nn.functional.gelu(torch.einsum("phb,p,b->h", weight, angular, basis) + spatial.bias)
        value = torch.nn.functional.gelu(spatial.out.weight @ hidden + spatial.out.bias)
        return block.spatial.weight @ (value * spatial.envelope(length))

    def fibre_kernel(cosine: float) -> Tensor:
        angular = torch.tensor([1.0, cosine, cosine**2, cosine**3], dtype=torch.float64)
        hidden = torch.nn.functional.gelu(fibre.hidden.weight @ angular)
        return block.fibre.weight @ torch.nn.functional.gelu(fibre.out.weight @ hidden + fibre.out.bias)

    expected = torch.empty_like(x)
    for node, o in itertools.product(range(4), range(6)):
        total = torch.zeros(channels, dtype=torch.float64)
        for p in range(6):
            gathered = block.own * x[node, p]
            for sender, receiver, edge in zip(graph.senders, graph.receivers, graph.vectors, strict=True):
                if receiver == node:
                    gathered = gathered + spatial_kernel(edge, grid[p]) * x[sender, p] / math.sqrt(neighbors)
            total += fibre_kernel(float(grid[o] @ grid[p])) * gathered / 6
        expected[node, o] = x[node, o] + block.layer_scale * block.network(block.norm(total))
    found = block(x, graph, spatial(graph, grid), fibre(grid))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
