from __future__ import annotations

from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.registry import source

BOX = 25.0
kinds = pytest.mark.parametrize("suffix", [".csv", ".parquet"])


def points(simulation: int, count: int = 150) -> pd.DataFrame:
    rng = np.random.default_rng(simulation)
    table = {axis: rng.uniform(0, BOX, count) for axis in "XYZ"}
    return pd.DataFrame(table | {f"V{axis}": rng.normal(scale=300, size=count) for axis in "XYZ"})


def parameters(simulations: list[int]) -> pd.DataFrame:
    k = np.array(simulations)
    return pd.DataFrame({"simulation": [f"LH_{i}" for i in k], "Omega_m": 0.1 + k / 100, "sigma_8": 0.6 + k / 100})


def save(table: pd.DataFrame, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path, index=False)
    return path


def folder_of(path: Path, suffix: str = ".csv", simulations: tuple[int, ...] = (10, 9, 2)) -> Path:
    for k in simulations:
        save(points(k), path / f"LH_{k}{suffix}")
    save(parameters(list(simulations)), path / f"parameters{suffix}")
    return path


def one_table(simulations: tuple[int, ...] = (10, 9, 2), **more: Any) -> pd.DataFrame:
    whole = [points(k).assign(**parameters([k]).iloc[0]) for k in simulations]
    return pd.concat(whole).assign(**more)


def read(path: Path, **keys: str) -> list[Frame | BadFrame]:
    return list(source("catalogue").reader()(path, {"box": str(BOX)} | keys))


def check(frame: Frame | BadFrame, simulation: int, scale: float = 1.0) -> None:
    assert isinstance(frame, Frame)
    expected, sample = points(simulation).to_numpy(), frame.sample
    assert frame.group == f"LH_{simulation}"
    np.testing.assert_allclose(sample.positions, expected[:, :3] * scale, rtol=1e-12)
    np.testing.assert_allclose(sample.velocities, expected[:, 3:], rtol=1e-12)
    assert [sample.omega_m, sample.sigma_8] == pytest.approx([0.1 + simulation / 100, 0.6 + simulation / 100])
    assert sample.box.tolist() == [BOX] * 3


@kinds
def test_one_table_is_divided_where_the_simulation_changes(tmp_path: Path, suffix: str) -> None:
    frames = read(save(one_table(), tmp_path / f"x{suffix}"))
    assert len(frames) == 3
    for frame, simulation in zip(frames, (10, 9, 2), strict=True):
        check(frame, simulation)


@kinds
def test_folder_goes_by_number_and_finds_parameters_by_name(tmp_path: Path, suffix: str) -> None:
    path = folder_of(tmp_path / "x", suffix)
    frames = source("catalogue").reader()(path, {"box": str(BOX)})
    assert length_hint(frames) == 3
    for frame, simulation in zip(frames, (2, 9, 10), strict=True):
        check(frame, simulation)


@kinds
def test_tables_longer_than_what_is_read_at_once(tmp_path: Path, suffix: str) -> None:
    table = pd.concat([points(k, 60_000).assign(**parameters([k]).iloc[0]) for k in range(4)])
    frames = read(save(table, tmp_path / f"x{suffix}"))
    assert [len(frame.sample.positions) for frame in frames] == [60_000] * 4
    np.testing.assert_allclose(frames[3].sample.positions, points(3, 60_000).to_numpy()[:, :3], rtol=1e-12)


@kinds
def test_columns_units_and_box_by_key(tmp_path: Path, suffix: str) -> None:
    names = {"X": "x", "Y": "y", "Z": "z", "Omega_m": "Om", "simulation": "box_id", "VX": "u", "VY": "v", "VZ": "w"}
    table = one_table(side=BOX * 1000, mass=1e12).rename(columns=names)
    table[["x", "y", "z"]] *= 1000
    path = save(table, tmp_path / f"x{suffix}")
    keys = ("positions=x,y,z", "velocities=u,v,w", "masses=mass", "omega_m=Om", "simulation=box_id", "unit=kpc/h")
    options = [word for key in (*keys, "box=side") for word in ("--key", key)]
    main(
        ["import", str(path), "--format", "catalogue", "--out", str(tmp_path / "x.h5"), *options, "--split", "train=1"]
    )
    store = Store(tmp_path / "x.h5")
    assert store.groups == ["LH_10", "LH_9", "LH_2"]
    found = store.take(np.array([0]))
    np.testing.assert_allclose(found.items["positions"], points(10).to_numpy()[:, :3], rtol=1e-6)
    assert found.samples["box"].tolist() == [[BOX] * 3]
    assert set(found.items["masses"]) == {np.float32(1e12)}
    (first, *_) = read(path, **dict(key.split("=") for key in keys), box=str(BOX * 1000))
    assert isinstance(first, Frame)


@kinds
def test_numbers_as_names_of_simulations(tmp_path: Path, suffix: str) -> None:
    table = one_table()
    table["simulation"] = table["simulation"].str[3:].astype(int)
    assert [frame.group for frame in read(save(table, tmp_path / f"x{suffix}"))] == ["10", "9", "2"]


def test_positions_alone(tmp_path: Path) -> None:
    path = save(one_table()[["simulation", "X", "Y", "Z"]], tmp_path / "x.csv")
    frames = read(path, velocities="none", omega_m="none", sigma_8="none")
    assert frames[0].sample.velocities is None
    assert frames[0].sample.omega_m is None
    folder = folder_of(tmp_path / "x")
    (folder / "parameters.csv").unlink()
    assert len(read(folder, omega_m="none", sigma_8="none")) == 3


