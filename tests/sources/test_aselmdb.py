from __future__ import annotations

import pickle
import shutil
import zlib
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase_db_backends.aselmdb import LMDBDatabase

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.aselmdb import read_aselmdb
from scisci.sources.frames import BadFrame, Frame


def labelled(atoms: Atoms, seed: int, *properties: str) -> Atoms:
    atoms.rattle(0.05, seed=seed)
    atoms.calc = EMT()
    results = {name: atoms.calc.get_property(name, atoms) for name in ("energy", "forces", *properties)}
    plain = atoms.copy()
    plain.calc = SinglePointCalculator(plain, **results)
    return plain


def omol(charge: int, spin: int) -> dict[str, Any]:
    """What OMol25 keeps in `data` beside an ammonia molecule, or one of its ions."""
    return {
        "source": "elytes/md_0/orca.tar.zst",
        "reference_source": None,
        "data_id": "elytes",
        "charge": charge,
        "spin": spin,
        "num_electrons": 10 - charge,
        "homo_energy": [-8.1],
        "mulliken_charges": np.zeros(4),
        "composition": "H3N1",
        "warnings": [],
    }


STATES = [(0, 1), (1, 2), (-1, 2), (0, 3)]


@pytest.fixture
def ammonia() -> list[Atoms]:
    return [labelled(molecule("NH3"), seed) for seed in range(len(STATES))]


@pytest.fixture
def path(tmp_path: Path, ammonia: list[Atoms]) -> Path:
    """A file as fairchem makes it, with the states in `data`."""
    with LMDBDatabase(tmp_path / "data0000.aselmdb") as database:
        for atoms, state in zip(ammonia, STATES, strict=True):
            database.write(atoms, data=omol(*state))
    return tmp_path / "data0000.aselmdb"


def test_rows_with_charge_and_unpaired_electrons(path: Path, ammonia: list[Atoms]) -> None:
    frames = list(read_aselmdb(path))
    assert [(frame.sample.charge, frame.sample.spin) for frame in frames] == [(0, 0), (1, 1), (-1, 1), (0, 2)]
    for frame, atoms in zip(frames, ammonia, strict=True):
        assert frame.group == atoms.get_chemical_formula()
        assert frame.metadata == {"data_id": "elytes"}
        np.testing.assert_array_equal(frame.sample.numbers, atoms.numbers)
        np.testing.assert_array_equal(frame.sample.positions, atoms.positions)
        assert frame.sample.energy == atoms.get_potential_energy()
        np.testing.assert_array_equal(frame.sample.forces, atoms.get_forces())
        assert not np.any(frame.sample.pbc)


