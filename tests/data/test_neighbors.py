from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.neighborlist import neighbor_list
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.data.neighbors import ALL_PAIRS_UP_TO, neighbors

Edges = set[tuple[int, int, int, int, int]]
CRYSTAL = bulk("Cu", cubic=True) * (4, 4, 4)
CRYSTAL.rattle(0.1, seed=0)
HELIUM_WIRE = Atoms("He2", [[0, 0, 0], [0.3, 1.1, -0.4]], cell=[0, 0, 1.7], pbc=[False, False, True])
GRAPHENE = Atoms("C2", [[0, 0, 0], [0, 1.42, 0]], cell=[[2.46, 0, 0], [1.23, 2.13, 0], [0, 0, 0]], pbc=[1, 1, 0])


def search(systems: list[Atoms], cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, systems)])
    positions = np.concatenate([atoms.positions for atoms in systems])
    cells, pbc = np.array([np.asarray(a.cell) for a in systems]), np.array([a.pbc for a in systems])
    return offsets, *neighbors(positions, offsets, cutoff, cells, pbc)


def edges_of(systems: list[Atoms], cutoff: float) -> list[Edges]:
    """(receiver, sender, image) of every system's edges; fails on an edge that is there twice or crosses systems."""
    offsets, edge_index, shift = search(systems, cutoff)
    found = []
    for start, stop, atoms in zip(offsets[:-1], offsets[1:], systems, strict=True):
        mine = (edge_index[1] >= start) & (edge_index[1] < stop)
        sender, receiver = edge_index[:, mine] - start
        images = np.zeros((mine.sum(), 3), dtype=int)
        if atoms.pbc.any():
            vectors = np.asarray(atoms.cell)[atoms.pbc]
            exact = shift[mine] @ np.linalg.pinv(vectors)
            images[:, atoms.pbc] = np.rint(exact)
            np.testing.assert_allclose(images[:, atoms.pbc], exact, atol=1e-6)
            np.testing.assert_allclose(images @ np.asarray(atoms.cell), shift[mine], atol=1e-9)
        edges = list(zip(receiver.tolist(), sender.tolist(), *images.T.tolist(), strict=True))
        assert len(set(edges)) == len(edges)
        found.append(set(edges))
    return found


def edges_of_ase(atoms: Atoms, cutoff: float) -> Edges:
    receiver, sender, images = neighbor_list("ijS", atoms, cutoff)
    return set(zip(receiver.tolist(), sender.tolist(), *images.T.tolist(), strict=True))


