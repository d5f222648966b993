from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from scisci.data.library import open_dataset, read_card
from scisci.data.splits import leaks
from scisci.data.store import Store
from scisci.generate import xtb_crystals as source
from scisci.generate.xtb import calculator

IN_DISTRIBUTION = ("train", "val", "test")


@pytest.fixture(scope="module")
def crystals() -> Store:
    return open_dataset("xtb-crystals")


def structures(store: Store, split: str, stop: int | None = None) -> Iterator[tuple[Atoms, dict[str, np.ndarray]]]:
    """The samples of a split as `Atoms`, each with its labels."""
    ragged = store.take(store.split(split).indices(stop))
    for k, (a, b) in enumerate(zip(ragged.offsets[:-1], ragged.offsets[1:], strict=True)):
        cell = ragged.samples["cell"][k]
        atoms = Atoms(ragged.items["numbers"][a:b], ragged.items["positions"][a:b], cell=cell, pbc=True)
        labels = {name: ragged.samples[name][k] for name in ("energy", "stress")}
        yield atoms, labels | {"forces": ragged.items["forces"][a:b]}


def formulas(store: Store, split: str) -> set[str]:
    return {atoms.get_chemical_formula() for atoms, _ in structures(store, split)}


def bonds(atoms: Atoms) -> Counter[str]:
    """How many bonds of each kind there are: pairs of which one is among the other's four nearest neighbours."""
    first, second, length = neighbor_list("ijd", atoms, 3.2)
    found: set[tuple[int, int]] = set()
    for i in range(len(atoms)):
        around = np.flatnonzero(first == i)
        nearest = second[around[np.argsort(length[around])[:4]]]
        found |= {(min(i, j), max(i, j)) for j in nearest.tolist()}
    return Counter("".join(sorted((atoms[i].symbol, atoms[j].symbol))) for i, j in found)


def test_card_counts_every_frame_that_is_drawn_in_its_split() -> None:
    drawn = {
        name: population.arrangements * len(source.compositions(population)) * source.FRAMES
        for name, population in source.POPULATIONS.items()
    }
    assert {name: split.samples for name, split in read_card("xtb-crystals").splits.items()} == drawn


def test_nothing_leaks_between_splits(crystals: Store) -> None:
    assert leaks(crystals) == []
    groups = crystals.sample_column("group")
    assert {name for name, split in crystals.splits.items() if split.disjoint} == {*crystals.splits} - {"train"}
    owners = [set(groups[split.indices()].tolist()) for split in crystals.splits.values()]
    assert sum(map(len, owners)) == len(set().union(*owners)) == len(crystals.groups)


def test_held_out_compositions_are_new_but_their_elements_are_not(crystals: Store) -> None:
    train, held_out = formulas(crystals, "train"), formulas(crystals, "ood_composition")
    assert not train & held_out
    assert formulas(crystals, "val") == formulas(crystals, "test") == formulas(crystals, "ood_strain") == train
    assert {"C64", "B32N32", "B32P32"} <= train
    assert all({"B", "C", "P"} == set(Atoms(formula).symbols) for formula in held_out)


def test_severity_of_a_composition_is_its_share_of_unseen_bonds(crystals: Store) -> None:
    assert not any(bonds(atoms)["CP"] for atoms, _ in structures(crystals, "train", 40))
    graded = crystals.split("ood_composition").severities(20)
    counted = [bonds(atoms) for atoms, _ in structures(crystals, "ood_composition", 20)]
    assert {kind for count in counted for kind in count} == {"CC", "BC", "BP", "CP"}
    np.testing.assert_allclose([c["CP"] / 128 for c in counted], graded, atol=2 / 128)
    assert graded.min() > 0.05


def test_strains_beyond_train_are_what_they_are_said_to_be(crystals: Store) -> None:
    def strains(split: str) -> np.ndarray:
        found = []
        for atoms, _ in structures(crystals, split):
            phosphorus, nitrogen = (np.mean(atoms.numbers == z) * 2 for z in (15, 7))
            share = {"BP": phosphorus, "BN": nitrogen, "CC": 1 - phosphorus - nitrogen}
            side = 2 * sum(share[kind] * source.LATTICE[kind] for kind in share)
            found.append(np.cbrt(atoms.get_volume()) / side - 1)
        return np.array(found)

    for split in IN_DISTRIBUTION:
        assert abs(strains(split)).max() < 0.0255
    beyond = strains("ood_strain")
    np.testing.assert_allclose(abs(beyond), crystals.split("ood_strain").severities(), atol=5e-4)
    assert 0.039 < abs(beyond).min() < abs(beyond).max() < 0.0805
    assert np.sum(beyond > 0) == np.sum(beyond < 0)


def test_displacements_grow_with_temperature_as_they_should(crystals: Store) -> None:
    """In a harmonic crystal the mean square force is proportional to the temperature."""
    assert (crystals.metadata("temperature")[crystals.split("ood_2000K").indices()] == 2000).all()
    scaled = {}
    for split in ("test", "ood_2000K"):
        temperature = crystals.metadata("temperature")[crystals.split(split).indices()]
        square = [np.mean(labels["forces"] ** 2) for _, labels in structures(crystals, split)]
        scaled[split] = np.mean(square / temperature)
    assert scaled["ood_2000K"] == pytest.approx(scaled["test"], rel=0.5)


