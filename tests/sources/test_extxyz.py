from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read as ase_read
from ase.io import write
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.extxyz import read_extxyz
from scisci.sources.frames import BadFrame, Frame


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
    read = [frame.sample for frame in read_extxyz(tmp_path / "x.xyz", keys)]
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
    (bad,) = read_extxyz(tmp_path / "x.xyz")
    assert isinstance(bad, BadFrame)
    assert bad.where.startswith("frame 0 of")
    assert bad.reason == "energy is not finite"


@pytest.mark.parametrize("content", ["", "3\nProperties=species:S:1:pos:R:3\nH 0 0 0\n", "not xyz at all\n"])
def test_damaged_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.xyz").write_text(content)
    with pytest.raises(UserError, match=r"x\.xyz"):
        list(read_extxyz(tmp_path / "x.xyz"))


def write_frames(path: Path, made: list[Atoms]) -> Path:
    write(path, made, format="extxyz")
    return path


def test_levels_of_theory_are_never_mixed(tmp_path: Path) -> None:
    made = frames(10)
    mixed = [renamed(a, "REF_energy", "REF_forces") for a in made[:5]] + made[5:]
    with pytest.raises(
        UserError, match=r"frame 5 of .* no energy under REF_energy as the first frame has; it has energy, forc"
    ):
        list(read_extxyz(write_frames(tmp_path / "x.xyz", mixed)))
    crossed = made[0].copy()
    crossed.info["REF_energy"] = 1.0
    crossed.calc = SinglePointCalculator(crossed, forces=made[0].get_forces())
    with pytest.raises(UserError, match=r"frame 0 .* different levels of theory; it has REF_energy, forces"):
        list(read_extxyz(write_frames(tmp_path / "y.xyz", [crossed])))


def test_reference_labels_win_over_plain_ones_in_the_same_file(tmp_path: Path) -> None:
    atoms = frames(1)[0]
    atoms.info["REF_energy"] = -7.0
    atoms.arrays["REF_forces"] = np.full((3, 3), 0.25)
    (frame,) = read_extxyz(write_frames(tmp_path / "x.xyz", [atoms]))
    sample = frame.sample
    assert sample.energy == -7.0
    np.testing.assert_array_equal(sample.forces, 0.25)


def test_group_comes_from_the_frame_and_zero_is_a_group(tmp_path: Path) -> None:
    made = [renamed(a, "REF_energy", "REF_forces") for a in frames(4)]
    made[0].info["group"] = 0
    made[1].info["config_type"] = "bulk"
    made[2].arrays["group"] = np.arange(3)
    groups = [frame.group for frame in read_extxyz(write_frames(tmp_path / "x.xyz", made))]
    assert groups == ["0", "bulk", "H2O", "Cu4"]


def strained(factor: float) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(np.asarray(atoms.cell) * factor + 0.05 * np.eye(3, k=1), scale_atoms=True)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize("name", ["stress", "REF_stress", "REF_virials", "REF_virial", "sigma"])
def test_stress_is_tensile_positive_under_every_name(tmp_path: Path, name: str) -> None:
    made = []
    for atoms in (strained(1.03), strained(0.97)):
        label = atoms.get_stress(voigt=False) * (-atoms.get_volume() if "virial" in name else 1)
        if name == "stress":
            results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": label}
            made.append(atoms.copy())
            made[-1].calc = SinglePointCalculator(made[-1], **results)
        else:
            made.append(renamed(atoms, "REF_energy", "REF_forces"))
            made[-1].info[name] = label
    keys = {"stress": "sigma"} if name == "sigma" else {}
    stretched, squeezed = (f.sample for f in read_extxyz(write_frames(tmp_path / "x.xyz", made), keys))
    assert stretched.stress is not None
    assert squeezed.stress is not None
    assert np.trace(stretched.stress) > 0 > np.trace(squeezed.stress)
    # Independent of ASE's stress: dE/d(strain) over the volume, by central differences.
    energies = []
    for sign in (1, -1):
        atoms = strained(1.03)
        shear = np.eye(3) + sign * 1e-4 * np.array([[0, 0.5, 0], [0.5, 1, 0], [0, 0, 0]])
        atoms.set_cell(np.asarray(atoms.cell) @ shear, scale_atoms=True)
        energies.append(atoms.get_potential_energy())
    slope = (energies[0] - energies[1]) / 2e-4 / strained(1.03).get_volume()
    assert stretched.stress[0, 1] + stretched.stress[1, 1] == pytest.approx(slope, rel=1e-4)


