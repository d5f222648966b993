"""Elements acting on batches: laws, labels taken back, and boxes that stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from torch import Tensor

from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.symmetry.actions import act, apply
from scisci.symmetry.groups import GROUPS, Element, require
from scisci.symmetry.measure import batch_as

CUTOFF = 4.0
CONTENT = ("pos", "forces", "velocities", "cell", "stress", "numbers")
LABELS = ("energy", "forces", "stress")


def systems(box: str) -> Any:
    """Two systems with every kind of field, in float64: isolated, in a cubic box, or in a skewed cell."""
    rng = np.random.default_rng(0)
    cells = {"cubic": [4.5 * np.eye(3), 6.0 * np.eye(3)], "skewed": [TRICLINIC, 1.2 * TRICLINIC]}.get(box)
    stress = rng.normal(size=(2, 3, 3))
    samples = {"energy": rng.normal(size=2), "stress": stress + stress.transpose(0, 2, 1), "group": np.arange(2)}
    if cells is not None:
        samples |= {"cell": np.array(cells), "pbc": np.ones((2, 3), bool)}
    items = {name: rng.normal(size=(12, 3)) for name in ("forces", "velocities")}
    items |= {"positions": rng.uniform(0, 4, (12, 3)), "numbers": np.arange(1, 13)}
    return batch_as(graph_batch(Ragged(np.array([0, 7, 12]), items, samples), CUTOFF), torch.float64)


TRICLINIC = np.array([[4.1, 0.2, -0.4], [1.3, 4.4, 0.3], [-0.9, 0.8, 5.2]])
ALL = [(box, name) for box in ("isolated", "cubic", "skewed") for name in GROUPS]
POSSIBLE = [
    (box, name)
    for box, name in ALL
    if not (name == "torus" and box == "isolated") and not (name in ("cubic", "octahedral") and box == "skewed")
]


def edges(batch: Any) -> Tensor:
    """[E, 5] sender, receiver and edge vector, in a canonical order."""
    senders, receivers = batch.edge_index
    vectors = batch.pos[senders] + batch.edge_shift - batch.pos[receivers]
    return torch.cat([torch.stack([senders, receivers], 1).double(), vectors], dim=1)


def assert_same_edges(found: Any, expected: Any) -> None:
    rows, others = edges(found).numpy(), edges(expected).numpy()
    assert len(rows) == len(others) > 0
    distance, partner = cKDTree(others).query(rows)
    assert distance.max() < 1e-6
    assert len(set(partner)) == len(rows)


@pytest.mark.parametrize(("box", "name"), POSSIBLE)
def test_acting_twice_is_acting_with_the_product(box: str, name: str) -> None:
    batch, rng = systems(box), np.random.default_rng(1)
    group = require(name, batch)
    a, b = group.draw(batch, rng), group.draw(batch, rng)
    twice, once = apply(a, apply(b, batch)[0])[0], apply(a @ b, batch)[0]
    for field in CONTENT:
        if field in batch:
            torch.testing.assert_close(twice[field], once[field])
    assert_same_edges(twice, once)


@pytest.mark.parametrize(("box", "name"), POSSIBLE)
def test_inverse_takes_everything_back(box: str, name: str) -> None:
    """Within a box up to lattice vectors: a point outside of it is not put there again."""
    batch = systems(box)
    element = require(name, batch).draw(batch, np.random.default_rng(2))
    back = apply(element.inverse(), apply(element, batch)[0])[0]
    for field in ("forces", "velocities", "numbers", "energy", *(("cell", "stress") if "cell" in batch else ())):
        torch.testing.assert_close(back[field], batch[field])
    moved = back.pos - batch.pos
    if element.boxed and "cell" in batch:
        images = torch.linalg.solve(batch.cell.transpose(1, 2)[batch.batch], moved[:, :, None])[:, :, 0]
        moved = images - images.round()
    torch.testing.assert_close(moved, torch.zeros_like(moved), rtol=0, atol=1e-12)
    assert_same_edges(back, batch)


@pytest.mark.parametrize(("box", "name"), POSSIBLE)
def test_labels_come_back_as_they_were(box: str, name: str) -> None:
    """The acted labels, as predictions on the acted batch, are the labels in the original frame."""
    batch = systems(box)
    acted, undo = act(name, batch, np.random.default_rng(3))
    back = undo({label: acted[label] for label in LABELS} | {"positions": acted.pos})
    for label in LABELS:
        torch.testing.assert_close(back[label], batch[label])
    torch.testing.assert_close(back["positions"], batch.pos)


@pytest.mark.parametrize(("box", "name"), [(b, n) for b, n in POSSIBLE if b != "isolated" and GROUPS[n].boxed])
def test_box_stays_and_a_loader_finds_the_same_edges(box: str, name: str) -> None:
    batch = systems(box)
    acted, _ = act(name, batch, np.random.default_rng(4))
    assert torch.equal(acted.cell, batch.cell)
    fractions = torch.linalg.solve(batch.cell.transpose(1, 2)[batch.batch], acted.pos[:, :, None])
    assert fractions.min() >= 0
    assert fractions.max() <= 1
    samples = {"cell": acted.cell.numpy(), "pbc": acted.pbc.numpy(), "group": np.arange(2)}
    items = {"positions": acted.pos.numpy(), "numbers": acted.numbers.numpy()}
    assert_same_edges(acted, batch_as(graph_batch(Ragged(acted.ptr.numpy(), items, samples), CUTOFF), torch.float64))
    # A model that reads positions sees something else, even where edges are what they were.
    assert (acted.pos - batch.pos).abs().amax(dim=1).min() > 1e-3


@pytest.mark.parametrize("name", ["torus", "translation", "permutation"])
def test_groups_that_turn_nothing_keep_all_edge_vectors(name: str) -> None:
    batch = systems("skewed")
    acted, _ = act(name, batch, np.random.default_rng(5))
    torch.testing.assert_close(edges(acted)[:, 2:].sum(0), edges(batch)[:, 2:].sum(0))
    assert np.allclose(
        np.sort(edges(acted)[:, 2:].norm(dim=1).numpy()), np.sort(edges(batch)[:, 2:].norm(dim=1).numpy())
    )
    assert torch.equal(acted.edge_index[1], acted.edge_index[1].sort().values)
    for system, (a, b) in enumerate(zip(acted.edge_ptr[:-1], acted.edge_ptr[1:], strict=True)):
        assert (acted.batch[acted.edge_index[:, a:b]] == system).all()


def test_torus_of_a_slab_moves_along_the_surface_alone() -> None:
    batch = systems("skewed")
    batch.pbc[:, 2] = False
    acted, _ = act("torus", batch, np.random.default_rng(6))
    normal = torch.linalg.cross(batch.cell[:, 0], batch.cell[:, 1])[batch.batch]
    torch.testing.assert_close((acted.pos * normal).sum(1), (batch.pos * normal).sum(1))
    torch.testing.assert_close(edges(acted), edges(batch))


@pytest.mark.parametrize("name", ["rotation", "cubic", "inversion", "torus"])
def test_real_forces_and_stress_are_equivariant(name: str) -> None:
    """An independent potential, evaluated from scratch on the acted crystal, agrees with the acted labels."""
    rng = np.random.default_rng(7)
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * ((1, 1, 1) if name == "cubic" else (2, 1, 1))
    atoms.positions += rng.normal(scale=0.1, size=(len(atoms), 3))
    atoms.calc = EMT()
    items = {"positions": atoms.positions, "numbers": atoms.numbers, "forces": atoms.get_forces()}
    samples = {"cell": np.asarray(atoms.cell)[None], "pbc": np.ones((1, 3), bool), "group": np.zeros(1, int)}
    samples["stress"] = atoms.get_stress(voigt=False)[None]
    batch = graph_batch(Ragged(np.array([0, len(atoms)]), items, samples), CUTOFF)
    acted, undo = act(name, batch, rng)
    moved = atoms.copy()
    moved.set_cell(acted.cell[0].double().numpy())
    moved.positions, moved.calc = acted.pos.double().numpy(), EMT()
    found = {"forces": moved.get_forces(), "stress": moved.get_stress(voigt=False)[None]}
    for label, values in found.items():
        np.testing.assert_allclose(values, acted[label].numpy(), atol=2e-5)
    back = undo({label: torch.from_numpy(values) for label, values in found.items()})
    np.testing.assert_allclose(back["forces"].numpy(), items["forces"], atol=2e-5)
    np.testing.assert_allclose(back["stress"].numpy(), samples["stress"], atol=2e-6)


def test_given_element_moves_points_as_written() -> None:
    """A quarter turn about z and a step, by hand."""
    batch = systems("isolated")
    turn = torch.from_numpy(Rotation.from_rotvec([0, 0, np.pi / 2]).as_matrix()).expand(2, 3, 3)
    acted, _ = apply(Element(turn, torch.tensor([[1.0, 0, 0], [0, 0, 5.0]]).double()), batch)
    x, y, z = batch.pos.T
    step = torch.tensor([[1.0, 0, 0]] * 7 + [[0, 0, 5.0]] * 5).double()
    torch.testing.assert_close(acted.pos, torch.stack([-y, x, z], dim=1) + step)
    torch.testing.assert_close(acted.forces, batch.forces[:, [1, 0, 2]] * torch.tensor([-1.0, 1, 1]).double())
