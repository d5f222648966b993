"""`scisci data import` over the formats that ASE writes: what comes out of the store is what went into the file."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from operator import length_hint
from pathlib import Path
from tempfile import TemporaryDirectory

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
from scisci.data.samples import AtomsSample
from scisci.data.store import Store
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.packing import Division, pack
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


def damaged(folder: Path, kind: str, content: bytes) -> list[Frame | BadFrame]:
    name, file, _ = WRITERS[kind]
    (folder / file).write_bytes(content)
    return list(source(name).reader()(folder / file, {}))


@cache
def intact(kind: str) -> bytes:
    """Six frames as ASE writes them, whose energies are 0 to 5."""
    with TemporaryDirectory() as folder:
        frames = [labelled(np.random.default_rng(k), 2, stress=True, charge=True) for k in range(6)]
        for k, atoms in enumerate(frames):
            atoms.calc.results["energy"] = float(k)
        return written(Path(folder), kind, frames)[1].read_bytes()


@formats
@settings(max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True))
def test_file_cut_short_is_one_sentence(tmp_path_factory: pytest.TempPathFactory, kind: str, share: float) -> None:
    content, frames, error = intact(kind), [], ""
    try:
        frames = damaged(tmp_path_factory.mktemp("x"), kind, content[: int(share * len(content))])
    except UserError as raised:
        error = str(raised)
    # A text file can end after any frame; of others, only what is no frame (indices, the last newline) may be gone.
    assert WRITERS[kind][1] in error or kind == "extxyz" or len(frames) == 6
    assert [frame.sample.energy for frame in frames if isinstance(frame, Frame)] == list(range(len(frames)))


# What ASE computes from altered sizes before it fails.
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@formats
@settings(max_examples=100)
@given(places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_altered_bytes_never_raise_anything_but_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, places: list[tuple[float, int]]
) -> None:
    content = bytearray(intact(kind))
    for share, value in places:
        content[int(share * len(content))] = value
    try:
        frames = damaged(tmp_path_factory.mktemp("x"), kind, bytes(content))
    except UserError:
        return
    assert all(isinstance(frame, Frame | BadFrame) for frame in frames)


def without(atoms: Atoms, label: str) -> Atoms:
    atoms.calc.results.pop(label)
    return atoms


@formats
@pytest.mark.parametrize("skip", [[], ["--skip-bad"]])
@pytest.mark.parametrize("label", ["energy", "forces"])
@pytest.mark.parametrize("at", [0, 1])
def test_missing_label_is_always_an_error_with_file_frame_and_keys(
    tmp_path: Path, kind: str, label: str, skip: list[str], at: int
) -> None:
    frames = [water(dipole=np.ones(3)) for _ in range(2)]
    frames[at] = without(frames[at], label)
    path = tmp_path / WRITERS[kind][1]
    where = f"row with id {at + 1}" if WRITERS[kind][0] == "ase-db" else f"frame {at}"
    there = "forces" if label == "energy" else "energy"
    with pytest.raises(UserError, match=rf"{where} of {path} has no {label} under .*it has dipole.*{there}"):
        imported(tmp_path, kind, frames, *skip)
    assert list(tmp_path.iterdir()) == [path]


@formats
def test_label_of_another_shape_is_always_an_error(tmp_path: Path, kind: str) -> None:
    frame = water()
    frame.info["E"] = [1.0, 2.0]
    path = tmp_path / WRITERS[kind][1]
    with pytest.raises(UserError, match=rf"of {path} has float64 of shape \(2,\) under E, where energy is .*forces"):
        imported(tmp_path, kind, [frame], "--key", "energy=E", "--skip-bad")
    assert list(tmp_path.iterdir()) == [path]


@formats
def test_labels_can_be_left_out(tmp_path: Path, kind: str) -> None:
    frames = [labelled(np.random.default_rng(k), 3, stress=True, charge=True) for k in range(5)]
    options = [f"{label}=none" for label in ("energy", "forces", "stress", "charge", "spin")]
    store = imported(tmp_path, kind, frames, "--split", "train=1", *(x for o in options for x in ("--key", o)))
    assert store.fields == ("numbers", "positions", "cell", "pbc")
    assert store.references == {}


@formats
def test_entries_can_be_kept_and_split_by(tmp_path: Path, kind: str) -> None:
    frames = []
    for k in range(40):
        atoms = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.001 * k]])
        atoms.calc = SinglePointCalculator(atoms, energy=-float(k), forces=np.zeros((3, 3)))
        atoms.info |= {"temperature": 300.0 + 10 * k, "origin": "md"}
        frames.append(atoms)
    name, path = written(tmp_path, kind, frames)
    out, split = tmp_path / "out.h5", tmp_path / "split.h5"
    main(["import", str(path), "--format", name, "--out", str(out), "--key", "keep=temperature,origin"])
    np.testing.assert_array_equal(Store(out).metadata("temperature"), 300 + 10 * np.arange(40))
    assert set(Store(out).metadata("origin")) == {"md"}
    main(["split", str(out), "--by", "temperature", "--train-below", "600", "--out", str(split)])
    hot = Store(split).split("ood_temperature")
    assert len(hot) == 9
    assert hot.severities().min() == 610
    with pytest.raises(UserError, match=r"frame 0|row.* has no pressure to keep; it has .*temperature"):
        main(["import", str(path), "--format", name, "--out", str(tmp_path / "y.h5"), "--key", "keep=pressure"])


@formats
def test_energies_alone_are_enough_when_asked_for(tmp_path: Path, kind: str) -> None:
    frames = [without(water(energy=float(k)), "forces") for k in range(3)]
    store = imported(tmp_path, kind, frames, "--split", "train=1", "--key", "forces=none")
    assert store.sample_column("energy").tolist() == [0, 1, 2]
    assert "forces" not in store.fields


@formats
def test_reference_labels_win_over_plain_ones(tmp_path: Path, kind: str) -> None:
    frame = water()
    frame.info["REF_energy"] = -7.5
    (found,) = read(tmp_path, kind, [frame], forces="forces")
    assert isinstance(found, Frame)
    assert found.sample.energy == -7.5


@formats
def test_multiplicities_that_the_electrons_cannot_have_are_refused(tmp_path: Path, kind: str) -> None:
    frame = water()
    frame.info |= {"charge": 0, "spin": 0}
    with pytest.raises(UserError, match=r"spin 0, which is no multiplicity 2S\+1 that 10 electrons can have"):
        read(tmp_path, kind, [frame])
    frame.info |= {"charge": 1, "spin": 3}
    with pytest.raises(UserError, match=r"spin 3, which is no multiplicity .* 9 electrons"):
        read(tmp_path, kind, [frame])
    frame.info["charge"] = 0.5
    with pytest.raises(UserError, match=r"charge 0\.5, no whole number"):
        read(tmp_path, kind, [frame])
    assert isinstance(read(tmp_path, kind, [frame], charge="none", spin="none")[0], Frame)


@pytest.mark.parametrize("kind", ["SQLite", "trajectory"])
def test_number_of_frames_is_known_beforehand(tmp_path: Path, kind: str) -> None:
    name, path = written(tmp_path, kind, [water() for _ in range(5)])
    assert length_hint(source(name).reader()(path, {})) == 5


def test_long_list_of_skipped_frames_is_cut_on_screen_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nan = float("nan")
    frames = [water(energy=float(k) if k % 3 == 0 else nan) for k in range(60)]
    store = imported(tmp_path, "extxyz", frames, "--skip-bad")
    assert len(store) == 20
    lines = (tmp_path / "store.h5.skipped.txt").read_text().splitlines()
    expected = [f"frame {k} of {tmp_path / 'x.xyz'}: energy is not finite" for k in range(60) if k % 3]
    assert lines == expected
    printed = capsys.readouterr().out
    assert "skipped 40 of 60 frames" in printed
    assert expected[9] in printed
    assert expected[10] not in printed


def test_list_is_there_only_if_something_was_skipped_and_never_overwritten(tmp_path: Path) -> None:
    frames = [water(energy=float(k)) for k in range(10)]
    imported(tmp_path, "extxyz", frames, "--skip-bad")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store.h5", "x.xyz"]
    (tmp_path / "store.h5").unlink()
    (tmp_path / "store.h5.skipped.txt").write_text("of another import\n")
    with pytest.raises(UserError, match=r"skipped\.txt exists already"):
        imported(tmp_path, "extxyz", frames, "--skip-bad")
    assert (tmp_path / "store.h5.skipped.txt").read_text() == "of another import\n"


def test_import_of_bad_frames_only_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of the 3 frames can be used; frame 0 of .*energy is not finite"):
        imported(tmp_path, "extxyz", [water(energy=float("nan"))] * 3, "--skip-bad")
    assert [p.name for p in tmp_path.iterdir()] == ["x.xyz"]


@pytest.mark.parametrize("name", ["extxyz", "ase-db", "ase-traj"])
def test_folder_or_nothing_in_the_place_of_a_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    for path, message in ((tmp_path, "is a folder; give a file"), (tmp_path / "x", "does not exist")):
        with pytest.raises(UserError, match=message):
            main(["import", str(path), "--format", name, "--out", str(tmp_path / "s.h5")])
    assert list(tmp_path.iterdir()) == []


def test_unknown_label_is_answered_with_the_closest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'forces'"):
        imported(tmp_path, "extxyz", [water()], "--key", "force=f")


def test_every_format_can_be_loaded() -> None:
    assert all(callable(found.reader()) for found in SOURCES.values())


def peak(folder: Path, frames: int, atoms: int) -> int:
    """Bytes that packing so many frames holds at most."""
    numbers = np.arange(atoms) % 9 + 1

    def made() -> Iterator[Frame]:
        for k in range(frames):
            zeros = np.zeros((atoms, 3))
            yield Frame(f"frame {k}", AtomsSample(numbers.copy(), zeros, energy=0.0, forces=zeros.copy()), "a")

    tracemalloc.start()
    try:
        pack([(None, made())], folder / f"{frames}.h5", "atoms", Division({"train": 0.8, "val": 0.2}))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("few", "many", "atoms"), [(1500, 6000, 1), (100, 400, 3000)])
def test_memory_of_an_import_hardly_grows_with_its_frames(tmp_path: Path, few: int, many: int, atoms: int) -> None:
    peak(tmp_path, 10, atoms)  # what is loaded once
    growth = peak(tmp_path, many, atoms) - peak(tmp_path, few, atoms)
    assert growth < 40 * (many - few) + 2**18  # samples that are kept take megabytes