def test_stress_of_some_frames_only_is_refused_or_left_out(tmp_path: Path) -> None:
    first, second = (renamed(strained(f), "REF_energy", "REF_forces") for f in (1.03, 0.97))
    second.info["REF_stress"] = np.eye(3)
    for made, message in (
        ([first, second], r"frame 1 .* has a stress under REF_stress where the first frame has none"),
        ([second, first], r"frame 1 .* has no stress under REF_stress as the first frame has"),
    ):
        path = write_frames(tmp_path / "x.xyz", made)
        with pytest.raises(UserError, match=message):
            list(read_extxyz(path))
        assert all(frame.sample.stress is None for frame in read_extxyz(path, {"stress": "none"}))


def test_import_writes_a_store_with_splits_and_references(tmp_path: Path) -> None:
    made = frames(20)
    write(tmp_path / "x.xyz", made, format="extxyz")
    main(["import", str(tmp_path / "x.xyz"), "--format", "extxyz", "--out", str(tmp_path / "x.h5")])
    store = Store(tmp_path / "x.h5")
    assert {name: len(s) for name, s in store.splits.items()} == {"train": 16, "val": 2, "test": 2}
    assert store.groups == ["H2O", "Cu4"]
    train = store.split("train").indices().tolist()
    copper = np.mean([made[i].get_potential_energy() for i in train if i % 2]) / 4
    assert store.references["energy"][29] == pytest.approx(copper, abs=1e-9)


def test_failed_import_leaves_nothing(tmp_path: Path) -> None:
    good, bad = frames(2)
    write(tmp_path / "x.xyz", [renamed(good, "REF_energy", "REF_forces"), renamed(bad, "REF_energy", None)])
    with pytest.raises(UserError):
        main(["import", str(tmp_path / "x.xyz"), "--format", "extxyz", "--out", str(tmp_path / "x.h5")])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.xyz"]


def packed(tmp_path: Path, *options: str) -> Store:
    write(tmp_path / "x.xyz", frames(20), format="extxyz")
    main(["import", str(tmp_path / "x.xyz"), "--format", "extxyz", "--out", str(tmp_path / "x.h5"), *options])
    return Store(tmp_path / "x.h5")


def test_references_know_nothing_of_val_and_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Two groups, so whole elements are on one side.
    store = packed(tmp_path, "--split-by", "group", "--split", "train=0.5", "test=0.5")
    train = store.take(store.split("train").indices())
    assert set(np.flatnonzero(np.isfinite(store.references["energy"]))) == set(train.items["numbers"].tolist())
    assert "are not in 'train'" in capsys.readouterr().out


def test_repeated_split_options_add_up(tmp_path: Path) -> None:
    store = packed(tmp_path, "--split", "train=0.5", "--split", "val=0.25", "--split", "test=0.25")
    assert {name: len(s) for name, s in store.splits.items()} == {"train": 10, "val": 5, "test": 5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "train=0.5", "--split", "train=0.3"], "--split names train twice"),
        (["--key", "energy=a", "--key", "energy=b"], "--key names energy twice"),
        (["--split", "val=0.5", "test=0.5"], "no split named train"),
        (["--split", "train=0.9", "val=0.9"], "not possible"),
        (["--split", "train=nan"], "not possible"),
        (["--split", "train=much"], "write it as NAME=VALUE"),
        (["--split", "train"], "write it as NAME=VALUE"),
    ],
)
def test_impossible_options_are_refused_before_the_file_is_read(
    tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "x.xyz").write_text("not xyz at all")
    with pytest.raises(UserError, match=message):
        main(["import", str(tmp_path / "x.xyz"), "--format", "extxyz", "--out", str(tmp_path / "x.h5"), *options])
    assert [p.name for p in tmp_path.iterdir()] == ["x.xyz"]


