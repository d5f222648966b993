"""Elements of groups: laws, uniform draws, and on what a group can act."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.transform import Rotation
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.contracts.metrics import SPACE_GROUPS
from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.symmetry.groups import GROUPS, cubic_matrices, random_orthogonal, random_rotations, require

CUBE = 6.0 * np.eye(3)
FACE_CENTRED = 3.0 * (1 - np.eye(3))
HEXAGONAL = np.array([[3.0, 0, 0], [-1.5, 1.5 * np.sqrt(3), 0], [0, 0, 5.0]])


def points(*cells: np.ndarray, pbc: tuple[bool, bool, bool] = (True, True, True)) -> object:
    """Five points in each cell; without cells, five isolated points."""
    rng, count = np.random.default_rng(0), max(1, len(cells))
    items = {"positions": rng.uniform(0, 3, (5 * count, 3)), "numbers": np.ones(5 * count, "u1")}
    samples: dict[str, np.ndarray] = {"group": np.arange(count)}
    if cells:
        samples |= {"cell": np.array(cells), "pbc": np.tile(pbc, (count, 1))}
    return graph_batch(Ragged(np.arange(0, 5 * count + 1, 5), items, samples), 2.0)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_every_group_that_runs_report_exists() -> None:
    assert set(SPACE_GROUPS) <= set(GROUPS)
    with pytest.raises(UserError, match="unknown symmetry group 'eucledean'; did you mean 'euclidean'"):
        require("eucledean", points())


@pytest.mark.parametrize("name", GROUPS)
def test_group_laws(name: str) -> None:
    """For random a, b and c: associativity, inverses on both sides, and points that go where products say."""
    batch, rng = points(CUBE, CUBE), np.random.default_rng(1)
    group = require(name, batch)
    a, b, c = (group.draw(batch, rng) for _ in range(3))
    left, right = (a @ b) @ c, a @ (b @ c)
    close(left.matrices, right.matrices)
    close(left.shifts, right.shifts)
    for one in (a @ a.inverse(), a.inverse() @ a):
        close(one.matrices, torch.eye(3).double().expand(2, 3, 3))
        close(one.shifts, torch.zeros(2, 3).double())
        assert one.order is None or torch.equal(one.order, torch.arange(10))
    x = torch.randn(2, 3, dtype=torch.float64)

    def move(element, places):
        return torch.einsum("bij,bj->bi", element.matrices, places) + element.shifts

    close(move(a @ b, x), move(a, move(b, x)))
    if a.order is not None:
        labels = torch.randn(10)
        assert torch.equal(labels[b.order][a.order], labels[(a @ b).order])
        assert torch.equal(a.order // 5, torch.arange(10) // 5)
        assert not torch.equal(a.order, torch.arange(10))


def test_cubic_group_is_that_of_the_cube() -> None:
    matrices = cubic_matrices().numpy()
    assert np.array_equal(matrices[0], np.eye(3))
    ours = {tuple(m.ravel().round(6) + 0.0) for m in matrices[:24]}
    scipys = {tuple(m.ravel().round(6) + 0.0) for m in Rotation.create_group("O").as_matrix()}
    assert ours == scipys
    every = {tuple(m.ravel()) for m in matrices}
    assert len(every) == 48
    assert {tuple((a @ b).ravel()) for a in matrices for b in matrices} == every


def test_haar_moments_on_rotations_and_reflections() -> None:
    """E[Q] = 0 and E[Q_ij Q_kl] = δ_ik δ_jl / 3; the trace has E[tr²] = 1; det is fair on O(3)."""
    count = 40_000
    for draw in (random_rotations, random_orthogonal):
        q = draw(count, np.random.default_rng(0)).numpy().reshape(count, 9)
        assert np.abs(q.mean(axis=0)).max() < 4 * np.sqrt(1 / 3 / count)
        assert np.abs(q.T @ q / count - np.eye(9) / 3).max() < 5 / np.sqrt(count) / 2
        trace = q[:, [0, 4, 8]].sum(axis=1)
        assert np.square(trace).mean() == pytest.approx(1, abs=0.04)
    assert np.linalg.det(q.reshape(-1, 3, 3)).mean() == pytest.approx(0, abs=4 / np.sqrt(count))


@pytest.mark.parametrize(("group", "axis"), [("axial-x", 0), ("axial-y", 1), ("axial-z", 2)])
def test_axial_rotations_fix_their_axis_and_turn_by_any_angle(group: str, axis: int) -> None:
    batch, rng = points(), np.random.default_rng(0)
    q = torch.cat([GROUPS[group].draw(batch, rng).matrices for _ in range(2000)]).numpy()
    np.testing.assert_allclose(q[:, :, axis], np.tile(np.eye(3)[axis], (2000, 1)), atol=1e-12)
    others = [k for k in range(3) if k != axis]
    angles = np.arctan2(q[:, others[1], others[0]], q[:, others[0], others[0]]) / (2 * np.pi)
    assert stats.kstest(angles % 1, "uniform").pvalue > 1e-3


def test_finite_groups_are_drawn_and_gone_through_evenly() -> None:
    batch, rng = points(), np.random.default_rng(0)
    for name, size in (("octahedral", 24), ("cubic", 48), ("inversion", 1)):
        every = torch.cat([element.matrices for element in GROUPS[name].every(batch)])
        assert len(torch.unique(every, dim=0)) == size
        drawn = torch.cat([GROUPS[name].draw(batch, rng).matrices for _ in range(60 * size)])
        found, counts = torch.unique(drawn, dim=0, return_counts=True)
        assert len(found) == size
        assert size == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_box_translations_are_uniform_over_the_cell() -> None:
    batch, rng = points(HEXAGONAL), np.random.default_rng(0)
    shifts = torch.cat([GROUPS["torus"].draw(batch, rng).shifts for _ in range(2000)]).numpy()
    fractions = np.linalg.solve(HEXAGONAL.T, shifts.T).T % 1
    assert min(stats.kstest(column, "uniform").pvalue for column in fractions.T) > 1e-3


@pytest.mark.parametrize(
    ("name", "cells", "pbc", "message"),
    [
        ("torus", (), (True,) * 3, "not periodic; 'translation' moves isolated systems"),
        ("torus", (CUBE, CUBE), (False,) * 3, "system 0 of a batch is not periodic"),
        ("cubic", (CUBE, np.diag([6.0, 6.0, 6.1])), (True,) * 3, "lattice of system 1 .* cubic box"),
        ("octahedral", (HEXAGONAL,), (True,) * 3, "lattice of system 0 .* 'orthogonal' turns any box"),
        ("cubic", (CUBE @ Rotation.from_rotvec([0, 0, 0.3]).as_matrix(),), (True,) * 3, "sides along x, y and z"),
        ("cubic", (CUBE,), (True, True, False), "lattice of system 0"),
    ],
)
def test_group_that_cannot_act_is_refused(name: str, cells: tuple, pbc: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        require(name, points(*cells, pbc=pbc))


@pytest.mark.parametrize("cells", [(), (CUBE,), (FACE_CENTRED, CUBE)], ids=["isolated", "cube", "face-centred"])
def test_cubic_group_acts_on_cubic_lattices_and_isolated_systems(cells: tuple) -> None:
    assert require("cubic", points(*cells)) is GROUPS["cubic"]


def test_every_other_group_acts_on_any_cell() -> None:
    """They turn the cell, and -1 maps every lattice onto itself."""
    for name in set(GROUPS) - {"cubic", "octahedral"}:
        require(name, points(HEXAGONAL))
