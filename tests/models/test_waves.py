"""Sums over plane waves of a box: those of a sum by hand, and as symmetric as the box is."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.models import registry
from scisci.models.blocks.waves import BoxWaves, smoothed_fields
from scisci.models.cloud import Cloud, Target, inputs_of

SIDE = 10.0
CUBE = [
    np.diag(signs) @ np.eye(3)[list(order)]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


def by_hand(pos: np.ndarray, cell: np.ndarray, modes: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """One wave after the other."""
    contrast, displacement = np.zeros(len(pos), complex), np.zeros((len(pos), 3), complex)
    reciprocal = 2 * math.pi * np.linalg.inv(cell).T
    for n in itertools.product(range(-modes, modes + 1), repeat=3):
        k = np.array(n) @ reciprocal
        if any(n):
            density = np.exp(-1j * pos @ k).mean() * math.exp(-0.5 * (k @ k) * radius**2)
            contrast += density * np.exp(1j * pos @ k)
            displacement += (density * np.exp(1j * pos @ k))[:, None] * 1j * k / (k @ k)
    assert np.abs(contrast.imag).max() < 1e-12
    return contrast.real, displacement.real


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 6), modes=st.integers(1, 3), seed=st.integers(0, 99))
def test_sums_are_those_by_hand(count: int, modes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(4, 9, 3)) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    pos, radii = rng.uniform(-9, 9, (count, 3)), rng.uniform(0.1, 3, 2)
    contrast, displacement = smoothed_fields(*(torch.from_numpy(a) for a in (pos, cell)), modes, torch.tensor(radii))
    for k, radius in enumerate(radii):
        expected = by_hand(pos, cell, modes, radius)
        np.testing.assert_allclose(contrast[:, k], expected[0], atol=1e-12)
        np.testing.assert_allclose(displacement[..., k], expected[1], atol=1e-12)


def test_displacement_has_minus_the_contrast_as_divergence() -> None:
    pos = torch.rand(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * SIDE
    cell, probe = SIDE * torch.eye(3, dtype=torch.float64), 0
    step, radius = 1e-4, torch.tensor([1.0])
    # Points of no weight would be needed to probe the field alone; 4,000 copies of the others make one weigh little.
    many = torch.cat([pos[:1], pos.repeat(4000, 1)])

    def at(shift: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
        moved = many.clone()
        moved[probe] += torch.tensor(shift, dtype=torch.float64)
        return smoothed_fields(moved, cell, 2, radius)

    divergence = sum(
        (at((np.eye(3)[axis] * step).tolist())[1] - at((-np.eye(3)[axis] * step).tolist())[1])[probe, axis, 0]
        for axis in range(3)
    ) / (2 * step)
    assert float(divergence) == pytest.approx(-float(at([0.0] * 3)[0][probe, 0]), rel=1e-3)


def make(architecture: str) -> Cloud:
    torch.manual_seed(0)
    waves, options = BoxWaves(3), registry.options(architecture, "3k", {"cutoff": 3.0})
    backbone = registry.build(architecture, inputs_of((), waves), 5.0, vector_output=True, **options)
    return Cloud(backbone, (), (Target("velocities", "vector"),), waves).double().eval()


def velocities(model: Cloud, pos: np.ndarray) -> np.ndarray:
    ragged = Ragged(np.array([0, len(pos)]), {"positions": pos}, {"group": np.zeros(1), "box": np.full((1, 3), SIDE)})
    batch = graph_batch(ragged, 3.0, dtype=np.float64)
    with torch.no_grad():
        return model(batch)["velocities"].numpy()


def test_models_with_waves_keep_the_symmetries_of_the_box() -> None:
    """All 48 elements of the cube's group, and translations; a network on axes keeps the translations alone."""
    pos = np.random.default_rng(0).uniform(0, SIDE, (25, 3))
    for architecture in ("egnn", "painn", "nequip"):
        model = make(architecture)
        plain = velocities(model, pos)
        for element in CUBE:
            np.testing.assert_allclose(
                velocities(model, (pos @ element.T) % SIDE), plain @ element.T, atol=1e-9 * np.abs(plain).max()
            )
    for architecture in ("egnn", "mpnn", "transformer"):
        model = make(architecture)
        plain, moved = velocities(model, pos), velocities(model, (pos + np.array([1.7, -3.1, 8.8])) % SIDE)
        np.testing.assert_allclose(moved, plain, atol=1e-9 * np.abs(plain).max())


def test_waves_reach_beyond_the_cutoff_and_need_a_box() -> None:
    """Two points at opposite ends of the box see each other by waves alone."""
    model = make("egnn")
    apart = velocities(model, np.array([[1.0, 1.0, 1.0], [5.0, 5.0, 4.0]]))
    assert np.abs(apart).max() > 1e-3
    isolated = Ragged(np.array([0, 2]), {"positions": np.array([[0.0] * 3, [1.0] * 3])}, {"group": np.zeros(1)})
    with pytest.raises(UserError, match="need a box"):
        model(graph_batch(isolated, 3.0, dtype=np.float64))
