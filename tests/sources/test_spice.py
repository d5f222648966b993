from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.spice import formal_charge, read_spice

# CODATA 2018, in eV and Å.
HARTREE, BOHR = 27.211386245988, 0.529177210903
PUBCHEM = "SPICE PubChem Set 1 Single Points Dataset v1.3"


def write(path: Path, **molecules: Any) -> Path:
    """A file as SPICE's downloader writes it, group by group."""
    with h5py.File(path, "w") as file:
        for name, data in molecules.items():
            group = file.create_group(name)
            group.create_dataset("subset", data=[PUBCHEM], dtype=h5py.string_dtype())
            group.create_dataset("smiles", data=["[H:2][N+:1]([H:3])([H:4])[H:5]"], dtype=h5py.string_dtype())
            group.create_dataset("atomic_numbers", data=data.numbers, dtype=np.int16)
            group.create_dataset("conformations", data=data.positions / BOHR, dtype=np.float32)
            energies = data.energies / HARTREE
            group.create_dataset("formation_energy", data=energies + 100, dtype=np.float64)
            group.create_dataset("dft_total_energy", data=energies, dtype=np.float64)
            group.create_dataset("dft_total_gradient", data=-data.forces * BOHR / HARTREE, dtype=np.float32)
            group.create_dataset("mbis_charges", data=np.zeros((*data.forces.shape[:2], 1)), dtype=np.float32)
            group["conformations"].attrs["units"] = "bohr"
            group["formation_energy"].attrs["units"] = group["dft_total_energy"].attrs["units"] = "hartree"
            group["dft_total_gradient"].attrs["units"] = "hartree/bohr"
    return path


def test_units_signs_groups_and_charge(tmp_path: Path, ethanol: Any, ammonia: Any) -> None:
    frames = list(read_spice(write(tmp_path / "SPICE.hdf5", **{"103914790": ethanol, "[NH3]": ammonia})))
    assert [frame.group for frame in frames] == ["103914790"] * 12 + ["[NH3]"] * 5
    for data, read in ((ethanol, frames[:12]), (ammonia, frames[12:])):
        for k, frame in enumerate(read):
            assert frame.metadata == {"subset": PUBCHEM}
            assert (frame.sample.charge, frame.sample.spin) == (1, None)
            np.testing.assert_array_equal(frame.sample.numbers, data.numbers)
            np.testing.assert_allclose(frame.sample.positions, data.positions[k], rtol=1e-6, atol=1e-6)
            assert frame.sample.energy == pytest.approx(data.energies[k], rel=1e-8)
            np.testing.assert_allclose(frame.sample.forces, data.forces[k], rtol=1e-6, atol=1e-6)


def test_import_keeps_groups_and_subset(tmp_path: Path, ethanol: Any, ammonia: Any) -> None:
    path = write(tmp_path / "SPICE.hdf5", ethanol=ethanol, ammonia=ammonia)
    main(["import", str(path), "--format", "spice", "--out", str(tmp_path / "x.h5")])
    store = Store(tmp_path / "x.h5")
    assert store.groups == ["ammonia", "ethanol"]
    with h5py.File(tmp_path / "x.h5") as file:
        assert set(file["metadata/subset"].asstr()) == {PUBCHEM}
        assert set(file["samples/charge"]) == {1}


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        ("CCO", 0),
        ("[H:1][O:2][H:3]", 0),
        ("[Cl-:1]", -1),
        ("[Ca+2:1]", 2),
        ("[Ca++]", 2),
        ("[O-2]", -2),
        ("[O--:1]", -2),
        ("[13CH3-]", -1),
        ("[O-:3][N+:2](=[O:4])[c:1]1[c:5][c:6][c:7][c:8][c:9]1", 0),
        ("[Na+:1].[Cl-:2]", 0),
        ("[H:5][C@@:1]([C:2](=[O:3])[O-:4])([N+:6]([H:7])([H:8])[H:9])[C:10]-[C:11]([O-:12])=O", -1),
        ("[H+:1]", 1),
        ("c1ccccc1-c2ccccc2", 0),
    ],
)
def test_formal_charge(smiles: str, charge: int) -> None:
    assert formal_charge(smiles) == charge


def test_a_molecule_without_conformations_left(tmp_path: Path, ethanol: Any) -> None:
    path = write(tmp_path / "x.hdf5", a=ethanol, b=ethanol)
    with h5py.File(path, "a") as file:
        for name in ("conformations", "dft_total_energy", "dft_total_gradient"):
            del file["a"][name]
            file["a"][name] = np.array([])
    assert [frame.group for frame in read_spice(path)] == ["b"] * 12


