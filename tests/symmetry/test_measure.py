from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.transform import Rotation
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.symmetry.actions import act, random_rotations
from scisci.symmetry.measure import relative_rms, symmetry_errors


def spring(batch: Any) -> dict[str, Tensor]:
    """An exactly E(3)-equivariant model in closed form: harmonic pairs."""
    senders, receivers = batch.edge_index
    vectors = batch.pos[senders] + batch.edge_shift - batch.pos[receivers]
    energies = vectors.square().sum(1)
    energy = energies.new_zeros(batch.num_graphs).index_add(0, batch.batch[receivers], energies)
    return {"interaction": energy, "forces": torch.zeros_like(batch.pos).index_add(0, receivers, 4 * vectors)}


def field(batch: Any) -> dict[str, Tensor]:
    """A model that breaks rotations by a known amount: a uniform force along z on every atom."""
    energy = -torch.zeros(batch.num_graphs, dtype=batch.pos.dtype).index_add(0, batch.batch, batch.pos[:, 2])
    return {"interaction": energy, "forces": torch.tensor([0.0, 0.0, 1.0]).expand_as(batch.pos)}


def in_double(batch: Any) -> Any:
    batch = copy.copy(batch)
    batch.pos, batch.edge_shift = batch.pos.double(), batch.edge_shift.double()
    return batch


def test_equivariant_model_has_no_error(molecules: Any) -> None:
    for name, error in symmetry_errors(spring, [in_double(molecules)]).items():
        assert error.value < 1e-13, name


def test_broken_rotation_has_the_error_of_the_closed_form(molecules: Any) -> None:
    """|z - R^T z|^2 averages to 2 over rotations, so the relative rms error is sqrt(2)."""
    errors = symmetry_errors(field, [molecules] * 200, seed=1)
    rotation = errors["symmetry_rotation_forces"]
    assert rotation.value == pytest.approx(np.sqrt(2), rel=0.03)
    assert abs(rotation.value - np.sqrt(2)) < 4 * rotation.se
    assert errors["symmetry_permutation_forces"].value == 0
    assert errors["symmetry_translation_forces"].value == 0
    assert errors["symmetry_translation_energy"].value > 1


def test_rotations_are_uniform() -> None:
    """The trace of a uniform rotation follows the angle density (1 - cos t) / pi."""
    angles = Rotation.from_matrix(random_rotations(4000, np.random.default_rng(0)).numpy()).magnitude()
    assert stats.kstest(angles, lambda t: (t - np.sin(t)) / np.pi).pvalue > 1e-3


def test_actions_keep_distances_and_reflections_change_handedness(molecules: Any) -> None:
    batch, rng = in_double(molecules), np.random.default_rng(0)
    plain = spring(batch)["interaction"]
    for group in ("rotation", "reflection", "translation", "permutation"):
        acted, _ = act(group, batch, rng)
        torch.testing.assert_close(spring(acted)["interaction"], plain)
        assert not torch.equal(acted.pos, batch.pos)
    first = slice(0, int(batch.ptr[1]))

    def handedness(b: Any) -> float:
        return float(torch.linalg.det((b.pos[first] - b.pos[first].mean(0))[:3]))

    assert handedness(act("rotation", batch, rng)[0]) == pytest.approx(handedness(batch))
    assert handedness(act("reflection", batch, rng)[0]) == pytest.approx(-handedness(batch))


def test_jackknife_error_agrees_with_resampling() -> None:
    rng = np.random.default_rng(0)
    errors, signals = rng.exponential(1e-6, 400), rng.exponential(1.0, 400)
    draws = rng.integers(0, 400, (4000, 400))
    bootstrap = np.sqrt(errors[draws].sum(1) / signals[draws].sum(1)).std()
    assert relative_rms(errors, signals).se == pytest.approx(bootstrap, rel=0.1)


def test_unknown_group_names_the_closest(molecules: Any) -> None:
    with pytest.raises(UserError, match="did you mean"):
        act("rotatoin", molecules, np.random.default_rng(0))
