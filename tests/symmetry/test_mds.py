"""Invariant coordinates keep every distance, know nothing of position and orientation, and say what they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.models.conformance.systems import batch_of, crystal
from scisci.symmetry.actions import act
from scisci.symmetry.groups import random_orthogonal, random_rotations
from scisci.symmetry.mds import canonicalised, invariant_coordinates


def points(seed: int, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(sum(sizes), 3))), torch.repeat_interleave(
        torch.arange(len(sizes)), torch.tensor(sizes)
    )


def classical_scaling(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gram matrix [N, N] and coordinates [N, 3] by double centring of squared distances (Torgerson, 1952)."""
    distances = ((positions[:, None] - positions[None]) ** 2).sum(2)
    centring = np.eye(len(positions)) - 1 / len(positions)
    gram = -0.5 * centring @ distances @ centring
    values, vectors = np.linalg.eigh(gram)
    largest = values.argsort()[::-1][:3]
    return gram, vectors[:, largest] * np.sqrt(np.maximum(values[largest], 0))


@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_coordinates_are_those_of_scaling_the_distances(seed: int, sizes: list[int]) -> None:
    positions, system = points(seed, tuple(sizes))
    found = invariant_coordinates(positions, system, len(sizes)).numpy()
    for k in range(len(sizes)):
        rows = (system == k).numpy()
        gram, coordinates = classical_scaling(positions[rows].numpy())
        np.testing.assert_allclose(found[rows] @ found[rows].T, gram, atol=1e-10)
        # One by one they agree up to sign, where eigenvalues are apart.
        sizes_of = (coordinates**2).sum(0)
        if len(coordinates) > 3 and np.abs(np.diff(sizes_of)).min() > 1e-3:
            np.testing.assert_allclose(np.abs(found[rows]), np.abs(coordinates), atol=1e-9)
        assert (found[rows] ** 3).sum(0).min() > -1e-10


def test_motions_mirrors_and_labels_do_not_show() -> None:
    rng, sizes = np.random.default_rng(0), (5, 8, 6)
    positions, system = points(1, sizes)
    plain = invariant_coordinates(positions, system, 3)
    matrices, shifts = random_rotations(3, rng), torch.from_numpy(rng.normal(size=(3, 3)) * 10)
    matrices[1] *= -1
    moved = torch.einsum("nij,nj->ni", matrices[system], positions) + shifts[system]
    torch.testing.assert_close(invariant_coordinates(moved, system, 3), plain, atol=1e-10, rtol=0)
    order = torch.from_numpy(np.lexsort((rng.random(len(system)), system.numpy())))
    assert not torch.equal(order, torch.arange(len(order)))
    torch.testing.assert_close(invariant_coordinates(positions[order], system, 3), plain[order], atol=1e-10, rtol=0)


def test_weights_tell_the_ends_of_carbon_monoxide_apart() -> None:
    """Positions alone leave its axis without a direction; with atomic numbers the heavier end is always ahead."""
    of, axes = molecule("CO"), random_orthogonal(8, np.random.default_rng(1))
    numbers = torch.from_numpy(np.tile(of.numbers, 8))
    positions = (torch.from_numpy(of.positions) @ axes).flatten(0, 1)
    system = torch.arange(8).repeat_interleave(2)
    along = invariant_coordinates(positions, system, 8, numbers)[:, 0]
    half = of.get_distance(0, 1) / 2
    torch.testing.assert_close(along, torch.where(numbers == 8, half, -half).double())


def test_equal_eigenvalues_keep_distances_but_not_coordinates() -> None:
    """Methane from all sides: each of its coordinates is rigid, and no two need agree."""
    of = molecule("CH4")
    turned = torch.from_numpy(of.positions + 1e-9) @ random_orthogonal(6, np.random.default_rng(2))
    shaken = turned + 1e-9 * torch.randn(turned.shape, generator=torch.Generator().manual_seed(0))
    found = invariant_coordinates(shaken.flatten(0, 1), torch.arange(6).repeat_interleave(5), 6).unflatten(0, (6, 5))
    torch.testing.assert_close(torch.cdist(found, found), torch.cdist(turned, turned), atol=1e-7, rtol=0)
    assert (found - found[0]).abs().amax() > 0.1


def test_coordinates_are_differentiable() -> None:
    positions, system = points(3, (5, 4))
    assert torch.autograd.gradcheck(lambda x: invariant_coordinates(x, system, 2), positions.requires_grad_())


def directed(batch: Any) -> dict[str, Tensor]:
    """A model without any symmetry but that of labels."""
    x, y, z = batch.pos.unbind(1)
    total = torch.zeros(batch.num_graphs).double().index_add(0, batch.batch, batch.numbers * torch.sin(x + 2 * y * z))
    return {"interaction": total, "forces": torch.stack([y, x * z, torch.cos(x)], dim=1)}


def test_any_model_on_them_is_equivariant() -> None:
    rng = np.random.default_rng(4)
    batch = batch_of(*((rng.integers(1, 9, n), rng.normal(size=(n, 3))) for n in (4, 7)))
    plain = canonicalised(directed, batch)
    for group in ("rigid", "permutation"):
        acted, undo = act(group, batch, rng)
        for name, values in undo(canonicalised(directed, acted)).items():
            torch.testing.assert_close(values, plain[name], atol=1e-9, rtol=0)
    mirrored, undo = act("reflection", batch, rng)
    torch.testing.assert_close(canonicalised(directed, mirrored)["interaction"], plain["interaction"])


def test_periodic_systems_are_refused() -> None:
    numbers, positions, cell = crystal(np.random.default_rng(0))
    with pytest.raises(UserError, match="use frames"):
        canonicalised(directed, batch_of((numbers, positions), cell=cell))
