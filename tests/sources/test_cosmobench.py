from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from operator import length_hint
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scisci import cli
from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.library import read_card
from scisci.data.store import Store
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.registry import SOURCES, source

SUITES = {"quijote": ("BSQ", 1000.0), "camels-sam": ("LH", 100.0), "camels-tng": ("LH", 25.0)}
suites = pytest.mark.parametrize("suite", SUITES)


def write(path: Path, suite: str, clouds: int = 12, points: int = 120, first: int = 0, seed: int = 0) -> Path:
    """A file in the layout of one suite; Omega_m of simulation i is .1 + i / 1000, and so can be told."""
    (name, box), rng = SUITES[suite], np.random.default_rng([seed, first])
    simulations = first + np.arange(clouds)
    with h5py.File(path, "w") as file:
        for number in range(clouds):
            group = file.create_group(f"{name}/{name}_{number}")
            for axis in "XYZ":
                group[axis] = rng.uniform(0, box, points).astype(np.float32)
                group[f"V{axis}"] = rng.normal(scale=300, size=points).astype(np.float32)
            group["Mstar"] = 10 ** rng.uniform(9, 11, points)
        file["params/Omega_m"] = 0.1 + simulations / 1000
        file["params/sigma_8"] = 0.6 + simulations / 1000
        file["params/A_SN1"] = 0.25 + simulations
        file["original_ids"] = simulations
    return path


def read(path: Path, suite: str, **keys: str) -> list[Frame | BadFrame]:
    return list(source(suite).reader()(path, keys))


def imported(path: Path, suite: str, out: Path, *options: str) -> Store:
    main(["import", str(path), "--format", suite, "--out", str(out), *options])
    return Store(out)


@suites
def test_clouds_keep_their_own_parameters_beyond_the_tenth(tmp_path: Path, suite: str) -> None:
    path, (name, box) = write(tmp_path / "all_train.hdf5", suite, first=100), SUITES[suite]
    frames = read(path, suite, masses="Mstar")
    assert length_hint(source(suite).reader()(path, {})) == len(frames) == 12
    with h5py.File(path) as file:
        assert list(file[name])[2] == f"{name}_10"  # by name, the eleventh comes third
        for k, frame in enumerate(frames):
            assert isinstance(frame, Frame)
            node, sample = file[f"{name}/{name}_{k}"], frame.sample
            assert frame.group == f"{name}_{100 + k}"
            assert frame.metadata == {"A_SN1": 100.25 + k}
            assert (sample.omega_m, sample.sigma_8) == (pytest.approx(0.2 + k / 1000), pytest.approx(0.7 + k / 1000))
            np.testing.assert_array_equal(sample.positions, np.stack([node[a][...] for a in "XYZ"], axis=1))
            np.testing.assert_array_equal(sample.velocities, np.stack([node[f"V{a}"][...] for a in "XYZ"], axis=1))
            np.testing.assert_array_equal(sample.masses, node["Mstar"][...])
            np.testing.assert_array_equal(sample.box, [box] * 3)