def test_other_labels_can_be_chosen(tmp_path: Path, ethanol: Any) -> None:
    path = write(tmp_path / "x.hdf5", a=ethanol)
    frame = next(iter(read_spice(path, {"energy": "formation_energy", "forces": "none"})))
    assert frame.sample.energy == pytest.approx(ethanol.energies[0] + 100 * HARTREE, rel=1e-7)
    assert frame.sample.forces is None
    with pytest.raises(UserError, match="unknown label in --key 'stress'"):
        list(read_spice(path, {"stress": "x"}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "dft_total_energy",
            None,
            "a in .* has no energy under dft_total_energy; it has atomic_numbers, conformations",
        ),
        ("dft_total_gradient", None, "a in .* has no forces under dft_total_gradient; it has atomic_numbers"),
        ("conformations", None, "a in .* has no positions under conformations; it has atomic_numbers"),
        ("dft_total_gradient", np.zeros((12, 27)), r"a in .* has dft_total_gradient in shape \(12, 27\) instead of"),
        ("dft_total_energy", np.array(["?"] * 12, "S1"), r"dft_total_energy of a in .* is not numbers but text"),
    ],
)
def test_absent_and_misshapen_arrays_are_named(
    tmp_path: Path, ethanol: Any, name: str, value: Any, message: str
) -> None:
    path = write(tmp_path / "x.hdf5", a=ethanol)
    with h5py.File(path, "a") as file:
        del file["a"][name]
        if value is not None:
            file["a"][name] = value
    with pytest.raises(UserError, match=message) as error:
        list(read_spice(path))
    assert "x.hdf5" in str(error.value)


def test_other_units_are_refused(tmp_path: Path, ethanol: Any) -> None:
    path = write(tmp_path / "x.hdf5", a=ethanol)
    with h5py.File(path, "a") as file:
        file["a/conformations"].attrs["units"] = "angstrom"
    with pytest.raises(UserError, match="conformations in angstrom, but SPICE is in bohr"):
        list(read_spice(path))


@pytest.mark.parametrize(
    ("name", "at", "value", "reason"),
    [
        ("dft_total_gradient", (3, 0, 0), np.nan, "dft_total_gradient was not computed"),
        ("conformations", (3, 0, 0), np.nan, "positions is not finite"),
        ("conformations", (3, slice(0, 2)), 0.0, "atoms 0 and 1 are in the same place"),
    ],
)
def test_a_bad_frame_is_reported_by_its_number(
    tmp_path: Path, ethanol: Any, name: str, at: Any, value: float, reason: str
) -> None:
    path = write(tmp_path / "x.hdf5", a=ethanol)
    with h5py.File(path, "a") as file:
        file["a"][name][at] = value
    (bad,) = (frame for frame in read_spice(path) if isinstance(frame, BadFrame))
    assert bad.where.startswith("frame 3 of a in ")
    assert bad.reason.startswith(reason)


@pytest.mark.parametrize("kind", ["opaque", "bytes of any length", "arrays of any length"])
def test_pickles_are_refused_unread(tmp_path: Path, ethanol: Any, payload: Any, kind: str) -> None:
    path, stored = write(tmp_path / "x.hdf5", a=ethanol), pickle.dumps(payload)
    with h5py.File(path, "a") as file:
        group = file["a"]
        del group["dft_total_energy"]
        if kind == "opaque":
            group["dft_total_energy"] = np.array([np.void(stored)] * 12)
        elif kind == "bytes of any length":
            group.create_dataset("dft_total_energy", data=[stored.hex()] * 12, dtype=h5py.string_dtype())
        else:
            node = group.create_dataset("dft_total_energy", (12,), dtype=h5py.vlen_dtype(np.uint8))
            node[:] = [np.frombuffer(stored, np.uint8)] * 12
    with pytest.raises(UserError, match=r"dft_total_energy of a in .* is not numbers but text or pickled objects"):
        list(read_spice(path))
    assert not payload.trace.exists()


def test_damage_is_one_sentence(tmp_path: Path, ethanol: Any, ammonia: Any) -> None:
    whole = write(tmp_path / "x.hdf5", ethanol=ethanol, ammonia=ammonia).read_bytes()
    for damaged in (b"", b"not HDF5", whole[: len(whole) // 2], whole[:-200]):
        (tmp_path / "y.hdf5").write_bytes(damaged)
        with pytest.raises(UserError, match=r"y\.hdf5 is not a whole HDF5 file \("):
            list(read_spice(tmp_path / "y.hdf5"))
    with h5py.File(tmp_path / "z.hdf5", "w") as file:
        file["energies"] = np.zeros(3)
    with pytest.raises(UserError, match=r"z\.hdf5 has the array energies at its top"):
        list(read_spice(tmp_path / "z.hdf5"))


def test_a_checksum_that_fails_is_one_sentence(tmp_path: Path, ethanol: Any) -> None:
    path = write(tmp_path / "x.hdf5", a=ethanol)
    with h5py.File(path, "a") as file:
        del file["a/dft_total_energy"]
        node = file["a"].create_dataset("dft_total_energy", data=ethanol.energies, fletcher32=True, chunks=(12,))
        offset = node.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.hdf5 is not a whole HDF5 file"):
        list(read_spice(path))


def test_frames_are_usable_before_the_end_of_a_file(tmp_path: Path, ethanol: Any) -> None:
    first = next(iter(read_spice(write(tmp_path / "x.hdf5", a=ethanol))))
    assert isinstance(first, Frame)
