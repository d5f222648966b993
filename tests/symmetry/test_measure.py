from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from scipy import stats
from scipy.spatial.transform import Rotation
from torch import Tensor

from scisci.contracts.errors import UserError
from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.models import registry
from scisci.models.conformance.subject import Subject
from scisci.symmetry.actions import act, random_rotations
from scisci.symmetry.groups import GROUPS
from scisci.symmetry.measure import POTENTIAL, Errors, batch_as, measure, relative_rms, symmetry_errors


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


V = torch.tensor([0.3, -0.5, 0.4], dtype=torch.float64)


def tilted(batch: Any) -> dict[str, Tensor]:
    """An equivariant force, the edges' sum, and a fixed vector that breaks rotations by a known amount."""
    return {"forces": spring(batch)["forces"] + V}


def label_error(outputs: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
    return {"forces": outputs["forces"] - spring(batch)["forces"]}


def rms(errors: Errors) -> float:
    return float(np.sqrt(errors.squares.mean(axis=1).sum() / errors.missed.sum()))


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        # The mean of |v - Q v|² is 2 |v|² where that of Q v is zero: exactly so over the finite groups.
        ("rotation", np.sqrt(2)),
        ("orthogonal", np.sqrt(2)),
        ("euclidean", np.sqrt(2)),
        ("octahedral", np.sqrt(2)),
        ("cubic", np.sqrt(2)),
        ("inversion", 2.0),
        # About z only what is across it turns.
        ("axial-z", np.sqrt(2 * (0.3**2 + 0.5**2) / 0.5)),
        ("translation", 0.0),
        ("permutation", 0.0),
    ],
)
def test_error_of_a_fixed_vector_is_its_haar_average(molecules: Any, group: str, expected: float) -> None:
    batch = in_double(molecules)
    found = measure(tilted, [batch] * 5, [group], {"forces": "forces"}, 60, 1, label_error)[group, "forces"]
    finite = GROUPS[group].elements
    assert found.squares.shape == (30, 60 if finite is None else len(finite))
    # Random elements are 60 for each of 30 systems, of which the error of the mean is a few per cent.
    tolerance = 1e-12 if finite is not None or expected == 0 else 0.05
    assert rms(found) == pytest.approx(expected, rel=tolerance, abs=1e-12)
    atoms = np.tile(molecules.ptr.diff().numpy(), 5)
    np.testing.assert_allclose(found.missed, 0.5 * atoms)
    assert np.array_equal(found.entries, 3 * atoms)
    assert np.array_equal(found.samples, np.arange(30))
    assert np.array_equal(found.groups, np.tile(molecules.group.numpy(), 5))


def test_draws_of_a_group_do_not_depend_on_the_others(molecules: Any) -> None:
    alone = measure(tilted, [molecules], ["rotation"], {"forces": "forces"}, 3)
    among = measure(tilted, [molecules], ["permutation", "rotation"], {"forces": "forces"}, 3)
    assert np.array_equal(alone["rotation", "forces"].matrices, among["rotation", "forces"].matrices)
    other = measure(tilted, [molecules], ["rotation"], {"forces": "forces"}, 3, seed=1)
    assert not np.allclose(alone["rotation", "forces"].matrices, other["rotation", "forces"].matrices)


def crystals() -> Any:
    """Two crystals in cubic boxes."""
    rng = np.random.default_rng(0)
    atoms = [bulk("NaCl", "rocksalt", a=a, cubic=True) for a in (5.4, 5.8)]
    items = {
        "numbers": np.tile([6, 8], 8).astype("u1"),
        "positions": np.concatenate([a.positions + rng.normal(scale=0.1, size=(8, 3)) for a in atoms]),
    }
    samples = {"cell": np.array([a.cell for a in atoms]), "pbc": np.ones((2, 3), bool), "group": np.arange(2)}
    return batch_as(graph_batch(Ragged(np.array([0, 8, 16]), items, samples), 4.0), torch.float64)


@pytest.mark.parametrize("architecture", ["painn", "mpnn"])
def test_potential_in_a_cubic_box_keeps_what_it_claims(architecture: str) -> None:
    cls = registry.get(architecture)
    model = Subject(cls, {**cls.SIZES["3k"], "cutoff": 4.0}).potential()
    quantities = {**POTENTIAL, "stress": "stress"}
    found = measure(model, [crystals()], GROUPS, quantities, 2)
    assert set(found) == {(group, quantity) for group in GROUPS for quantity in quantities}
    kept = {"translation", "torus", "permutation"}
    for (group, quantity), errors in found.items():
        error = np.sqrt(errors.squares.mean() / errors.signals.mean())
        if architecture == "painn" or group in kept:
            assert error < 1e-12, (group, quantity)
        else:
            assert error > 1e-4, (group, quantity)


def test_only_systems_periodic_in_all_directions_have_a_stress() -> None:
    batch = crystals()
    batch.pbc[0, 2] = False

    def model(b: Any) -> dict[str, Tensor]:
        return {"stress": torch.where(b.pbc.all(dim=1)[:, None, None], torch.diag(V), torch.nan)}

    errors = measure(model, [batch, batch], ["rotation"], {"stress": "stress"}, 2)["rotation", "stress"]
    assert errors.samples.tolist() == [1, 3]
    assert np.isfinite(errors.squares).all()
    assert errors.entries.tolist() == [9, 9]
    batch.pbc[:] = False
    assert measure(model, [batch], ["rotation"], {"stress": "stress"}) == {}


def test_group_that_cannot_act_is_refused(molecules: Any) -> None:
    with pytest.raises(UserError, match="the group 'torus' cannot act on these data"):
        measure(spring, [molecules], ["torus"])