@pytest.mark.parametrize("train", [6, 600])
def test_folder_with_the_three_files_gives_the_published_splits(
    tmp_path: Path, train: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, sizes, first = tmp_path / "sam", {"train": train, "val": 204, "test": 196}, 0
    folder.mkdir()
    for split, size in sizes.items():
        write(folder / f"top5000_galaxies_{split}.hdf5", "camels-sam", clouds=size, points=3, first=first)
        first += size if split == "train" else 0
    store = imported(folder, "camels-sam", tmp_path / "store.h5", "--key", "omega_m=none", "--key", "sigma_8=none")
    assert {name: len(split) for name, split in store.splits.items()} == sizes
    assert {split.shift for split in store.splits.values()} == {"none: as published"}
    groups = [store.groups[g] for g in store.sample_column("group")[store.split("train").indices()]]
    assert set(groups) == {f"LH_{k}" for k in range(train)}
    said = "'train' has 6 samples in its file, where 600 are published" in capsys.readouterr().out
    assert said == (train == 6)


def test_folder_without_one_file_per_split_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "sam"
    folder.mkdir()
    for name in ("top5000_train", "ALL_train", "top5000_val"):
        write(folder / f"{name}.hdf5", "camels-sam")
    with pytest.raises(UserError, match=r"one file called \*_train.* has ALL_train.hdf5, top5000_train.hdf5"):
        imported(folder, "camels-sam", tmp_path / "x.h5")
    (folder / "ALL_train.hdf5").unlink()
    with pytest.raises(UserError, match=r"for the split 'test', and has none"):
        imported(folder, "camels-sam", tmp_path / "x.h5")


def test_one_file_alone_is_divided_by_simulation(tmp_path: Path) -> None:
    path = write(tmp_path / "x_test.hdf5", "quijote")
    store = imported(path, "quijote", tmp_path / "store.h5", "--split-by", "group")
    assert {name: len(split) for name, split in store.splits.items()} == {"train": 10, "val": 1, "test": 1}
    assert store.fields == ("positions", "velocities", "box", "omega_m", "sigma_8")
    assert sorted(store.metadata("A_SN1")) == [0.25 + k for k in range(12)]


@pytest.mark.parametrize("as_text", [False, True])
def test_simulations_are_known_from_params_too(tmp_path: Path, as_text: bool) -> None:
    with h5py.File(write(tmp_path / "x_val.hdf5", "camels-tng", first=300), "a") as file:
        ids = file["original_ids"][...]
        del file["original_ids"], file["params/A_SN1"]
        file["params/LH"] = [f"LH_{k}" for k in ids] if as_text else ids[:, None]
        file["params/redshift"] = 0.0
    frames = read(tmp_path / "x_val.hdf5", "camels-tng")
    assert [frame.group for frame in frames] == [f"LH_{300 + k}" for k in range(12)]
    assert [frame.sample.omega_m for frame in frames] == pytest.approx([0.4 + k / 1000 for k in range(12)])
    assert all(frame.metadata == {} for frame in frames)


def test_simulations_without_original_ids_are_told_apart_by_file(tmp_path: Path) -> None:
    for split in ("train", "val"):
        with h5py.File(write(tmp_path / f"{split}.hdf5", "camels-tng"), "a") as file:
            del file["original_ids"]
        assert read(tmp_path / f"{split}.hdf5", "camels-tng")[3].group == f"{split}/LH_3"


def test_groups_with_gaps_need_their_numbers_in_params(tmp_path: Path) -> None:
    path = write(tmp_path / "x.hdf5", "camels-sam")
    with h5py.File(path, "a") as file:
        del file["original_ids"], file["LH/LH_4"]
        for name, values in [(name, node[...]) for name, node in file["params"].items()]:
            del file[f"params/{name}"]
            file[f"params/{name}"] = np.delete(values, 4)[::-1]
    with pytest.raises(UserError, match=r"no LH/LH_4 but later ones.*params/LH"):
        read(path, "camels-sam")
    with h5py.File(path, "a") as file:
        file["params/LH"] = np.delete(np.arange(12), 4)[::-1]
    frames = read(path, "camels-sam")
    assert [frame.group for frame in frames] == [f"LH_{k}" for k in range(12) if k != 4]
    assert [frame.sample.omega_m for frame in frames] == pytest.approx([0.1 + k / 1000 for k in range(12) if k != 4])


def test_numbers_in_params_that_contradict_its_order_are_an_error(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "x.hdf5", "camels-sam"), "a") as file:
        file["params/LH"] = np.arange(12)[::-1]
    with pytest.raises(UserError, match=r"params/LH of .* another order.*sort params"):
        read(tmp_path / "x.hdf5", "camels-sam")