WATER = "O 0 0 0 1 2 3\nH 0 0.76 0.59 4 5 6\nH 0 -0.76 0.59 7 8 9\n"
COMMENT = 'Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 pbc="F F F"'


def parsed(tmp_path: Path, content: str, **keys: str) -> list[Frame | BadFrame]:
    (tmp_path / "x.xyz").write_text(content)
    return list(read_extxyz(tmp_path / "x.xyz", keys))


def test_frame_without_atoms_or_of_an_unknown_element_is_bad_and_those_after_it_are_read(tmp_path: Path) -> None:
    good = f"3\n{COMMENT}\n{WATER}"
    empty, unknown = f"0\n{COMMENT}\n", good.replace("O 0", "Qq 0", 1)
    none, first, odd, last = parsed(tmp_path, empty + good + unknown + good)
    assert none == BadFrame(f"frame 0 of {tmp_path / 'x.xyz'}", "it has no atoms")
    assert odd == BadFrame(f"frame 2 of {tmp_path / 'x.xyz'}", "its element 'Qq' is unknown")
    for frame in (first, last):
        assert isinstance(frame, Frame)
        assert frame.sample.energy == -1.5
        np.testing.assert_array_equal(frame.sample.forces, np.arange(1, 10).reshape(3, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"3\n{COMMENT}\n{WATER}\n\n3\n", "frame 1 of .* begins with an empty line"),
        (f"3\n{COMMENT}\n{WATER}x\n", "frame 1 of .* begins with 'x', not with its number of atoms"),
        (f"-3\n{COMMENT}\n{WATER}", "frame 0 of .* begins with '-3'"),
        (f"3\n{COMMENT}\n{WATER}".replace(" 9\n", "\n"), "do not all have the 7 columns"),
        (f"3\n{COMMENT}\n{WATER}".replace("0.59", "0.5.9"), "0.5.9"),
        (f"3\n{COMMENT}\n{WATER}".replace("R:3:forces", "Q:3:forces"), "is not valid extended XYZ"),
        (f"3\n{COMMENT}\n{WATER}".replace("pos:R:3", "pos:R"), "is not valid extended XYZ"),
        (f"3\n{COMMENT}\n{WATER}".replace("pos:", "place:"), "is not valid extended XYZ .*pos"),
        (f'3\n{COMMENT} Lattice="1 2 3"\n{WATER}', "Lattice is not 9 numbers"),
        (f"3\n{COMMENT}\n{WATER}".replace("F F F", "F F"), "pbc not 3 of T or F"),
        (f"3\n{COMMENT}\n{WATER}"[:-21], "frame 0 of .* ends after 2 of 3 atoms: the file is cut short"),
        (f"3\n{COMMENT}\n{WATER}3\n", "frame 1 of .* ends after 0 of 3 atoms"),
        (f"0\n{COMMENT}\n0\n", "frame 1 of .*: the file is cut short"),
    ],
)
def test_malformed_text_is_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parsed(tmp_path, content)


def test_blank_lines_at_the_end_are_no_frames(tmp_path: Path) -> None:
    assert len(parsed(tmp_path, f"3\n{COMMENT}\n{WATER}\n  \n\n")) == 1


@pytest.mark.parametrize("quote", ['"{}"', "'{}'", "{{{}}}", "[{}]"])
@pytest.mark.parametrize("columns", ["species:S:1:pos:R:3:forces:R:3", "Z:I:1:pos:R:3:forces:R:3"])
def test_every_way_of_quoting_and_of_naming_elements_is_read(tmp_path: Path, quote: str, columns: str) -> None:
    lattice, pbc = quote.format("4 0 0 0 5 0 1 0, 6"), quote.format("T,F T")
    rows = WATER if columns.startswith("species") else WATER.replace("O", "8").replace("H", "1")
    comment = f"energy = -1.5 Lattice={lattice} flag pbc = {pbc} Properties={columns}"
    (frame,) = parsed(tmp_path, f"  3 \n{comment}\n{rows}")
    assert isinstance(frame, Frame)
    assert frame.sample.numbers.tolist() == [8, 1, 1]
    assert frame.sample.cell is not None
    assert frame.sample.cell.tolist() == [[4, 0, 0], [0, 5, 0], [1, 0, 6]]
    assert frame.sample.pbc is not None
    assert frame.sample.pbc.tolist() == [True, False, True]
    assert frame.sample.energy == -1.5


