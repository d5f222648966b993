from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.extxyz import read_extxyz


def frames(count: int = 12) -> list[Atoms]:
    rng, made = np.random.default_rng(0), []
    for k in range(count):
        atoms = bulk("Cu", cubic=True) if k % 2 else molecule("H2O")
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        labelled = atoms.copy()
        labelled.calc = SinglePointCalculator(labelled, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        made.append(labelled)
    return made


def renamed(atoms: Atoms, energy: str | None, forces: str | None) -> Atoms:
    plain = atoms.copy()
    if energy:
        plain.info[energy] = atoms.get_potential_energy()
    if forces:
        plain.arrays[forces] = atoms.get_forces()
    return plain


@pytest.mark.parametrize(
    ("energy", "forces", "keys"),
    [(None, None, {}), ("REF_energy", "REF_forces", {}), ("E_dft", "F_dft", {"energy": "E_dft", "forces": "F_dft"})],
)
def test_labels_are_read_under_every_name(
    tmp_path: Path, energy: str | None, forces: str | None, keys: dict[str, str]
) -> None:
    made = frames()
    write(tmp_path / "x.xyz", [renamed(a, energy, forces) if energy else a for a in made], format="extxyz")
    read = [sample for sample, _ in read_extxyz(tmp_path / "x.xyz", keys)]
    assert len(read) == len(made)
    for sample, atoms in zip(read, made, strict=True):
        np.testing.assert_allclose(sample.positions, atoms.positions, atol=1e-7)
        np.testing.assert_allclose(sample.forces, atoms.get_forces(), atol=1e-7)
        assert sample.energy == pytest.approx(atoms.get_potential_energy())
        np.testing.assert_array_equal(sample.pbc, atoms.pbc)
        np.testing.assert_allclose(sample.cell, atoms.cell)


def test_missing_key_names_the_keys_found(tmp_path: Path) -> None:
    write(tmp_path / "x.xyz", [renamed(a, "E_dft", "F_dft") for a in frames(2)], format="extxyz")
    with pytest.raises(UserError, match=r"frame 0 of .* has no energy under REF_energy or energy; it has E_dft, F_dft"):
        list(read_extxyz(tmp_path / "x.xyz"))


def test_half_present_key_names_the_frame(tmp_path: Path) -> None:
    first, second = frames(2)
    write(tmp_path / "x.xyz", [renamed(first, "REF_energy", "REF_forces"), renamed(second, "REF_energy", None)])
    with pytest.raises(UserError, match=r"frame 1 of .* has no forces"):
        list(read_extxyz(tmp_path / "x.xyz"))


def test_nan_label_names_the_frame(tmp_path: Path) -> None:
    atoms = renamed(frames(1)[0], "REF_energy", "REF_forces")
    atoms.info["REF_energy"] = float("nan")
    write(tmp_path / "x.xyz", [atoms], format="extxyz")
    with pytest.raises(UserError, match=r"frame 0 .* energy is not finite"):
        list(read_extxyz(tmp_path / "x.xyz"))


@pytest.mark.parametrize("content", ["", "3\nProperties=species:S:1:pos:R:3\nH 0 0 0\n", "not xyz at all\n"])
def test_damaged_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.xyz").write_text(content)
    with pytest.raises(UserError, match=r"x\.xyz"):
        list(read_extxyz(tmp_path / "x.xyz"))


def test_import_writes_a_store_with_splits_and_references(tmp_path: Path) -> None:
    made = frames(20)
    write(tmp_path / "x.xyz", made, format="extxyz")
    main(["import", str(tmp_path / "x.xyz"), "--format", "extxyz", "--out", str(tmp_path / "x.h5")])
    store = Store(tmp_path / "x.h5")
    assert {name: len(s) for name, s in store.splits.items()} == {"train": 16, "val": 2, "test": 2}
    assert store.groups == ["H2O", "Cu4"]
    copper = np.mean([a.get_potential_energy() for a in made[1::2]]) / 4
    assert store.references["energy"][29] == pytest.approx(copper)


def test_failed_import_leaves_nothing(tmp_path: Path) -> None:
    good, bad = frames(2)
    write(tmp_path / "x.xyz", [renamed(good, "REF_energy", "REF_forces"), renamed(bad, "REF_energy", None)])
    with pytest.raises(UserError):
        main(["import", str(tmp_path / "x.xyz"), "--format", "extxyz", "--out", str(tmp_path / "x.h5")])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.xyz"]