def test_forces_cancel_and_stresses_are_symmetric(crystals: Store) -> None:
    for split in crystals.splits:
        for _, labels in structures(crystals, split):
            assert abs(labels["forces"].sum(axis=0, dtype=np.float64)).max() < 1e-4
            np.testing.assert_allclose(labels["stress"], labels["stress"].T, atol=1e-9)


def test_compressed_crystals_push_and_expanded_ones_pull(crystals: Store) -> None:
    strain = crystals.metadata("strain")[crystals.split("ood_strain").indices()]
    tension = np.array([np.trace(labels["stress"]) for _, labels in structures(crystals, "ood_strain")])
    assert (np.sign(tension) == np.sign(strain)).all()


@pytest.mark.parametrize("split", ["train", "ood_composition", "ood_strain"])
def test_labels_are_those_of_the_stored_positions(crystals: Store, split: str) -> None:
    ((atoms, labels),) = structures(crystals, split, 1)
    atoms.calc = calculator(source.METHOD)
    assert atoms.get_potential_energy() == pytest.approx(labels["energy"], abs=2e-5)
    np.testing.assert_allclose(atoms.get_forces(), labels["forces"], atol=1e-4)
    np.testing.assert_allclose(atoms.get_stress(voigt=False), labels["stress"], atol=1e-6)


def test_stress_is_the_slope_of_the_energy_with_strain(crystals: Store) -> None:
    ((atoms, labels),) = structures(crystals, "test", 1)
    direction = np.array([[0.8, 0.3, 0.0], [0.3, -0.2, 0.0], [0.0, 0.0, 0.4]])
    energies = []
    for size in (1e-3, -1e-3):
        strained = atoms.copy()
        strained.set_cell(atoms.cell @ (np.eye(3) + size * direction), scale_atoms=True)
        strained.calc = calculator(source.METHOD)
        energies.append(strained.get_potential_energy())
    slope = (energies[0] - energies[1]) / 2e-3 / atoms.get_volume()
    assert slope == pytest.approx((labels["stress"] * direction).sum(), abs=3e-5)


def test_references_explain_the_energies_best(crystals: Store) -> None:
    counts, energies = [], []
    for atoms, labels in structures(crystals, "train"):
        counts.append([np.sum(atoms.numbers == z) for z in (5, 6, 7, 15)])
        energies.append(labels["energy"])
    best = np.array(counts) @ np.linalg.lstsq(np.array(counts, float), np.array(energies), rcond=None)[0]
    # Boron is as frequent as nitrogen and phosphorus together: only the explained energies are unique.
    stored = np.array(counts) @ crystals.references["energy"][[5, 6, 7, 15]]
    np.testing.assert_allclose(stored, best, atol=1e-6)
    assert np.isfinite(crystals.references["energy"]).sum() == 4


def test_arrangements_put_each_pair_on_both_sublattices() -> None:
    composition = {"CC": 12, "BN": 12, "BP": 8}
    numbers = source.arrange(composition, np.random.default_rng(0))
    assert Counter(numbers[::2].tolist()) == {6: 12, 5: 20}
    assert Counter(numbers[1::2].tolist()) == {6: 12, 7: 12, 15: 8}
    first, second = neighbor_list("ij", Atoms(numbers, source.SITES * 2, cell=[2, 2, 2], pbc=True), 0.45)
    assert len(first) == 256
    assert ((first + second) % 2 == 1).all()


def test_a_frame_that_does_not_converge_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def frame(crystal: Atoms) -> source.Frame:
        return source.Frame(crystal.numbers, crystal.positions, crystal.cell[:], {})

    # Eight atoms of CaO at the Γ point have no gap, and GFN1-xTB finds no self-consistent charges.
    drawn = [frame(bulk("BN", "zincblende", 3.6, cubic=True)), frame(bulk("CaO", "rocksalt", 4.81, cubic=True))]
    monkeypatch.setattr(source, "draw", lambda *_: iter(drawn))
    made = source.group(("train", 0, 0, 0))
    assert (len(made.frames), made.failed) == (1, 1)


def test_a_group_is_remade_from_its_seed(
    crystals: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    population = source.POPULATIONS["train"]
    diamond = source.compositions(population).index({"CC": 32})
    monkeypatch.setattr(source, "POPULATIONS", {"train": population})
    monkeypatch.setattr(source, "jobs", lambda seed: [("train", diamond, 0, seed)])
    source.generate(tmp_path / "x.h5", processes=1)
    assert capfd.readouterr().out == ""
    made = Store(tmp_path / "x.h5")
    rows = np.flatnonzero(crystals.sample_column("group") == crystals.groups.index(made.groups[0]))
    ours, theirs = made.take(np.arange(len(made))), crystals.take(rows)
    assert len(made) == len(rows) == source.FRAMES
    np.testing.assert_allclose(ours.items["positions"], theirs.items["positions"], atol=1e-5)
    np.testing.assert_allclose(ours.samples["energy"], theirs.samples["energy"], atol=1e-3)
    np.testing.assert_allclose(ours.samples["stress"], theirs.samples["stress"], atol=1e-4)
