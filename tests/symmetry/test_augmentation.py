"""Augmentation draws from Haar measure, is decided by torch's seed, and turns labels with their systems."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.symmetry.augmentation import Augmentation

SYSTEMS = 20_000


@pytest.fixture(scope="module")
def axes() -> Any:
    """Systems of three points, at unit length along x, y and z: turned, they are the columns of the matrix."""
    positions = np.tile(np.eye(3), (SYSTEMS, 1))
    return graph_batch(Ragged(np.arange(0, 3 * SYSTEMS + 1, 3), {"positions": positions}, {}), 0.5)


def matrices(kind: str, axes: Any) -> Tensor:
    torch.manual_seed(0)
    return Augmentation(kind)(axes).pos.double().reshape(-1, 3, 3).transpose(1, 2)


@pytest.mark.parametrize(("kind", "det", "diagonal"), [("rotation", 1.0, 1 / 6), ("rotation+reflection", 0.0, 0.0)])
def test_moments_are_those_of_haar_measure(axes: Any, kind: str, det: float, diagonal: float) -> None:
    """Moments up to the fourth of uniform orthogonal matrices (Weingarten calculus), within 5 standard errors."""
    found = matrices(kind, axes)
    torch.testing.assert_close(found @ found.transpose(1, 2), torch.eye(3).double().expand_as(found), atol=1e-6, rtol=0)
    x, y = found[:, 0, 0], found[:, 1, 1]
    moments = {
        "R11": (x, 0.0),
        "R12": (found[:, 0, 1], 0.0),
        "R11²": (x**2, 1 / 3),
        "R11⁴": (x**4, 1 / 5),
        "R11² R22²": (x**2 * y**2, 2 / 15),
        "R11² R12²": (x**2 * found[:, 0, 1] ** 2, 1 / 15),
        "R11 R22 R12 R21": (x * y * found[:, 0, 1] * found[:, 1, 0], -1 / 30),
        "R11 R22 R33": (x * y * found[:, 2, 2], diagonal),
    }
    for name, (values, expected) in moments.items():
        assert abs(values.mean() - expected) < 5 * values.std() / SYSTEMS**0.5, name
    assert abs(torch.linalg.det(found).mean() - det) < 5 / SYSTEMS**0.5


def test_the_seed_of_torch_decides(axes: Any) -> None:
    before = axes.pos.clone()
    first = matrices("rotation", axes)
    assert torch.equal(matrices("rotation", axes), first)
    again = Augmentation("rotation")(axes).pos.double().reshape(-1, 3, 3).transpose(1, 2)
    assert not torch.allclose(again, first, atol=0.1)
    assert torch.equal(axes.pos, before)
    assert Augmentation("none")(axes) is axes


def test_labels_turn_with_their_systems(molecules: Any) -> None:
    """Which vectors forces make with distances, lengths and energies stays; everything that has a direction turns."""
    batch = Augmentation("rotation+reflection")(molecules, np.random.default_rng(0))
    senders, receivers = molecules.edge_index

    def seen(b: Any) -> Tensor:
        vectors = b.pos[senders] + b.edge_shift - b.pos[receivers]
        return torch.stack([(vectors * b.forces[senders]).sum(1), vectors.norm(dim=1)])

    torch.testing.assert_close(seen(batch), seen(molecules), atol=1e-4, rtol=1e-4)
    assert torch.equal(batch.energy, molecules.energy)
    assert not torch.allclose(batch.forces, molecules.forces, atol=0.1)


def test_unknown_kind_names_the_closest() -> None:
    with pytest.raises(UserError, match="did you mean"):
        Augmentation("rotations")