# Names with a meaning of their own, to ASE or to us.
RESERVED = {
    *("lattice", "properties", "pbc", "uid", "stress", "virial", "virials", "charge", "spin", "group", "config_type"),
    *("ref_stress", "ref_virial", "ref_virials", "ref_energy", "ref_forces"),
}
NAMES = st.text(st.characters(codec="ascii", categories=("L", "N"), include_characters="_-."), min_size=1, max_size=8)
TEXTS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S"), include_characters=" "), max_size=12)
VALUES = st.one_of(
    TEXTS,
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False),
    st.booleans(),
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9).map(np.array),
    st.lists(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), min_size=2, max_size=3).map(np.array),
)


@settings(max_examples=200)
@given(info=st.dictionaries(NAMES, VALUES, max_size=5), energy=st.floats(-1e12, 1e12))
def test_whatever_else_ase_writes_into_a_comment_leaves_the_labels_alone(
    tmp_path_factory: pytest.TempPathFactory, info: dict[str, object], energy: float
) -> None:
    path = tmp_path_factory.mktemp("x") / "x.xyz"
    atoms = molecule("H2O")
    atoms.info = {name: value for name, value in info.items() if name.lower() not in RESERVED} | {"REF_energy": energy}
    atoms.arrays["REF_forces"] = np.arange(9.0).reshape(3, 3)
    write(path, atoms, format="extxyz")
    try:
        oracle = ase_read(path, format="extxyz").info
    except (ValueError, KeyError, IndexError, TypeError):
        assume(False)  # ASE cannot read back what it wrote
    assume(oracle.get("REF_energy") == energy)
    (frame,) = read_extxyz(path)
    assert isinstance(frame, Frame)
    assert frame.sample.energy == energy
    np.testing.assert_array_equal(frame.sample.forces, atoms.arrays["REF_forces"])
    for name, value in oracle.items():
        if isinstance(value, float | np.floating) and name not in RESERVED:
            (again,) = read_extxyz(path, {"energy": name, "forces": "REF_forces"})
            assert again == BadFrame(again.where, "energy is not finite") or again.sample.energy == value


@pytest.mark.parametrize("prefix", ["REF_", ""])
def test_virial_without_a_cell_is_refused(tmp_path: Path, prefix: str) -> None:
    comment = COMMENT.replace("forces:R", f"{prefix}forces:R").replace("energy=", f"{prefix}energy=")
    content = f'3\n{comment} {prefix}virials="1 0 0 0 1 0 0 0 1"\n{WATER}'
    with pytest.raises(UserError, match=f"has a virial under {prefix}virials but no cell"):
        parsed(tmp_path, content)
    assert len(parsed(tmp_path, content, stress="none")) == 1


def test_charges_per_atom_are_not_the_charge(tmp_path: Path) -> None:
    comment = COMMENT.replace("forces:R:3", "forces:R:3:charge:R:1:spin:R:1")
    (frame,) = parsed(
        tmp_path,
        f"3\n{comment}\n{WATER}".replace("3\nH", "3 0.5 0\nH").replace("6\n", "6 0 0\n").replace("9\n", "9 0 0\n"),
    )
    assert isinstance(frame, Frame)
    assert (frame.sample.charge, frame.sample.spin) == (None, None)


def test_file_is_read_as_it_comes(tmp_path: Path) -> None:
    """The first frame is there before the second is read: a list of all frames would need all of the file."""
    path = tmp_path / "x.xyz"
    path.write_text(f"3\n{COMMENT}\n{WATER}" * 50 + "damaged")
    frames = read_extxyz(path)
    assert all(isinstance(next(frames), Frame) for _ in range(50))
    with pytest.raises(UserError, match="frame 50 of"):
        next(frames)
