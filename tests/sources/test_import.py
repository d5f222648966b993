"""`scisci data import` over the formats that ASE writes: what comes out of the store is what went into the file."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write
from ase.io.trajectory import Trajectory
from hypothesis import given, settings
from hypothesis import strategies as st

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.registry import SOURCES, source


def write_extxyz(path: Path, frames: list[Atoms]) -> None:
    write(path, frames, format="extxyz")


def write_db(path: Path, frames: list[Atoms]) -> None:
    with connect(path, append=False) as database:
        for atoms in frames:
            database.write(atoms, data=atoms.info)


def write_trajectory(path: Path, frames: list[Atoms]) -> None:
    with Trajectory(str(path), "w") as trajectory:
        for atoms in frames:
            trajectory.write(atoms)


WRITERS: dict[str, tuple[str, str, Callable[[Path, list[Atoms]], None]]] = {
    "extxyz": ("extxyz", "x.xyz", write_extxyz),
    "compressed extxyz": ("extxyz", "x.xyz.gz", write_extxyz),
    "SQLite": ("ase-db", "x.db", write_db),
    "JSON": ("ase-db", "x.json", write_db),
    "trajectory": ("ase-traj", "x.traj", write_trajectory),
}
formats = pytest.mark.parametrize("kind", WRITERS)


def written(folder: Path, kind: str, frames: list[Atoms]) -> tuple[str, Path]:
    """The format's name and the file that ASE wrote."""
    name, file, writer = WRITERS[kind]
    writer(folder / file, frames)
    return name, folder / file


def read(folder: Path, kind: str, frames: list[Atoms], **keys: str) -> list[Frame | BadFrame]:
    name, path = written(folder, kind, frames)
    return list(source(name).reader()(path, keys))


def imported(folder: Path, kind: str, frames: list[Atoms], *options: str) -> Store:
    name, path = written(folder, kind, frames)
    main(["import", str(path), "--format", name, "--out", str(folder / "store.h5"), *options])
    return Store(folder / "store.h5")


def labelled(rng: np.random.Generator, atoms: int, *, stress: bool = False, charge: bool = False) -> Atoms:
    """Random atoms on a jittered grid, with random labels; if charged, in the lowest multiplicity there is."""
    numbers = rng.integers(1, 119, atoms)
    grid = np.stack(np.unravel_index(rng.permutation(64)[:atoms], (4, 4, 4)), axis=1)
    made = Atoms(numbers, 2.0 * grid + rng.uniform(-0.5, 0.5, (atoms, 3)))
    if stress:
        made.set_cell(np.diag(rng.uniform(8, 12, 3)) + rng.uniform(-1, 1, (3, 3)))
        made.set_pbc(rng.integers(0, 2, 3).astype(bool))
    labels = {"energy": float(rng.normal(scale=1e4)), "forces": rng.normal(size=(atoms, 3))}
    if stress:
        labels["stress"] = rng.normal(size=6)
    if charge:
        made.info["charge"] = int(rng.integers(-1, 2))
        made.info["spin"] = int(numbers.sum() - made.info["charge"]) % 2 + 1
    made.calc = SinglePointCalculator(made, **labels)
    return made


@formats
@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 6), stress=st.booleans(), charge=st.booleans())
def test_what_ase_writes_comes_back_from_the_store(
    tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int, count: int, stress: bool, charge: bool
) -> None:
    rng = np.random.default_rng(seed)
    made = [labelled(rng, int(rng.integers(1, 8)), stress=stress, charge=charge) for _ in range(count)]
    store = imported(tmp_path_factory.mktemp("x"), kind, made, "--split", "train=1")
    found = store.take(np.arange(count))
    assert ("stress" in store.fields, "charge" in store.fields, "spin" in store.fields) == (stress, charge, charge)
    # Extended XYZ has 8 decimals, the store single precision.
    for k, atoms in enumerate(made):
        rows = slice(found.offsets[k], found.offsets[k + 1])
        np.testing.assert_array_equal(found.items["numbers"][rows], atoms.numbers)
        np.testing.assert_allclose(found.items["positions"][rows], atoms.positions, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found.items["forces"][rows], atoms.calc.results["forces"], rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(found.samples["cell"][k], atoms.cell)
        np.testing.assert_array_equal(found.samples["pbc"][k], atoms.pbc)
        assert found.samples["energy"][k] == atoms.calc.results["energy"]
        assert store.groups[found.samples["group"][k]] == atoms.get_chemical_formula()
        if stress:
            np.testing.assert_array_equal(found.samples["stress"][k], atoms.get_stress(voigt=False))
        if charge:
            assert found.samples["charge"][k] == atoms.info["charge"]
            assert found.samples["spin"][k] == atoms.info["spin"] - 1


def water(**results: object) -> Atoms:
    atoms = Atoms("OH2", [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
    atoms.calc = SinglePointCalculator(atoms, **({"energy": -1.0, "forces": np.ones((3, 3))} | results))
    return atoms


def twins() -> Atoms:
    atoms = water()
    atoms.positions[2] = atoms.positions[1]
    atoms.calc.atoms.positions[:] = atoms.positions
    return atoms


def ghost() -> Atoms:
    atoms = water()
    atoms.numbers[1] = 0
    atoms.calc.atoms.numbers[1] = 0
    return atoms


BAD = {
    "forces is not finite": lambda: water(forces=np.full((3, 3), np.nan)),
    "in the same place": twins,
    "atomic number 0 is not one of": ghost,
    "no atoms": Atoms,
}


@formats
@pytest.mark.parametrize("reason", BAD)
def test_bad_frame_is_an_error_or_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, reason: str
) -> None:
    if "extxyz" in kind and reason == "no atoms":
        pytest.skip("ASE cannot write it; see test_extxyz")
    frames = [BAD[reason](), *[water(energy=float(k)) for k in range(10)], BAD[reason]()]
    name, path = written(tmp_path, kind, frames)
    out = tmp_path / "store.h5"
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=rf"of {path} cannot be used: .*{reason}.*--skip-bad"):
        main(["import", str(path), "--format", name, "--out", str(out)])
    assert sorted(tmp_path.iterdir()) == before
    main(["import", str(path), "--format", name, "--out", str(out), "--skip-bad"])
    assert Store(out).sample_column("energy").tolist() == list(range(10))
    lines = (tmp_path / "store.h5.skipped.txt").read_text().splitlines()
    assert len(lines) == 2
    assert all(reason in line for line in lines)
    numbers = ("row with id 1 ", "row with id 12 ") if name == "ase-db" else ("frame 0 ", "frame 11 ")
    assert tuple(line[: len(number)] for line, number in zip(lines, numbers, strict=True)) == numbers
    printed = capsys.readouterr().out
    assert "skipped 2 of 12 frames" in printed
    assert all(line in printed for line in lines)
