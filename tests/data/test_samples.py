from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from scisci.data.samples import AtomsSample, CloudSample, TreeSample, problem

CELL = np.array([[4.0, 0.0, 0.0], [1.5, 4.0, 0.0], [-1.0, 0.7, 5.0]])


def pair(apart: np.ndarray, **more: object) -> AtomsSample:
    first = np.array([0.3, 0.2, 0.1])
    return AtomsSample(np.array([1, 8]), np.stack([first, first + apart]), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [0, 119, -1])
def test_atomic_number_outside_the_periodic_table_is_named(number: int) -> None:
    assert (
        problem(AtomsSample(np.array([1, number]), np.eye(3)[:2])) == f"atomic number {number} is not one of 1 to 118"
    )


def test_heaviest_element_is_fit() -> None:
    assert problem(AtomsSample(np.array([118]), np.zeros((1, 3)))) is None


def test_number_beyond_the_precision_of_the_store_is_named() -> None:
    forces = np.zeros((1, 3))
    sample = AtomsSample(np.array([1]), np.zeros((1, 3)), energy=1e300, forces=forces)
    assert problem(sample) is None
    forces[0, 1] = -1e39  # single precision ends at 3.4e38
    assert problem(sample) == "forces is too large"


def test_label_that_is_no_number_is_named() -> None:
    sample = AtomsSample(np.array([1]), np.zeros((1, 3)), energy="unconverged")  # type: ignore[arg-type]
    assert problem(sample) == "energy is not numeric"


@pytest.mark.parametrize(("distance", "fit"), [(0.0, False), (9e-4, False), (1.1e-3, True), (0.74, True)])
@pytest.mark.parametrize("pbc", [None, (True, True, True), (False, True, False)])
def test_atoms_in_the_same_place_are_named(distance: float, fit: bool, pbc: tuple[bool, ...] | None) -> None:
    more = {} if pbc is None else {"cell": CELL, "pbc": np.array(pbc)}
    found = problem(pair(np.array([0.0, 0.6, 0.8]) * distance, **more))
    assert found == (None if fit else "atoms 0 and 1 are in the same place (closer than 0.001 Å)")


def test_atoms_on_each_others_images_are_named_only_along_periodic_directions() -> None:
    apart = CELL[1] - 2 * CELL[2] + 4e-4
    assert problem(pair(apart, cell=CELL, pbc=np.array([True, True, True]))) is not None
    assert problem(pair(apart, cell=CELL, pbc=np.array([True, True, False]))) is None
    assert problem(pair(apart)) is None


@pytest.mark.parametrize(
    ("cell", "pbc", "fit"),
    [
        (np.zeros((3, 3)), (False, False, False), True),
        (np.zeros((3, 3)), (False, False, True), False),
        (np.diag([3.0, 3.0, 0.0]), (True, True, False), True),
        (np.diag([3.0, 3.0, 0.0]), (True, True, True), False),
        (np.array([[3.0, 0, 0], [6.0, 0, 0], [0, 0, 3.0]]), (True, True, False), False),
        (np.array([[3.0, 0, 0], [6.0, 0, 0], [0, 0, 3.0]]), (True, False, True), True),
    ],
)
def test_singular_cell_matters_only_along_periodic_directions(
    cell: np.ndarray, pbc: tuple[bool, ...], fit: bool
) -> None:
    found = problem(AtomsSample(np.array([1]), np.zeros((1, 3)), cell=cell, pbc=np.array(pbc)))
    assert (found is None) == fit
    assert fit or "cell vectors" in str(found)


def test_periodic_without_a_cell_is_named() -> None:
    assert problem(AtomsSample(np.array([1]), np.zeros((1, 3)), pbc=np.array([True] * 3))) is not None