@st.composite
def systems(draw: st.DrawFn) -> Atoms:
    """Up to eight atoms, outside the cell too, in cells from a fraction of the cutoff to several times it, any pbc."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    atoms, pbc = draw(st.integers(1, 8)), draw(st.tuples(*[st.booleans()] * 3))
    lengths = [draw(st.floats(1.2, 12.0)) for _ in range(3)]
    cell = np.diag(lengths) @ (np.eye(3) + rng.uniform(-0.45, 0.45, (3, 3)))
    cell = cell @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    # Slim cells hold thousands of images, which ASE takes seconds to list.
    widths = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    assume(widths.min() > 0.7)
    outside = draw(st.sampled_from([1.0, 1.0, 3.0]))
    positions = (rng.uniform(0, 1, (atoms, 3)) * outside - (outside - 1) / 2) @ cell
    return Atoms(np.ones(atoms), positions, cell=cell, pbc=pbc)


@settings(max_examples=60, deadline=None)
@given(batch=st.lists(systems(), min_size=1, max_size=4), cutoff=st.floats(1.0, 5.0))
def test_edges_equal_those_of_ase_and_are_in_one_order_however_searched(batch: list[Atoms], cutoff: float) -> None:
    expected, found = [edges_of_ase(atoms, cutoff) for atoms in batch], []
    for candidates, at_once in ((2**15, 2**20), (2**62, 1), (0, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("scisci.data.neighbors.CANDIDATES", candidates)
            patch.setattr("scisci.data.neighbors.CANDIDATES_AT_ONCE", at_once)
            assert edges_of(batch, cutoff) == expected
            found.append(search(batch, cutoff))
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("atoms", "cutoff"),
    [
        (bulk("Cu"), 6.0),
        (CRYSTAL, 5.0),
        (Atoms("H", cell=np.eye(3), pbc=True), 4.5),
        (Atoms("H", [[7.3, -8.1, 40.2]], cell=[2.0, 3.0, 40.0], pbc=True), 5.0),
        (fcc111("Cu", (2, 2, 3), vacuum=8), 5.0),
        (fcc111("Cu", (2, 2, 3)), 5.0),
        (GRAPHENE, 5.0),
        (HELIUM_WIRE, 5.0),
        (Atoms("H", cell=[3, 3, 3], pbc=True), 1.0),
        (Atoms("H"), 1.0),
    ],
    ids=[
        "primitive",
        "crystal",
        "unit",
        "far outside",
        "slab in vacuum",
        "slab without c",
        "sheet",
        "wire",
        "no edge",
        "atom",
    ],
)
@pytest.mark.parametrize("candidates", [0, 2**15])
def test_special_cells_have_the_edges_of_ase(
    atoms: Atoms, cutoff: float, candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scisci.data.neighbors.CANDIDATES", candidates)
    assert edges_of([atoms], cutoff) == [edges_of_ase(atoms, cutoff)]


def test_copper_has_the_shells_of_the_fcc_lattice() -> None:
    # 12, 6, 24, 12 and 24 neighbours at a/sqrt(2) times sqrt(1), ..., sqrt(5).
    nearest = 3.61 / math.sqrt(2)
    for shells, count in enumerate(np.cumsum([12, 6, 24, 12, 24]), start=1):
        _, edge_index, _ = search([bulk("Cu", a=3.61)], nearest * math.sqrt(shells + 0.5))
        assert edge_index.shape[1] == count


@pytest.mark.parametrize("atoms", [ALL_PAIRS_UP_TO, ALL_PAIRS_UP_TO + 1])
def test_both_ways_of_searching_isolated_systems_agree_with_ase(atoms: int) -> None:
    rng = np.random.default_rng(0)
    molecules = [Atoms(np.ones(n), rng.uniform(0, 9, (n, 3))) for n in (3, atoms, 1)]
    assert edges_of(molecules, 3.5) == [edges_of_ase(a, 3.5) for a in molecules]


@settings(max_examples=30, deadline=None)
@given(batch=st.lists(systems(), min_size=2, max_size=5), large=st.booleans())
def test_order_of_edges_is_fixed_and_does_not_depend_on_the_batch(batch: list[Atoms], large: bool) -> None:
    if large:
        count = ALL_PAIRS_UP_TO + 6
        batch.insert(1, Atoms(np.ones(count), np.random.default_rng(0).uniform(0, 9, (count, 3))))
    offsets, edge_index, shift = search(batch, 3.0)
    assert (np.diff(edge_index[1] * offsets[-1] + edge_index[0]) >= 0).all()
    alone = [search([atoms], 3.0) for atoms in batch]
    together = [edges + start for (_, edges, _), start in zip(alone, offsets[:-1], strict=True)]
    np.testing.assert_array_equal(edge_index, np.concatenate(together, axis=1))
    np.testing.assert_array_equal(shift, np.concatenate([found for _, _, found in alone]))


@settings(max_examples=30, deadline=None)
@given(atoms=systems(), seed=st.integers(0, 99))
def test_moving_atoms_by_lattice_vectors_keeps_every_edge_vector(atoms: Atoms, seed: int) -> None:
    moved = atoms.copy()
    whole = np.random.default_rng(seed).integers(-3, 4, (len(atoms), 3)) * atoms.pbc
    moved.positions += whole @ np.asarray(atoms.cell)
    found = []
    for system in (atoms, moved):
        _, (sender, receiver), shift = search([system], 4.0)
        vectors = system.positions[sender] + shift - system.positions[receiver]
        found.append(sorted(zip(receiver.tolist(), sender.tolist(), *vectors.T.round(6).tolist(), strict=True)))
        assert (np.linalg.norm(vectors, axis=1) < 4.0).all()
    assert len(found[0]) == len(found[1])
    np.testing.assert_allclose(np.array(found[0]), np.array(found[1]), atol=1e-5)


def test_infinite_cutoff_joins_all_pairs_of_isolated_systems_only() -> None:
    rng = np.random.default_rng(0)
    molecules = [Atoms(np.ones(n), rng.uniform(0, 900, (n, 3))) for n in (2, ALL_PAIRS_UP_TO + 3, 1)]
    found = edges_of(molecules, math.inf)
    assert [len(edges) for edges in found] == [n * (n - 1) for n in map(len, molecules)]
    with pytest.raises(UserError, match="finite cutoff"):
        search([*molecules, bulk("Cu")], math.inf)


def test_periodic_system_without_a_cell_is_one_sentence() -> None:
    with pytest.raises(UserError, match="no volume"):
        search([Atoms("H2", [[0, 0, 0], [0, 0, 1]], pbc=True)], 3.0)