def test_a_folder_is_read_file_by_file(path: Path, ammonia: list[Atoms]) -> None:
    with LMDBDatabase(path.with_name("data0001.aselmdb")) as database:
        database.write(ammonia[0], data=omol(0, 1) | {"data_id": "spice"})
    path.with_name("metadata.npz").write_bytes(b"")
    frames = list(read_aselmdb(path.parent))
    assert [frame.metadata["data_id"] for frame in frames] == ["elytes"] * 4 + ["spice"]
    main(["import", str(path.parent), "--format", "aselmdb", "--out", str(path.parent / "x.h5"), "--split", "train=1"])
    assert len(Store(path.parent / "x.h5")) == 5
    with h5py.File(path.parent / "x.h5") as file:
        assert sorted(file["metadata/data_id"].asstr()) == ["elytes"] * 4 + ["spice"]
    (path.parent / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty has no \.aselmdb files"):
        list(read_aselmdb(path.parent / "empty"))


def test_periodic_rows_have_their_stress(tmp_path: Path) -> None:
    stretched, squeezed = (labelled(bulk("Cu", a=a, cubic=True), seed, "stress") for seed, a in enumerate((3.75, 3.45)))
    with connect(tmp_path / "x.aselmdb", type="aselmdb") as database:
        database.write(stretched)
        database.write(squeezed)
    frames = list(read_aselmdb(tmp_path / "x.aselmdb"))
    assert np.trace(frames[0].sample.stress) > 0 > np.trace(frames[1].sample.stress)
    for frame, atoms in zip(frames, (stretched, squeezed), strict=True):
        np.testing.assert_allclose(frame.sample.stress, atoms.get_stress(voigt=False))
        np.testing.assert_array_equal(frame.sample.cell, np.asarray(atoms.cell))
        assert np.all(frame.sample.pbc)
        assert frame.metadata == {}


def test_deleted_rows_are_left_out(path: Path, ammonia: list[Atoms]) -> None:
    with LMDBDatabase(path) as database:
        database.delete([2])
    assert [frame.where for frame in read_aselmdb(path)] == [f"row with id {k} of {path}" for k in (1, 3, 4)]


def test_rows_come_in_the_order_of_their_ids(tmp_path: Path, ammonia: list[Atoms]) -> None:
    with LMDBDatabase(tmp_path / "x.aselmdb") as database:
        for number in range(1, 25):
            database.write(ammonia[0], data={"number": number, "group": f"g{number}"})
    assert [frame.group for frame in read_aselmdb(tmp_path / "x.aselmdb")] == [f"g{n}" for n in range(1, 25)]


def test_other_labels_can_be_chosen(tmp_path: Path, ammonia: list[Atoms]) -> None:
    with LMDBDatabase(tmp_path / "x.aselmdb") as database:
        database.write(ammonia[0], key_value_pairs={"corrected": -3.5}, data={"F": np.ones((4, 3))})
    first, second = (
        next(iter(read_aselmdb(tmp_path / "x.aselmdb", keys)))
        for keys in ({"energy": "corrected", "forces": "F"}, {"energy": "corrected", "forces": "none"})
    )
    assert first.sample.energy == second.sample.energy == -3.5
    np.testing.assert_array_equal(first.sample.forces, 1)
    assert second.sample.forces is None
    with pytest.raises(UserError, match=r"row with id 1 of .* has no energy under E; it has F, corrected, "):
        list(read_aselmdb(tmp_path / "x.aselmdb", {"energy": "E"}))


def test_half_present_labels_and_bad_rows_are_named(tmp_path: Path, ammonia: list[Atoms]) -> None:
    bare, twice, wrong = ammonia[0].copy(), ammonia[1].copy(), ammonia[2].copy()
    twice.positions[1] = twice.positions[0]
    twice.calc = SinglePointCalculator(twice, energy=1.0, forces=np.zeros((4, 3)))
    wrong.calc = SinglePointCalculator(wrong, energy=1.0, forces=np.full((4, 3), np.nan))
    with LMDBDatabase(tmp_path / "x.aselmdb") as database:
        for atoms in (ammonia[0], twice, wrong):
            database.write(atoms)
    first, *bad = read_aselmdb(tmp_path / "x.aselmdb")
    assert isinstance(first, Frame)
    assert all(isinstance(frame, BadFrame) for frame in bad)
    assert [frame.where[:13] for frame in bad] == ["row with id 2", "row with id 3"]
    assert [frame.reason for frame in bad] == [
        "atoms 0 and 1 are in the same place (closer than 0.001 Å)",
        "forces is not finite",
    ]
    with LMDBDatabase(tmp_path / "x.aselmdb") as database:
        database.write(bare)
    with pytest.raises(UserError, match=r"row with id 4 of .*x\.aselmdb has no energy .*; it has no labels at all"):
        list(read_aselmdb(tmp_path / "x.aselmdb"))


def put(path: Path, entries: dict[bytes, bytes]) -> Path:
    with lmdb.open(str(path), map_size=2**24, subdir=False) as env, env.begin(write=True) as table:
        for key, value in entries.items():
            table.put(key, value)
    return path


@pytest.mark.parametrize("layout", ["file", "folder of files", "folder of LMDB"])
def test_pickled_lmdb_is_refused_unread(tmp_path: Path, payload: Any, layout: str) -> None:
    stored = {b"0": pickle.dumps(payload, -1), b"1": pickle.dumps(payload, -1), b"length": pickle.dumps(2, -1)}
    folder = tmp_path / "is2re"
    folder.mkdir()
    put(folder / ("data.mdb" if layout == "folder of LMDB" else "data.0000.lmdb"), stored)
    path = folder / "data.0000.lmdb" if layout == "file" else folder
    for name in ("oc20", "aselmdb"):
        with pytest.raises(UserError, match=r"holds pickled objects, and unpickling runs .*extended XYZ.*fairchem"):
            main(["import", str(path), "--format", name, "--out", str(tmp_path / "x.h5")])
    assert not payload.trace.exists()
    assert not (tmp_path / "x.h5").exists()
    pickle.loads(stored[b"0"])  # noqa: S301
    assert payload.trace.exists(), "the payload is harmless, so this test shows nothing"


def test_a_pickle_among_json_rows_is_not_loaded(path: Path, payload: Any) -> None:
    for stored in (pickle.dumps(payload, -1), zlib.compress(pickle.dumps(payload, 0))):
        put(path, {b"3": stored})
        with pytest.raises(UserError, match=r"row 2 of .*data0000\.aselmdb cannot be read"):
            list(read_aselmdb(path))
    assert not payload.trace.exists()


def test_damage_is_one_sentence(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    damaged = tmp_path / "damaged.aselmdb"
    for part in (b"", b"not LMDB", whole[:3000], whole[:4096], whole[: len(whole) // 2], whole[:-4096], whole[:-1]):
        damaged.write_bytes(part)
        with pytest.raises(UserError, match=r"damaged\.aselmdb cannot be read"):
            list(read_aselmdb(damaged))
    with pytest.raises(UserError, match=r"cannot be read .*it has no nextid, as every ASE database does"):
        list(read_aselmdb(put(tmp_path / "other.lmdb", {b"a": b"b"})))
    put(path, {b"3": zlib.compress(b'{"numbers": [1]}')})
    with pytest.raises(UserError, match=r"row (2|with id 3) of .*data0000\.aselmdb cannot be read"):
        list(read_aselmdb(path))
    with lmdb.open(str(path), subdir=False) as env, env.begin(write=True) as table:
        table.delete(b"2")
    with pytest.raises(UserError, match=r"row 1 of .*data0000\.aselmdb cannot be read .*it has no 2"):
        list(read_aselmdb(path))


def test_reading_changes_nothing(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    before = {file.name for file in path.parent.iterdir()}
    assert len(list(read_aselmdb(path))) == 4
    assert {file.name for file in path.parent.iterdir()} == before
    assert path.read_bytes() == path.with_suffix(".copy").read_bytes()
