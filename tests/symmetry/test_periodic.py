"""Periodic systems under group actions and beside isolated ones in a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from scipy.spatial import cKDTree

from scisci.data.batch import graph_batch
from scisci.data.ragged import Ragged
from scisci.symmetry.actions import act

CUTOFF = 3.5
TRICLINIC = np.array([[3.1, 0.2, -0.4], [1.3, 3.4, 0.3], [-0.9, 0.8, 4.2]])


def systems() -> list[Atoms]:
    """A triclinic crystal, a molecule, a slab periodic along two directions, and a crystal of one atom."""
    rng = np.random.default_rng(0)
    slab = np.diag([3.3, 4.0, 0.0]) + np.eye(3, k=-1) * [0.7, 0.0, 0.0]
    made = [(4, TRICLINIC, True), (5, None, False), (3, slab, (True, True, False)), (1, TRICLINIC * 0.8, True)]
    return [
        Atoms(numbers=rng.integers(1, 9, n), positions=rng.uniform(0, 3, (n, 3)), cell=cell, pbc=pbc)
        for n, cell, pbc in made
    ]


def ragged(atoms: list[Atoms], positions: np.ndarray | None = None, cells: np.ndarray | None = None) -> Ragged:
    return Ragged(
        np.concatenate([[0], np.cumsum([len(a) for a in atoms])]),
        {
            "numbers": np.concatenate([a.numbers for a in atoms]),
            "positions": np.concatenate([a.positions for a in atoms]) if positions is None else positions,
        },
        {
            "cell": np.array([np.asarray(a.cell) for a in atoms]) if cells is None else cells,
            "pbc": np.array([a.pbc for a in atoms]),
        },
    )


def edges(graph: Any) -> np.ndarray:
    """[E, 5] sender, receiver and edge vector."""
    sender, receiver = graph.edge_index
    vectors = graph.pos[sender] + graph.edge_shift - graph.pos[receiver]
    return np.column_stack([sender, receiver, vectors.numpy()])


def assert_same_set(rows: np.ndarray, others: np.ndarray) -> None:
    assert len(rows) == len(others) > 0
    distance, partner = cKDTree(others).query(rows)
    assert distance.max() < 1e-4
    assert len(set(partner.tolist())) == len(rows)


def test_periodic_and_isolated_systems_share_a_batch() -> None:
    atoms = systems()
    batch = graph_batch(ragged(atoms), CUTOFF)
    assert batch.pbc.sum(dim=1).tolist() == [3, 0, 2, 3]
    for data, single in zip(batch.to_data_list(), atoms, strict=True):
        i, j, vectors = neighbor_list("ijD", single, CUTOFF)
        # ASE's vectors run from i to j, ours from the receiver to the sender.
        assert_same_set(edges(data), np.column_stack([j, i, vectors]))
        alone = graph_batch(ragged([single]), CUTOFF)
        assert torch.equal(data.edge_index, alone.edge_index)
        assert torch.equal(data.edge_shift, alone.edge_shift)


@pytest.mark.parametrize("group", ["rotation", "reflection"])
def test_edges_rebuilt_from_the_turned_cell_are_the_turned_edges(group: str) -> None:
    atoms = systems()
    batch = graph_batch(ragged(atoms), CUTOFF)
    acted, _ = act(group, batch, np.random.default_rng(1))
    rebuilt = graph_batch(ragged(atoms, acted.pos.double().numpy(), acted.cell.double().numpy()), CUTOFF)
    assert_same_set(edges(acted), edges(rebuilt))
    assert not np.allclose(acted.edge_shift, batch.edge_shift, atol=0.1)
