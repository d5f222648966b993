from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from hypothesis import given, settings
from hypothesis import strategies as st

from scisci.contracts.errors import UserError
from scisci.sources import ase_db
from scisci.sources.ase_db import read_ase_db
from scisci.sources.frames import BadFrame, Frame

KINDS = ["x.db", "x.json"]
kinds = pytest.mark.parametrize("name", KINDS)


def water(energy: float, **info: object) -> Atoms:
    atoms = molecule("H2O")
    atoms.info.update(info)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.full((3, 3), 0.5))
    return atoms


def energies(path: Path, **keys: str) -> list[float | None]:
    return [frame.sample.energy for frame in read_ase_db(path, keys) if isinstance(frame, Frame)]


@kinds
def test_rows_come_in_the_order_of_their_ids_over_gaps_and_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(ase_db, "ROWS_AT_ONCE", 3)
    with connect(tmp_path / name) as database:
        for k in range(20):
            database.write(water(float(k)))
    # SQLite refuses to clean up within a transaction.
    database = connect(tmp_path / name)
    database.delete([1, 4, 5, 6, 7, 8, 20])
    database.update(3, atoms=water(99.0))
    expected = [row.energy for row in sorted(database.select(), key=lambda row: row.id)]
    assert len(expected) == 13
    assert energies(tmp_path / name) == expected


@settings(max_examples=40)
@given(at_once=st.integers(1, 3000), indent=st.sampled_from([None, 0, 2]), labels=st.lists(st.floats(-1e6, 1e6)))
def test_json_is_read_the_same_however_it_is_cut_and_laid_out(
    tmp_path_factory: pytest.TempPathFactory, at_once: int, indent: int | None, labels: list[float]
) -> None:
    path = tmp_path_factory.mktemp("x") / "x.json"
    with connect(path) as database:
        for k, energy in enumerate([0.5, *labels]):
            database.write(water(energy), name=f'a "quoted", {{braced}} \\ name {k}', data={"list": [k, [], {}, None]})
    if indent is not None:
        path.write_text(json.dumps(json.loads(path.read_text()), indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ase_db, "TEXT_AT_ONCE", at_once)
        assert energies(path) == [row.energy for row in connect(path).select()] == [0.5, *labels]


def test_json_may_have_nan_and_sqlite_has_none(tmp_path: Path) -> None:
    for name in KINDS:
        with connect(tmp_path / name) as database:
            database.write(water(1.0))
            database.write(water(float("nan")))
    bad = list(read_ase_db(tmp_path / "x.json"))[1]
    assert isinstance(bad, BadFrame)
    assert bad.reason == "energy is not finite"
    with pytest.raises(UserError, match=r"row with id 2 of .* has no energy under energy as the first frame has"):
        list(read_ase_db(tmp_path / "x.db"))


@kinds
def test_labels_can_be_pairs_or_data_and_charge_is_not_that_of_the_atoms(tmp_path: Path, name: str) -> None:
    plain = molecule("H2O")
    plain.set_initial_charges([0.5, -0.25, -0.25])
    with connect(tmp_path / name) as database:
        database.write(plain, REF_energy=-3.0, charge=1, config_type="ion", data={"REF_forces": np.eye(3), "spin": 2})
    (frame,) = read_ase_db(tmp_path / name)
    assert isinstance(frame, Frame)
    assert (frame.sample.energy, frame.sample.charge, frame.sample.spin, frame.group) == (-3.0, 1, 1, "ion")
    np.testing.assert_array_equal(frame.sample.forces, np.eye(3))


@kinds
def test_forces_on_fixed_atoms_are_kept(tmp_path: Path, name: str) -> None:
    atoms = water(2.0)
    atoms.set_constraint(FixAtoms([0, 1, 2]))
    with connect(tmp_path / name) as database:
        database.write(atoms)
    (frame,) = read_ase_db(tmp_path / name)
    assert isinstance(frame, Frame)
    np.testing.assert_array_equal(frame.sample.forces, np.full((3, 3), 0.5))


def test_foreign_sqlite_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"x\.db is not a readable ASE database"):
        read_ase_db(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "neither SQLite nor JSON"),
        ("a: 1\n", "neither SQLite nor JSON"),
        ("{}", "has no rows"),
        ('{"ids": [], "nextid": 1}', "has no rows"),
        ('{"1": {"numbers": [1]}, "ids": [1], "nextid": 2}', r"row with id 1 of .* cannot be read \('positions'\)"),
        ('{"1": 7, "ids": [1], "nextid": 2}', "row 0 of .* cannot be read"),
        ('{"1": {"numbers": [1], "positions": [[0, 0, 0]]}, "ids": [1, 2], "nextid": 3}', "lists 2 ids but has 1 rows"),
        ('{"1": {"numbers": [1], "positions": [[0, 0, 0]]}', "row 0 of .* cannot be read"),
        ('{"1": {"numbers": [1], "positions": [[0, 0, 0]]} "ids": []', "row 1 of .* cannot be read"),
    ],
)
def test_damaged_json_is_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=message):
        list(read_ase_db(tmp_path / "x.json", {"energy": "none", "forces": "none"}))


def test_endless_row_is_given_up_before_it_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ase_db, "TEXT_AT_ONCE", 64)
    monkeypatch.setattr(ase_db, "LONGEST_ROW", 1000)
    with connect(tmp_path / "x.json") as database:
        for k in range(40):
            database.write(water(float(k)))
    text = (tmp_path / "x.json").read_text()
    (tmp_path / "x.json").write_text(text.replace("3.0,", "3.0;", 1))
    with pytest.raises(UserError, match=r"row \d+ of .* cannot be read \(no valid JSON"):
        list(read_ase_db(tmp_path / "x.json"))
