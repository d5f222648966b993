from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.frames import BadFrame
from scisci.sources.mptrj import read_mptrj

# eV/Å³ in kbar: the elementary charge of CODATA 2018 over 1e-30 m³ and 1e8 Pa.
KBAR = 1602.176634


def strained(factor: float) -> Atoms:
    """Rattled copper in a cell without a right angle."""
    atoms = bulk("Cu").repeat((2, 1, 1))
    atoms.set_cell(np.asarray(atoms.cell) * factor + 0.05 * np.eye(3, k=1), scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    return atoms


def frame(atoms: Atoms) -> dict[str, Any]:
    """As MPtrj has it: a pymatgen structure, and labels in eV, eV/Å and kbar with VASP's sign."""
    energy, total = atoms.get_potential_energy(), len(atoms)
    pairs = zip(atoms.symbols, atoms.positions.tolist(), atoms.get_scaled_positions(wrap=False).tolist(), strict=True)
    sites = [
        {"species": [{"element": element, "occu": 1}], "abc": abc, "xyz": xyz, "label": element, "properties": {}}
        for element, xyz, abc in pairs
    ]
    return {
        "structure": {
            "@module": "pymatgen.core.structure",
            "@class": "Structure",
            "charge": 0,
            "lattice": {"matrix": np.asarray(atoms.cell).tolist(), "pbc": [True] * 3, "volume": atoms.get_volume()},
            "sites": sites,
        },
        "uncorrected_total_energy": energy,
        "corrected_total_energy": energy - 0.5 * total,
        "energy_per_atom": energy / total - 0.5,
        "ef_per_atom": -0.1,
        "e_per_atom_relaxed": -4.0,
        "ef_per_atom_relaxed": -0.2,
        "force": atoms.get_forces().tolist(),
        "stress": (-atoms.get_stress(voigt=False) * KBAR).tolist(),
        "magmom": None,
        "bandgap": 0.0,
        "mp_id": "mp-30",
    }


@pytest.fixture
def atoms() -> list[Atoms]:
    return [strained(factor) for factor in (1.04, 0.96, 1.0)]


@pytest.fixture
def content(atoms: list[Atoms]) -> dict[str, dict[str, Any]]:
    first, second, third = map(frame, atoms)
    return {"mp-30": {"mp-30-0-0": first, "mp-30-0-1": second}, "mp-31": {"mp-1010-1-3": third}}


@pytest.fixture
def path(tmp_path: Path, content: dict[str, Any]) -> Path:
    (tmp_path / "MPtrj.json").write_text(json.dumps(content))
    return tmp_path / "MPtrj.json"


def rewritten(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_structures_and_labels(path: Path, atoms: list[Atoms]) -> None:
    frames = list(read_mptrj(path))
    assert [frame.group for frame in frames] == ["mp-30", "mp-30", "mp-31"]
    assert [frame.metadata for frame in frames] == [{"frame": n} for n in ("mp-30-0-0", "mp-30-0-1", "mp-1010-1-3")]
    for frame, copper in zip(frames, atoms, strict=True):
        sample = frame.sample
        np.testing.assert_array_equal(sample.numbers, copper.numbers)
        np.testing.assert_allclose(sample.positions, copper.positions, atol=1e-12)
        np.testing.assert_allclose(sample.cell, copper.cell)
        assert sample.pbc.all()
        assert sample.energy == copper.get_potential_energy()
        np.testing.assert_array_equal(sample.forces, copper.get_forces())
        np.testing.assert_allclose(sample.stress, copper.get_stress(voigt=False), rtol=1e-6, atol=1e-12)
    assert np.trace(frames[0].sample.stress) > 0 > np.trace(frames[1].sample.stress)


def test_a_gzipped_file_is_read_too(path: Path) -> None:
    zipped = path.with_suffix(".json.gz")
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert [frame.sample.energy for frame in read_mptrj(zipped)] == [frame.sample.energy for frame in read_mptrj(path)]


def test_energies_per_atom_become_those_of_the_cell(path: Path) -> None:
    corrected, per_atom = (
        [frame.sample.energy for frame in read_mptrj(path, {"energy": name})]
        for name in ("corrected_total_energy", "energy_per_atom")
    )
    assert per_atom == pytest.approx(corrected)


def test_labels_can_be_left_out(path: Path) -> None:
    first = next(iter(read_mptrj(path, {"stress": "none", "forces": "none"})))
    assert first.sample.stress is None
    assert first.sample.forces is None


def test_import_makes_a_store(path: Path) -> None:
    out = path.with_name("x.h5")
    main(["import", str(path), "--format", "mptrj", "--out", str(out), "--split", "train=0.7", "test=0.3"])
    assert Store(out).groups == ["mp-30", "mp-31"]
    with h5py.File(out) as file:
        assert list(file["metadata/frame"].asstr()) == ["mp-30-0-0", "mp-30-0-1", "mp-1010-1-3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda frame: frame.pop("uncorrected_total_energy"),
            r"no energy under uncorrected_total_energy.*; it has band",
        ),
        (lambda frame: frame.pop("stress"), r"no stress under stress.*; it has bandgap, corrected_total_energy"),
        (lambda frame: frame.update(force=frame["force"][:1]), r"float64 of shape \(1, 3\) under force"),
        (lambda frame: frame.update(stress=[1.0, 2.0]), r"not as MPtrj has it \(.*shape \(3,3\)"),
        (lambda frame: frame["structure"].pop("lattice"), r"not as MPtrj has it \(KeyError\('lattice'\)\)"),
        (lambda frame: frame.update(structure=None), "not as MPtrj has it"),
        (lambda frame: frame.update(stress="?"), "not as MPtrj has it"),
        (lambda frame: frame["structure"]["sites"][1].update(abc=[0.5]), "not as MPtrj has it"),
    ],
)
def test_absent_and_misshapen_labels_are_named(path: Path, content: Any, change: Any, message: str) -> None:
    change(content["mp-30"]["mp-30-0-1"])
    with pytest.raises(UserError, match=rf"frame mp-30-0-1 of mp-30 in .*MPtrj\.json.*{message}"):
        list(read_mptrj(rewritten(path, content)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda frame: frame.update(stress=None), "stress was not computed (it is null)"),
        (lambda frame: frame["structure"].update(sites=[]), "it has no atoms or points"),
        (
            lambda frame: frame["structure"]["sites"][0]["species"][0].update(element="X9"),
            "its element 'X9' is unknown",
        ),
        (lambda frame: frame["structure"]["sites"][0]["species"][0].update(occu=0.5), "site 0 is disordered"),
        (
            lambda frame: frame["structure"]["sites"][1].update(abc=frame["structure"]["sites"][0]["abc"]),
            "atoms 0 and 1 are in the same place (closer than 0.001 Å)",
        ),
    ],
)
def test_a_bad_frame_is_reported_by_its_name(path: Path, content: Any, change: Any, reason: str) -> None:
    change(content["mp-30"]["mp-30-0-1"])
    _, bad, _ = read_mptrj(rewritten(path, content))
    assert isinstance(bad, BadFrame)
    assert bad.where == f"frame mp-30-0-1 of mp-30 in {path}"
    assert bad.reason == reason


