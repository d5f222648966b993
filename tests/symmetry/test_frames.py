"""Frames turn with their systems; averages over them are exact, and equal what a plain loop over all signs gives."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.models.conformance.systems import batch_of, crystal
from scisci.symmetry.actions import act, random_rotations
from scisci.symmetry.frames import Frames, average_over_frames, principal_axes, relative_gaps, second_moments

ALL = [
    Frames(group, kind)  # type: ignore[arg-type]
    for group in ("orthogonal", "rotation")
    for kind in ("full", "weighted")
]


def named(frames: Frames) -> str:
    return f"{frames.group}-{frames.kind}"


def moments(seed: int, count: int = 5) -> Tensor:
    vectors = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 4, 3)))
    return vectors.transpose(1, 2) @ vectors


def crooked(batch: Any) -> dict[str, Tensor]:
    """A model that knows x from y from z in everything it predicts, and reads positions themselves."""
    x, y, z = batch.pos.unbind(1)
    atoms = batch.numbers * (torch.sin(x + 0.3) * y + z.square() * x + torch.cos(y - z))
    forces = torch.stack([x * y + 1, torch.sin(z) - x, x * y * z], dim=1)
    sums = torch.zeros(batch.num_graphs, dtype=x.dtype).index_add(0, batch.batch, atoms)
    stress = torch.zeros(batch.num_graphs, 3, 3, dtype=x.dtype)
    stress.index_add_(0, batch.batch, forces[:, :, None] * batch.pos[:, None, :])
    return {"interaction": sums, "forces": forces, "stress": stress, "positions": batch.pos + forces}


@pytest.fixture(scope="module")
def systems() -> Any:
    rng = np.random.default_rng(0)
    return batch_of(*((rng.integers(1, 9, n), rng.normal(size=(n, 3))) for n in (4, 7, 3)), cutoff=6.0)


@pytest.mark.parametrize("frames", ALL, ids=named)
def test_the_set_of_frames_turns_with_the_moments(frames: Frames) -> None:
    """F(Q M Qᵀ) = Q F(M) as sets with weights, which is what makes averages invariant (Puny et al., definition 1)."""
    turn = random_rotations(1, np.random.default_rng(1))[0] * (-1 if frames.group == "orthogonal" else 1)
    plain, weights = frames(moments(0))
    turned, turned_weights = frames(turn @ moments(0) @ turn.T)
    away = (turned[:, None] - turn @ plain[None]).abs().amax(dim=(-2, -1))
    nearest = away.argmin(dim=1)
    assert away.amin(dim=1).max() < 1e-10
    assert torch.equal(nearest.sort(dim=0).values, torch.arange(len(plain))[:, None].expand_as(nearest))
    torch.testing.assert_close(turned_weights, weights.gather(0, nearest), atol=1e-12, rtol=0)
    torch.testing.assert_close(weights.sum(0), torch.ones(5).double())


@pytest.mark.parametrize("frames", ALL, ids=named)
def test_frames_are_orthogonal_of_their_group_and_diagonalise(frames: Frames) -> None:
    axes, _ = frames(moments(2))
    assert len(axes) == {"full": 1, "weighted": 6}[frames.kind] * {"orthogonal": 8, "rotation": 4}[frames.group]
    determinants = torch.linalg.det(axes)
    assert set(determinants.round().flatten().tolist()) == ({1.0} if frames.group == "rotation" else {1.0, -1.0})
    within = axes.transpose(-1, -2) @ moments(2) @ axes
    assert (within - torch.diag_embed(within.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-12


def test_average_equals_the_loop_over_signs(systems: Any) -> None:
    """Eigenvectors by numpy, signs by itertools, sums by hand, one system at a time."""
    found = average_over_frames(crooked, systems, Frames())
    for k in range(systems.num_graphs):
        single = systems[k]
        points = single.pos.numpy() - single.pos.numpy().mean(0)
        # For all pairs, the moments of the edges are those of the points but for a factor.
        axes = np.linalg.eigh(points.T @ points)[1]
        energies, forces, stresses = [], [], []
        for signs in itertools.product((1, -1), repeat=3):
            frame = axes * signs
            seen = batch_of((single.numbers.numpy(), points @ frame))
            outputs = {name: values.numpy() for name, values in crooked(seen).items()}
            energies.append(outputs["interaction"][0])
            forces.append(outputs["forces"] @ frame.T)
            stresses.append(frame @ outputs["stress"][0] @ frame.T)
        rows = slice(int(systems.ptr[k]), int(systems.ptr[k + 1]))
        np.testing.assert_allclose(found["interaction"][k], np.mean(energies), atol=1e-10)
        np.testing.assert_allclose(found["forces"][rows], np.mean(forces, axis=0), atol=1e-10)
        np.testing.assert_allclose(found["stress"][k], np.mean(stresses, axis=0), atol=1e-10)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(2, 6), min_size=1, max_size=3))
@pytest.mark.parametrize("frames", ALL, ids=named)
def test_average_is_equivariant(frames: Frames, seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    batch = batch_of(*((rng.integers(1, 9, n), rng.normal(size=(n, 3))) for n in sizes), cutoff=8.0)
    senders, receivers = batch.edge_index
    shape = second_moments(batch.pos[senders] - batch.pos[receivers], batch.batch[receivers], batch.num_graphs, 8.0)
    # Eigenvectors carry rounding errors of 1e-16 / gap. Two points always lie on a line, where axes do not matter.
    if any(n > 2 and gap < 1e-3 for n, gap in zip(sizes, relative_gaps(shape), strict=True)):
        return
    plain = average_over_frames(crooked, batch, frames, 8.0)
    for group in ("euclidean",) if frames.group == "orthogonal" else ("rigid", "permutation"):
        acted, undo = act(group, batch, rng)
        back = undo(average_over_frames(crooked, acted, frames, 8.0))
        for name, values in plain.items():
            torch.testing.assert_close(back[name], values, atol=1e-9, rtol=1e-9)


def test_moments_are_those_of_the_points_without_a_cutoff() -> None:
    """Sum over pairs of (x_i - x_j)(x_i - x_j)ᵀ = 2 N sum of (x_i - c)(x_i - c)ᵀ."""
    points = np.random.default_rng(3).normal(size=(7, 3))
    batch = batch_of((np.ones(7), points), cutoff=1e3)
    senders, receivers = batch.edge_index
    found = second_moments(batch.pos[senders] - batch.pos[receivers], batch.batch[receivers], 1)[0]
    centred = points - points.mean(0)
    np.testing.assert_allclose(found, 14 * centred.T @ centred, atol=1e-12)


def test_moments_of_a_crystal_do_not_know_its_cell_or_origin() -> None:
    """Points moved by lattice vectors have the same moments, a cell taken twice has twice as large ones."""
    numbers, positions, cell = crystal(np.random.default_rng(0))

    def found(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray) -> Tensor:
        batch = batch_of((numbers, positions), cell=cell)
        senders, receivers = batch.edge_index
        vectors = batch.pos[senders] + batch.edge_shift - batch.pos[receivers]
        return second_moments(vectors, batch.batch[receivers], 1, 5.0)[0]

    one = found(numbers, positions, cell)
    wrapped = positions + np.array([[1, 0, -2], [0, 3, 0], [0, 0, 1]]) @ cell
    torch.testing.assert_close(found(numbers, wrapped, cell), one)
    doubled = found(np.tile(numbers, 2), np.concatenate([positions, positions + cell[0]]), cell * [[2.0], [1], [1]])
    torch.testing.assert_close(doubled, 2 * one)


def test_stochastic_frames_are_drawn_uniformly_from_the_full_ones() -> None:
    torch.manual_seed(0)
    shape = moments(4, 1).expand(8000, 3, 3)
    full, weights = Frames()(shape)
    drawn, one = Frames(kind="stochastic")(shape, training=True)
    assert drawn.shape == (1, 8000, 3, 3)
    assert torch.equal(one, torch.ones(1, 8000).double())
    away = (drawn - full).abs().amax(dim=(2, 3))
    assert away.amin(dim=0).max() == 0
    counts = np.bincount(away.argmin(dim=0), minlength=8)
    assert stats.chisquare(counts).pvalue > 1e-3
    torch.testing.assert_close(weights, torch.full((8, 8000), 1 / 8).double())
    # Outside training all are averaged: what is reported does not depend on chance.
    assert torch.equal(Frames(kind="stochastic")(shape)[0], full)


def projector_sum(m: Tensor) -> Tensor:
    """A function of eigenvalues and axes that does not depend on signs."""
    values, axes = principal_axes(m)
    shape = torch.tensor([1.0, -2.0, 4.0]).to(m)
    return axes @ torch.diag_embed(shape * values.sin()) @ axes.transpose(1, 2)


def test_derivatives_of_axes_are_exact_to_second_order() -> None:
    m = moments(5, 2).requires_grad_()
    symmetric = lambda x: projector_sum(0.5 * (x + x.transpose(1, 2)))
    assert torch.autograd.gradcheck(symmetric, m, atol=1e-6)
    assert torch.autograd.gradgradcheck(symmetric, m, atol=1e-5)


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
def test_derivatives_stay_finite_where_axes_are_not_determined(values: list[float]) -> None:
    m = torch.diag_embed(torch.tensor([values])).requires_grad_()
    (first,) = torch.autograd.grad(projector_sum(m)[0, 0].sum(), m, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), m)
    assert first.isfinite().all()
    assert second.isfinite().all()


def test_unknown_frames_name_the_closest() -> None:
    with pytest.raises(UserError, match="did you mean 'weighted'"):
        Frames(kind="weigthed")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="group of frames"):
        Frames("translation")  # type: ignore[arg-type]


def cross(width: float) -> Any:
    """Two points on each axis; those on x and y differ in kind, and change rank as `width` goes through 1."""
    x, y, z = np.eye(3)
    return batch_of(([1, 1, 6, 6, 8, 8], [width * x, -width * x, y, -y, 2 * z, -2 * z]), cutoff=9.0)


def kinds_along(axis: int) -> Any:
    return lambda batch: {"interaction": (batch.numbers * batch.pos[:, axis].square()).sum()[None]}


def test_axes_that_exchange_rank_make_full_frames_jump_and_weighted_ones_not() -> None:
    """At width 1 the middle axis has 2 x 1 (hydrogen) on one side and 2 x 6 (carbon) on the other."""

    def energy(frames: Frames, width: float, axis: int = 1) -> float:
        return float(average_over_frames(kinds_along(axis), cross(width), frames)["interaction"])

    step = 1e-9
    assert energy(Frames(), 1 + step) - energy(Frames(), 1 - step) == pytest.approx(2 * 1 - 2 * 6, abs=1e-6)
    weighted = Frames(kind="weighted")
    assert energy(weighted, 1 + step) == pytest.approx(energy(weighted, 1 - step), abs=1e-6)
    # There both orders of the two axes weigh the same.
    assert energy(weighted, 1.0) == pytest.approx(7, abs=0.5)
    for axis, expected in enumerate((2 * 1 * 0.7**2, 2 * 6, 2 * 8 * 2**2)):
        for frames in (Frames(), Frames(kind="weighted", sharpness=1e6)):
            assert energy(frames, 0.7, axis) == pytest.approx(expected)