def replace(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        values = file[name][...]
        del file[name]
        file[name] = change(values)

    return edit


def delete(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def at(index: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.where(np.arange(len(values)) == index, value, values)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            delete("params/Omega_m"),
            r"has no params/Omega_m, for omega_m; params has A_SN1, sigma_8.*--key omega_m=NAME",
        ),
        (delete("params"), r"has no params, which hold Omega_m and sigma_8; it has LH, original_ids"),
        (replace("params/sigma_8", lambda v: v[:-1]), r"has 12 clouds in LH, but sigma_8 of shape \(11,\)"),
        (replace("original_ids", lambda v: v[:-1]), r"has 12 clouds in LH, but original_ids of shape \(11,\)"),
        (delete("LH"), r"has no groups LH/LH_0.*it has original_ids, params; choose the format of its suite"),
        (delete("LH/LH_7"), r"12 clouds|11 clouds in LH, but A_SN1 of shape \(12,\)"),
        (delete("LH/LH_7/VY"), r"LH/LH_7 of .* has no VY, for velocities; it has .*VX, VZ.*--key velocities=none"),
        (
            replace("LH/LH_7/Y", lambda v: v[1:]),
            r"LH/LH_7 of .* has float32 of shape \(119,\) under Y, where it has 120",
        ),
        (replace("LH/LH_7/Y", lambda v: v.astype("S8")), r"LH/LH_7 of .* has \|S8 of shape"),
        (
            replace("params/Omega_m", at(3, 0.83)),
            r"params/Omega_m of .* is 0.83 for LH/LH_3, but omega_m is from 0.1 to",
        ),
    ],
)
def test_fault_of_the_file_is_an_error_with_group_and_field(
    tmp_path: Path, edit: Callable[[h5py.File], None], message: str
) -> None:
    with h5py.File(write(tmp_path / "x.hdf5", "camels-tng"), "a") as file:
        edit(file)
    with pytest.raises(UserError, match=message):
        imported(tmp_path / "x.hdf5", "camels-tng", tmp_path / "store.h5", "--skip-bad")
    assert [path.name for path in tmp_path.iterdir()] == ["x.hdf5"]


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("X", at(17, np.nan), "X of point 17 is not finite"),
        ("VZ", at(3, np.inf), "VZ of point 3 is not finite"),
        ("Z", at(5, 26.0), "Z of point 5 is 26, outside its box of 25 Mpc/h"),
        ("Z", at(5, -2.0), "Z of point 5 is -2, outside its box of 25 Mpc/h"),
        ("Y", lambda v: v * 1000, "outside its box of 25 Mpc/h: lengths in kpc/h?"),
        ("Y", lambda v: v / 1000, "Y spans 0.02.* of a box of 25 Mpc/h: another unit, or another box?"),
        ("VX", lambda v: v * 1000, "VX has an rms of 30[0-9]{4}, which peculiar velocities in km/s never have"),
        ("VX", lambda v: v / 299792.458, "VX has an rms of 0.00"),
        ("VY", lambda v: v * 0, "VY has an rms of 0, "),
        ("Mstar", at(9, 0.0), "a mass is not above zero"),
    ],
)
def test_unusable_cloud_is_skipped_only_when_asked(
    tmp_path: Path, name: str, change: Callable[[np.ndarray], np.ndarray], reason: str
) -> None:
    path = write(tmp_path / "x.hdf5", "camels-tng")
    with h5py.File(path, "a") as file:
        replace(f"LH/LH_10/{name}", change)(file)
    with pytest.raises(UserError, match=rf"LH/LH_10 of {path} cannot be used: .*{reason}"):
        imported(path, "camels-tng", tmp_path / "store.h5", "--key", "masses=Mstar")
    store = imported(path, "camels-tng", tmp_path / "store.h5", "--key", "masses=Mstar", "--skip-bad")
    assert store.groups == [f"LH_{k}" for k in range(12) if k != 10]
    assert store.sample_column("omega_m") == pytest.approx([0.1 + k / 1000 for k in range(12) if k != 10])


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (replace("LH/LH_10/VX", lambda v: v * 1000), ("LH/LH_10 of", "VX has an rms of")),
        (delete("params/sigma_8"), ("has no params/sigma_8",)),
    ],
)
def test_command_ends_with_one_sentence_and_code_2(
    tmp_path: Path,
    edit: Callable[[h5py.File], None],
    said: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path / "x.hdf5", "camels-tng")
    with h5py.File(path, "a") as file:
        edit(file)
    words = ["data", "import", str(path), "--format", "camels-tng", "--out", str(tmp_path / "store.h5")]
    monkeypatch.setattr("sys.argv", ["scisci", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capsys.readouterr().err
    assert end.value.code == 2
    assert printed.startswith("scisci: error: ")
    assert printed.count("\n") == 1
    assert all(part in printed for part in said)
    assert list(tmp_path.iterdir()) == [path]


def test_clouds_of_another_suite_do_not_fit_the_box(tmp_path: Path) -> None:
    for suite, other, reason in (("camels-sam", "camels-tng", "outside"), ("camels-tng", "camels-sam", "spans")):
        (first, *_) = read(write(tmp_path / f"{suite}.hdf5", suite), other)
        assert isinstance(first, BadFrame)
        assert reason in first.reason


def test_points_slightly_outside_are_wrapped(tmp_path: Path) -> None:
    path = write(tmp_path / "x.hdf5", "camels-tng")
    with h5py.File(path, "a") as file:
        replace("LH/LH_0/X", lambda v: np.concatenate([[-0.1, 25.1, 25.0, -1e-12], v[4:]]))(file)
    assert read(path, "camels-tng")[0].sample.positions[:4, 0] == pytest.approx([24.9, 0.1, 25.0, 25.0])


def test_parameters_and_velocities_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "x.hdf5", "camels-tng")
    with h5py.File(path, "a") as file:
        del file["params/sigma_8"], file["LH/LH_3/VX"]
    keys = ("--key", "sigma_8=none", "--key", "velocities=none", "--split", "train=1")
    assert imported(path, "camels-tng", tmp_path / "store.h5", *keys).fields == ("positions", "box", "omega_m")
    with pytest.raises(UserError, match="did you mean 'velocities'"):
        read(path, "camels-tng", velocity="none")
    with pytest.raises(UserError, match="names 2 columns instead of 3"):
        read(path, "camels-tng", velocities="VX,VY")


def readable(path: Path) -> None:
    """Fails with a `UserError` that names the file, or not at all."""
    try:
        assert all(isinstance(frame, Frame | BadFrame) for frame in read(path, "camels-tng"))
    except UserError as error:
        if str(path) not in str(error) or path.stem != "altered":
            raise


@settings(max_examples=40)
@given(share=st.floats(0, 0.999), places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4))
def test_damaged_file_is_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, share: float, places: list[tuple[float, int]]
) -> None:
    folder = tmp_path_factory.mktemp("x")
    content = bytearray(write(folder / "x.hdf5", "camels-tng", clouds=2).read_bytes())
    for where, value in places:
        content[int(where * len(content))] = value
    for name, data in (("cut", content[: int(share * len(content))]), ("altered", content)):
        path = folder / f"{name}.hdf5"
        path.write_bytes(data)
        with nullcontext() if name == "altered" else pytest.raises(UserError, match=str(path)):
            readable(path)