def test_damage_is_one_sentence(path: Path) -> None:
    whole = path.read_text()
    for damaged in ("", "[", whole[:-1], whole[: len(whole) // 2], whole.replace("stress", '"stress', 1), "\x00"):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"MPtrj\.json is not whole JSON"):
            list(read_mptrj(path))
    path.with_suffix(".json.gz").write_bytes(gzip.compress(whole.encode())[:-20])
    with pytest.raises(UserError, match=r"MPtrj\.json\.gz is not whole JSON"):
        list(read_mptrj(path.with_suffix(".json.gz")))


@pytest.mark.parametrize("content", [{}, [], {"mp-30": {}}, 3, {"mp-30": [1]}, {"mp-30": {"a": 3}}])
def test_other_json_is_one_sentence(path: Path, content: Any) -> None:
    with pytest.raises(UserError, match=r"MPtrj\.json"):
        list(read_mptrj(rewritten(path, content)))


def test_memory_does_not_grow_with_the_file(tmp_path: Path, atoms: list[Atoms]) -> None:
    text, peaks = json.dumps(frame(atoms[0])), []
    for materials in (50, 500):
        path = tmp_path / f"{materials}.json"
        path.write_text("{" + ",".join(f'"mp-{k}": {{"mp-{k}-0-0": {text}}}' for k in range(materials)) + "}")
        tracemalloc.start()
        assert sum(1 for _ in read_mptrj(path)) == materials
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000