def lacking(table: pd.DataFrame, row: int, name: str, value: float = np.nan) -> pd.DataFrame:
    table = table.reset_index(drop=True)
    table.loc[row, name] = value
    return table


@kinds
@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (lacking(one_table(), 170, "Y"), "Y of point 20 is not finite"),
        (lacking(one_table(), 170, "Y", 99), "Y of point 20 is 99, outside its box of 25 Mpc/h"),
        (lacking(one_table(), 170, "Y", 9900), "outside its box of 25 Mpc/h: lengths in kpc/h?"),
        (lacking(one_table(), 170, "VY"), "VY of point 20 is not finite"),
    ],
)
def test_unusable_cloud_names_simulation_and_column(
    tmp_path: Path, table: pd.DataFrame, suffix: str, reason: str
) -> None:
    path = save(table, tmp_path / f"x{suffix}")
    good, bad, last = read(path)
    assert bad == BadFrame(f"simulation LH_9 of {path}", bad.reason)
    assert reason in bad.reason
    assert (good.group, last.group) == ("LH_10", "LH_2")


def test_unit_that_does_not_fit_is_found(tmp_path: Path) -> None:
    reasons = {"kpc/h": "X spans 0.02", "Mpc/h": "lengths in kpc/h?"}
    table = one_table()
    for unit, box, factor in (("kpc/h", BOX * 1000, 1), ("Mpc/h", BOX, 1000)):
        table[["X", "Y", "Z"]] *= factor
        (first, *_) = read(save(table, tmp_path / "x.csv"), unit=unit, box=str(box))
        assert isinstance(first, BadFrame)
        assert reasons[unit] in first.reason


def test_velocities_of_zero_are_refused_of_few_points_too(tmp_path: Path) -> None:
    few = one_table()[::50]
    assert all(isinstance(frame, Frame) for frame in read(save(few.assign(VX=1e9), tmp_path / "x.csv")))
    (first, *_) = read(save(few.assign(VX=0), tmp_path / "y.csv"))
    assert isinstance(first, BadFrame)
    assert "VX has an rms of 0, which peculiar velocities in km/s never have" in first.reason


@kinds
@pytest.mark.parametrize(
    ("table", "keys", "message"),
    [
        (one_table().drop(columns="VZ"), {}, "has no column VZ; it has .*VY.*--key"),
        (one_table().drop(columns="sigma_8"), {}, "has no column sigma_8"),
        (one_table((2, 9, 2)), {}, "rows of the simulation LH_2 in several places; sort it by simulation"),
        (lacking(one_table(), 170, "sigma_8", 0.9), {}, "simulation LH_9 of .* has several values of sigma_8"),
        (one_table(X="left"), {}, "x.* cannot be read .*left"),
        (one_table()[:0], {}, "has no simulations"),
        (one_table(), {"unit": "pc"}, "unknown unit in --key 'pc'.*Mpc/h"),
        (one_table(), {"box": "none"}, "need a periodic box; give its side with --key box=SIDE"),
        (one_table(), {"box": "L"}, "has no column L"),
        (one_table(), {"positions": "none"}, "cannot be read without positions"),
        (one_table(), {"positions": "X,Y"}, "names 2 columns instead of 3"),
        (one_table(), {"mass": "m"}, "did you mean 'masses'"),
    ],
)
def test_fault_of_a_table_is_an_error(
    tmp_path: Path, table: pd.DataFrame, suffix: str, keys: dict[str, str], message: str
) -> None:
    path = save(table, tmp_path / f"x{suffix}")
    with pytest.raises(UserError, match=message):
        read(path, **keys)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ([10, 9], r"parameters.csv has no row for the simulation LH_2"),
        ([10, 9, 2, 4], r"x has no table for the simulation LH_4"),
        ([10, 9, 2, 2], r"parameters.csv has more than one row for the simulation LH_2"),
        (None, r"has no parameters.csv or parameters.parquet with Omega_m, sigma_8 of each simulation"),
    ],
)
def test_parameters_that_do_not_match_the_tables(tmp_path: Path, keep: list[int] | None, message: str) -> None:
    path = folder_of(tmp_path / "x")
    (path / "parameters.csv").unlink()
    if keep is not None:
        save(parameters(keep), path / "parameters.csv")
    with pytest.raises(UserError, match=message):
        read(path)


@kinds
def test_damaged_table_is_a_user_error(tmp_path: Path, suffix: str) -> None:
    path = save(one_table(), tmp_path / f"x{suffix}")
    content = path.read_bytes()
    for cut in (0, 3, 100, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:cut])
        with pytest.raises(UserError, match="x"):
            read(path)
    path.write_bytes(b"\xff\xfe" + content)
    with pytest.raises(UserError, match="x"):
        read(path)


def test_damaged_parameters_are_a_user_error(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "x")
    for content in (b"", b"\xff\xfe\x00", b"simulation,Omega_m,sigma_8\nLH_2,0.3\n", b"simulation,Omega_m,sigma_8\n"):
        (path / "parameters.csv").write_bytes(content)
        with pytest.raises(UserError, match=r"parameters\.csv"):
            read(path)


def test_folder_without_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no tables \(.csv, .parquet\)"):
        read(tmp_path, omega_m="none", sigma_8="none")