def test_download_packs_the_splits_of_files_in_the_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "cosmobench-camels-tng" / "files"
    cache.mkdir(parents=True)
    for k, split in enumerate(("train", "val", "test")):
        write(cache / f"ALL_galaxies_{split}.hdf5", "camels-tng", clouds=5 - k, first=100 * k)
    out = tmp_path / "store.h5"
    main(["download", "cosmobench-camels-tng", "--cache", str(tmp_path / "cache"), "--out", str(out)])
    store = Store(out)
    for k, split in enumerate(("train", "val", "test")):
        indices = store.split(split).indices()
        assert sorted(store.groups[g] for g in store.sample_column("group")[indices]) == [
            f"LH_{100 * k + j}" for j in range(5 - k)
        ]
        assert store.split(split).shift == "none: as published, simulations of one latin hypercube"


@pytest.mark.parametrize(
    ("name", "sizes", "groups"),
    [
        ("quijote", (19651, 6551, 6550), 32752),
        ("camels-sam", (600, 204, 196), 1000),
        ("camels-tng", (600, 200, 200), 1000),
        ("trees", (14997, 5099, 4900), None),
        ("infilling", (120, 40, 40), None),
    ],
)
def test_cards_download_the_published_splits(name: str, sizes: tuple[int, ...], groups: int | None) -> None:
    card = read_card(f"cosmobench-{name}")
    assert card.download is not None
    found = SOURCES[card.download.format]
    assert (found.domain, tuple(found.published.values())) == (card.domain, sizes)
    assert tuple(split.samples for split in card.splits.values()) == sizes
    assert (card.samples, card.groups) == (sum(sizes), groups)
    assert [file.split for file in card.download.files] == ["train", "val", "test"]
    assert all(f"_{file.split}." in file.filename for file in card.download.files)
