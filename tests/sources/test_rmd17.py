from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.conformers import BLOCK
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.npz import npz_columns
from scisci.sources.rmd17 import read_rmd17

# CODATA 2018: 4184 J over Avogadro's number and the elementary charge, both exact.
KCAL_MOL = 4184 / 6.02214076e23 / 1.602176634e-19


def revised(data: Any) -> dict[str, np.ndarray]:
    """The arrays of rMD17 (old_* are the labels of MD17)."""
    return {
        "nuclear_charges": data.numbers.astype(np.uint8),
        "coords": data.positions,
        "energies": data.energies / KCAL_MOL,
        "forces": data.forces / KCAL_MOL,
        "old_indices": np.arange(len(data.energies)),
        "old_energies": data.energies / KCAL_MOL + 3,
        "old_forces": data.forces / KCAL_MOL,
    }


def original(data: Any) -> dict[str, np.ndarray]:
    """The arrays of MD17, as sGDML's files have them: energies [n, 1] and units."""
    return {
        "z": data.numbers.astype(np.uint8),
        "R": data.positions,
        "E": data.energies[:, None] / KCAL_MOL,
        "F": data.forces / KCAL_MOL,
        "type": np.array("d"),
        "name": np.array(b"ethanol"),
        "r_unit": np.array("Ang"),
        "e_unit": np.array("kcal/mol"),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("layout", [revised, original])
def test_both_layouts_are_read_in_electronvolts(tmp_path: Path, ethanol: Any, save: Any, layout: Any) -> None:
    save(tmp_path / "ethanol.npz", **layout(ethanol))
    frames = list(read_rmd17(tmp_path / "ethanol.npz"))
    assert len(frames) == len(ethanol.energies)
    for k, frame in enumerate(frames):
        assert isinstance(frame, Frame)
        assert frame.group == "ethanol"
        np.testing.assert_array_equal(frame.sample.numbers, ethanol.numbers)
        np.testing.assert_array_equal(frame.sample.positions, ethanol.positions[k])
        assert frame.sample.energy == pytest.approx(ethanol.energies[k], rel=1e-6)
        np.testing.assert_allclose(frame.sample.forces, ethanol.forces[k], rtol=1e-6, atol=1e-12)


def test_import_makes_a_store(tmp_path: Path, ethanol: Any) -> None:
    np.savez(tmp_path / "rmd17_ethanol.npz", **revised(ethanol))
    main(["import", str(tmp_path / "rmd17_ethanol.npz"), "--format", "rmd17", "--out", str(tmp_path / "x.h5")])
    store = Store(tmp_path / "x.h5")
    assert (len(store), store.groups) == (12, ["rmd17_ethanol"])


def test_other_labels_can_be_chosen(tmp_path: Path, ethanol: Any) -> None:
    np.savez(tmp_path / "x.npz", **revised(ethanol))
    (first, *_) = read_rmd17(tmp_path / "x.npz", {"energy": "old_energies", "forces": "none"})
    assert first.sample.energy == pytest.approx(ethanol.energies[0] + 3 * KCAL_MOL, rel=1e-6)
    assert first.sample.forces is None
    with pytest.raises(UserError, match="unknown label in --key 'enrgy'; did you mean 'energy'"):
        list(read_rmd17(tmp_path / "x.npz", {"enrgy": "old_energies"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energies": None}, "no energy under energies; it has coords, forces, nuclear_charges, old_energies"),
        ({"forces": None}, "no forces under forces; .* without it with --key forces=none"),
        ({"coords": None}, "no positions under coords; it has energies"),
        ({"nuclear_charges": None}, r"neither nuclear_charges \(rMD17\) nor z \(MD17\); it has coords"),
        ({"forces": np.zeros((12, 3))}, r"forces in shape \(12, 3\) instead of \(12, 9, 3\); it has coords"),
        ({"energies": np.zeros(11)}, r"energies in shape \(11,\) instead of \(12,\)"),
        ({"nuclear_charges": np.zeros(8)}, r"coords in shape \(12, 9, 3\) instead of \(12, 8, 3\)"),
        ({"coords": np.array(["a"])}, "coords of .* is not numbers but text or pickled objects"),
    ],
)
def test_absent_and_misshapen_arrays_are_named(tmp_path: Path, ethanol: Any, change: Any, message: str) -> None:
    arrays = revised(ethanol) | change
    np.savez(tmp_path / "x.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=message) as error:
        list(read_rmd17(tmp_path / "x.npz"))
    assert "x.npz" in str(error.value)


def test_other_units_are_refused(tmp_path: Path, ethanol: Any) -> None:
    np.savez(tmp_path / "x.npz", **original(ethanol) | {"e_unit": np.array("eV")})
    with pytest.raises(UserError, match="states e_unit eV, but MD17 is in kcal/mol"):
        list(read_rmd17(tmp_path / "x.npz"))


@pytest.mark.parametrize(
    ("name", "at", "value", "reason"),
    [
        ("energies", 2, np.nan, "energies was not computed"),
        ("forces", (2, 0, 0), np.nan, "forces was not computed"),
        ("energies", 2, np.inf, "energy is not finite"),
        ("coords", (2, 0, 0), np.nan, "positions is not finite"),
        ("coords", (2, slice(0, 2)), 0.0, "atoms 0 and 1 are in the same place"),
    ],
)
def test_a_bad_frame_is_reported_by_its_number(
    tmp_path: Path, ethanol: Any, name: str, at: Any, value: float, reason: str
) -> None:
    arrays = revised(ethanol)
    arrays[name] = arrays[name].copy()
    arrays[name][at] = value
    np.savez(tmp_path / "x.npz", **arrays)
    frames = list(read_rmd17(tmp_path / "x.npz"))
    assert [k for k, frame in enumerate(frames) if isinstance(frame, BadFrame)] == [2]
    assert frames[2].where.startswith("frame 2 of ")
    assert frames[2].reason.startswith(reason)


@pytest.mark.parametrize(("atoms", "reason"), [(0, "it has no atoms"), (1, "atomic number 0 is not")])
def test_atoms_that_are_none(tmp_path: Path, atoms: int, reason: str) -> None:
    shape = (1, atoms, 3)
    np.savez(tmp_path / "x.npz", z=np.zeros(atoms, int), R=np.zeros(shape), E=np.zeros((1, 1)), F=np.zeros(shape))
    (bad,) = read_rmd17(tmp_path / "x.npz")
    assert isinstance(bad, BadFrame)
    assert bad.reason.startswith(reason)


ARRAYS = hnp.arrays(
    dtype=st.sampled_from(["<f8", "<f4", ">f8", "i8", "u1"]),
    shape=st.one_of(
        st.tuples(st.integers(0, 5)),
        st.tuples(st.sampled_from([0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1]), st.integers(1, 3)),
        st.tuples(st.integers(0, 7), st.integers(0, 3), st.just(3)),
    ),
    fill=st.just(1),
)


@settings(max_examples=60)
@given(array=ARRAYS, by_column=st.booleans(), compressed=st.booleans(), seed=st.integers(0, 99))
def test_streams_are_what_numpy_reads(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, by_column: bool, compressed: bool, seed: int
) -> None:
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    array = np.random.default_rng(seed).integers(0, 200, array.shape).astype(array.dtype)
    (np.savez_compressed if compressed else np.savez)(path, a=np.asfortranarray(array) if by_column else array)
    with npz_columns(path) as columns:
        blocks = list(columns["a"].blocks())
        assert (columns["a"].shape, columns["a"].dtype) == (array.shape, array.dtype)
    assert all(len(block) <= BLOCK for block in blocks)
    np.testing.assert_array_equal(np.concatenate([array[:0], *blocks]), np.load(path)["a"])


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for rows in (20_000, 200_000):
        path = tmp_path / f"{rows}.npz"
        np.savez_compressed(path, a=np.zeros((rows, 9, 3)))
        tracemalloc.start()
        with npz_columns(path) as columns:
            assert sum(len(block) for block in columns["a"].blocks()) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


def test_pickled_arrays_are_refused_unread(tmp_path: Path, ethanol: Any, payload: Any) -> None:
    evil = np.array([payload] * 12, dtype=object)
    np.savez(tmp_path / "x.npz", **revised(ethanol) | {"energies": evil})
    with pytest.raises(UserError, match=r"energies of .* is not numbers but text or pickled objects"):
        list(read_rmd17(tmp_path / "x.npz"))
    np.savez(tmp_path / "y.npz", **original(ethanol) | {"e_unit": evil})
    with pytest.raises(UserError, match="does not say in words what its e_unit is"):
        list(read_rmd17(tmp_path / "y.npz"))
    (tmp_path / "z.npz").write_bytes(pickle.dumps(payload))
    with pytest.raises(UserError, match="not a whole npz file"):
        list(read_rmd17(tmp_path / "z.npz"))
    assert not payload.trace.exists()
    np.load(tmp_path / "x.npz", allow_pickle=True)["energies"]
    assert payload.trace.exists(), "the payload is harmless, so this test shows nothing"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_anywhere_is_one_sentence(tmp_path: Path, ethanol: Any, save: Any) -> None:
    buffer = io.BytesIO()
    save(buffer, **original(ethanol))
    whole, path = buffer.getvalue(), tmp_path / "x.npz"
    with zipfile.ZipFile(buffer) as archive:
        entry = archive.getinfo("F.npy")
        middle = entry.header_offset + entry.compress_size // 2
    flipped = bytearray(whole)
    flipped[middle] ^= 0xFF
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], whole[:-10], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"x\.npz is not a whole npz file \("):
            list(read_rmd17(path))