def test_large_crystal_and_its_duplicated_face() -> None:
    crystal = bulk("Cu", cubic=True) * (12, 12, 12)
    positions = np.concatenate([crystal.positions, crystal.positions[:1] + crystal.cell[0]])
    whole = AtomsSample(crystal.numbers, crystal.positions, np.asarray(crystal.cell), crystal.pbc)
    assert problem(whole) is None
    doubled = AtomsSample(np.full(len(positions), 29), positions, np.asarray(crystal.cell), crystal.pbc)
    assert problem(doubled) == f"atoms 0 and {len(crystal)} are in the same place (closer than 0.001 Å)"


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.sampled_from([5, 40]),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_verdict_is_that_of_all_minimum_image_distances(seed: int, count: int, pbc: tuple[bool, bool, bool]) -> None:
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(3, 6, 3)) + rng.normal(scale=0.5, size=(3, 3))
    positions = rng.uniform(-9, 9, (count, 3))
    images = rng.integers(-2, 3, 3) * np.array(pbc)
    positions[4] = positions[1] + images @ cell + rng.normal(size=3) * rng.choice([0.0, 2e-4, 6e-4, 2e-3])
    atoms = Atoms(numbers=np.ones(count), positions=positions, cell=cell, pbc=pbc)
    distances = atoms.get_all_distances(mic=True)[np.triu_indices(count, 1)]
    found = problem(AtomsSample(atoms.numbers, positions, cell, np.array(pbc)))
    assert (found is not None) == bool(distances.min() < 1e-3)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, None),
        ({"positions": np.array([[0.0, 10.0, 20.0]] * 3)}, None),
        ({"positions": np.array([[1.0] * 3, [1.0, 10.1, 1.0], [-0.1, 1.0, 1.0]])}, "point 1 lies outside its box"),
        ({"box": np.array([10.0, 0.0, 20.0])}, "a side of its box is not above zero"),
        ({"masses": np.array([1e13, 0.0, 1e12])}, "a mass is not above zero"),
        ({"masses": np.array([1e13, 1e12])}, r"masses has shape (2,) instead of (3,)"),
        ({"omega_m": np.nan}, "omega_m is not finite"),
    ],
)
def test_cloud_no_catalogue_can_have_is_named(change: dict[str, object], wrong: str | None) -> None:
    good = {"positions": np.ones((3, 3)), "box": np.array([10.0, 10.0, 20.0]), "masses": np.full(3, 1e13)}
    assert problem(CloudSample(**(good | change))) == wrong  # type: ignore[arg-type]


TREE = {
    # A merger of 1 and 2 into 0, and of 3 and 4 into 1.
    "node_features": np.stack([np.full(5, 13.0), np.ones(5), np.full(5, 2.0), [1.0, 0.9, 0.9, 0.8, 0.7]], axis=1),
    "parent": np.array([-1, 0, 0, 1, 1]),
    "main_branch": np.array([True, True, False, True, False]),
}
VIRTUAL = {
    "node_features": np.concatenate([TREE["node_features"], [[13.0, 1.0, 2.0, 0.0]]]),
    "parent": np.append(TREE["parent"], 1),
    "main_branch": np.append(TREE["main_branch"], False),
    "label": np.array([-1] * 5 + [1]),
}


@pytest.mark.parametrize(
    ("sample", "wrong"),
    [
        (TREE, None),
        (VIRTUAL, None),
        ({"node_features": np.ones((1, 4)), "parent": np.array([-1])}, None),
        (TREE | {"parent": np.array([-1, 0, 0, 5, 1])}, "a parent is not one of its nodes"),
        (TREE | {"parent": np.array([-1, 0, -2, 1, 1])}, "a parent is not one of its nodes"),
        (TREE | {"parent": np.array([-1, 0, -1, 1, 1])}, "it has 2 roots instead of one"),
        (TREE | {"parent": np.array([1, 2, 0, 1, 1])}, "it has 0 roots instead of one"),
        (TREE | {"parent": np.array([-1, 3, 0, 1, 1])}, "node 1 is not earlier than its parent"),
        (TREE | {"parent": np.array([1, 3, 1, 4, -1])}, "node 0 is not earlier than its parent"),
        (TREE | {"node_features": 10 ** TREE["node_features"]}, "a mass is above 10^17 Msun/h"),
        (TREE | {"node_features": TREE["node_features"][:, :3]}, "node_features has shape (5, 3) instead of (5, 4)"),
        (TREE | {"main_branch": np.ones(4, bool)}, "main_branch has shape (4,) instead of (5,)"),
        (TREE | {"omega_m": np.nan}, "omega_m is not finite"),
        (VIRTUAL | {"label": np.array([-1] * 5 + [2])}, "a label is not -1, 0 or 1"),
        (VIRTUAL | {"parent": np.array([-1, 0, 0, 5, 1, 1])}, "a virtual node is a parent, or the root"),
        (VIRTUAL | {"label": np.array([1] + [-1] * 5)}, "a virtual node is a parent, or the root"),
    ],
)
def test_tree_no_halo_can_have_is_named(sample: dict[str, np.ndarray], wrong: str | None) -> None:
    found = problem(TreeSample(**sample))  # type: ignore[arg-type]
    assert found is None if wrong is None else str(found).startswith(wrong)
