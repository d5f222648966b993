from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.series_tables import read_long, read_wide

kinds = pytest.mark.parametrize("suffix", [".csv", ".parquet"])
FREQS = ["h", "15min", "D", "W-MON", "MS", "ME", "BME", "QS", "YS-JUL", "B", "4s"]


def series(item: str, length: int = 40, freq: str = "h", start: str = "2020-01-06", **more: Any) -> pd.DataFrame:
    rng = np.random.default_rng([ord(letter) for letter in item])
    times = pd.date_range(start, periods=length, freq=freq)
    return pd.DataFrame({"item_id": item, "timestamp": times, "target": rng.normal(size=length)} | more)


def long(*items: str, **more: Any) -> pd.DataFrame:
    return pd.concat([series(item, **more) for item in items], ignore_index=True)


def wide(length: int = 40, freq: str = "h") -> pd.DataFrame:
    return (
        long("a", "b", "c", length=length, freq=freq)
        .pivot(index="timestamp", columns="item_id", values="target")
        .reset_index()
    )


def changed(table: pd.DataFrame, row: int, name: str, value: Any) -> pd.DataFrame:
    table = table.astype({name: str}) if isinstance(value, str) else table.copy()
    table.loc[row, name] = value
    return table


def save(table: pd.DataFrame, path: Path) -> Path:
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path, index=False)
    return path


def read(table: pd.DataFrame, path: Path, **keys: str) -> list[Frame | BadFrame]:
    return list((read_long if "item_id" in table else read_wide)(save(table, path), keys))


@kinds
@pytest.mark.parametrize("freq", FREQS)
def test_long_table_is_divided_where_the_series_changes(tmp_path: Path, suffix: str, freq: str) -> None:
    table = long("b", "a", "7", freq=freq)
    frames = read(table, tmp_path / f"x{suffix}")
    assert [frame.group for frame in frames] == ["b", "a", "7"]
    for frame in frames:
        expected = table[table["item_id"] == frame.group]
        np.testing.assert_array_equal(frame.sample.target[0], expected["target"].astype(np.float32))
        first = expected["timestamp"].iloc[0]
        month = freq in ("ME", "BME")
        assert frame.sample.start == (first.replace(day=1) if month else first).timestamp()
        assert frame.sample.freq == ("MS" if month else freq)


@kinds
@pytest.mark.parametrize("freq", FREQS)
def test_columns_of_a_wide_table_are_series_or_channels(tmp_path: Path, suffix: str, freq: str) -> None:
    table = wide(freq=freq)
    apart = read(table, tmp_path / f"x{suffix}")
    (together,) = read(table, tmp_path / f"x{suffix}", item="sensors")
    assert [frame.group for frame in (*apart, together)] == ["a", "b", "c", "sensors"]
    expected = table[["a", "b", "c"]].to_numpy().T.astype(np.float32)
    np.testing.assert_array_equal(together.sample.target, expected)
    np.testing.assert_array_equal(np.concatenate([frame.sample.target for frame in apart]), expected)
    assert len({(frame.sample.start, frame.sample.freq) for frame in (*apart, together)}) == 1


@kinds
@given(
    rows=st.lists(st.one_of(st.none(), st.floats(-(2.0**99), 2.0**99, width=32)), min_size=3, max_size=30),
    left_out=st.sets(st.integers(0, 29)),
)
def test_left_out_and_empty_values_are_missing(
    tmp_path_factory: Any, suffix: str, rows: list[float | None], left_out: set[int]
) -> None:
    values = np.array([np.nan if row is None else row for row in rows])
    table = series("a", len(rows)).assign(target=values)
    kept = table.drop(index=[k for k in left_out if k < len(rows)])
    path = tmp_path_factory.mktemp("x") / f"x{suffix}"
    if not len(kept):
        with pytest.raises(UserError, match="has no rows"):
            read(kept, path, freq="h")
        return
    (frame,) = read(kept, path, freq="h")
    grid = kept.set_index("timestamp")["target"].asfreq("h")  # pandas lays it out with NaN
    if grid.isna().all():
        assert frame == BadFrame(f"series a of {path}", "all of its values are missing")
        return
    np.testing.assert_array_equal(frame.sample.target[0], grid.to_numpy().astype(np.float32))
    assert frame.sample.start == grid.index[0].timestamp()


def test_each_column_lasts_from_its_first_value_to_its_last(tmp_path: Path) -> None:
    table = wide(10)
    table.loc[:3, "b"] = table.loc[8:, "b"] = table.loc[5, "b"] = np.nan
    table["c"] = np.nan
    a, b, c = read(table, tmp_path / "x.csv", covariates="a")[:1] + read(table, tmp_path / "x.csv", covariates="a")
    assert a.group == b.group == "b"
    np.testing.assert_array_equal(b.sample.target[0], np.float32(table["b"][4:8]))
    np.testing.assert_array_equal(b.sample.covariates[0], np.float32(table["a"][4:8]))
    assert b.sample.start == table["timestamp"][4].timestamp()
    assert c == BadFrame(f"series c of {tmp_path / 'x.csv'}", "it has no values")


@kinds
def test_columns_times_and_metadata_by_key(tmp_path: Path, suffix: str) -> None:
    table = long("a", "b", y=1.5, x=2, city="Rome", height=3.5).rename(columns={"item_id": "id", "timestamp": "when"})
    table["when"] = table["when"].dt.strftime("%d/%m/%Y %H:%M")
    path, out = save(table, tmp_path / f"x{suffix}"), tmp_path / "x.h5"
    keys = ["item=id", "time=when", "target=target,y", "covariates=x", "keep=city,height", "time_format=%d/%m/%Y %H:%M"]
    options = [word for key in keys for word in ("--key", key)]
    main(["import", str(path), "--format", "series-long", "--out", str(out), *options, "--split", "train=1"])
    store = Store(out)
    assert store.groups == ["a", "b"]
    assert [list(store.metadata(name)) for name in ("city", "height", "freq")] == [["Rome"] * 2, [3.5] * 2, ["h"] * 2]
    found = store.take(np.array([0]))
    stored = found.items["values"].reshape(3, 40)
    np.testing.assert_array_equal(stored[0], np.float32(table["target"][:40]))
    assert (set(stored[1]), set(stored[2])) == ({1.5}, {2})
    assert found.samples["start"][0] == pd.Timestamp("2020-01-06").timestamp()


def test_import_of_a_wide_table(tmp_path: Path) -> None:
    path, out = save(wide(), tmp_path / "x.csv"), tmp_path / "x.h5"
    main(["import", str(path), "--format", "series-wide", "--out", str(out), "--key", "item=x", "--split", "train=1"])
    assert Store(out).take(np.array([0])).samples["channels"].tolist() == [3]


@kinds
def test_series_longer_than_what_is_read_at_once(tmp_path: Path, suffix: str) -> None:
    table = long("a", "b", length=60_000, freq="s")
    frames = read(table, tmp_path / f"x{suffix}")
    assert [frame.sample.target.shape for frame in frames] == [(1, 60_000)] * 2
    np.testing.assert_array_equal(frames[1].sample.target[0], np.float32(table["target"][60_000:]))


def test_one_series_without_names_and_times_of_zones(tmp_path: Path) -> None:
    table = series("a").assign(timestamp=lambda t: t["timestamp"].dt.tz_localize("Asia/Kolkata"))
    for suffix in (".csv", ".parquet"):
        (frame,) = read(table, tmp_path / f"x{suffix}", item="none")
        assert frame.group == "x"
        assert frame.sample.start == pd.Timestamp("2020-01-06").timestamp() - 5.5 * 3600


def test_short_series_have_the_frequency_of_those_before(tmp_path: Path) -> None:
    table = pd.concat([series("a"), series("b", 2), series("c", 1)])
    assert [frame.sample.target.shape[1] for frame in read(table, tmp_path / "x.csv")] == [40, 2, 1]
    bad, *_ = read(pd.concat([series("b", 2), series("a")]), tmp_path / "x.csv")
    assert "2 times are too few to tell its frequency: --key freq=h" in bad.reason


def moved(row: int, to: str) -> pd.DataFrame:
    return changed(long("z", "a"), 40 + row, "timestamp", pd.Timestamp(to))


@kinds
@pytest.mark.parametrize(
    ("table", "keys", "reason"),
    [
        (moved(7, "2020-01-06 06:00"), {}, "the time 2020-01-06 06:00:00 in row 48 comes twice"),
        (moved(7, "2020-01-06 03:00"), {}, "the time 2020-01-06 03:00:00 in row 48 is before that of the row above"),
        (moved(7, "2020-01-06 07:30"), {}, "the time 2020-01-06 07:30:00 in row 48 is between steps of h"),
        (moved(7, "2020-01-06 07:30"), {"freq": "h"}, "the time 2020-01-06 07:30:00 in row 48 is between steps of h"),
        (
            moved(39, "2020-01-09"),
            {},
            "irregular: 2020-01-09 00:00:00 in row 80 comes after 2020-01-07 14:00:00: --key",
        ),
        (moved(39, "2024-01-09"), {"freq": "h"}, "it has 40 values in 35137 steps of h; is that its frequency?"),
        (changed(long("z", "a"), 47, "target", np.inf), {}, "values is not finite"),
    ],
)
def test_unusable_series_names_file_item_and_row(
    tmp_path: Path, table: pd.DataFrame, suffix: str, keys: dict[str, str], reason: str
) -> None:
    path = tmp_path / f"x{suffix}"
    good, bad = read(table, path, **keys)
    assert isinstance(good, Frame)
    assert bad == BadFrame(f"series a of {path}", bad.reason)
    assert reason in bad.reason


def test_steps_that_are_given_may_be_left_out_regularly(tmp_path: Path) -> None:
    (frame,) = read(long("a").iloc[::2], tmp_path / "x.csv", freq="h")
    assert (frame.sample.freq, frame.sample.target.shape) == ("h", (1, 39))
    assert np.isnan(frame.sample.target[0, 1::2]).all()
    (bad,) = read(long("a", freq="D"), tmp_path / "x.csv", freq="h")
    assert bad.reason == "it has 40 values in 937 steps of h; is that its frequency?"
    (bad,) = read(long("a"), tmp_path / "x.csv", freq="D")
    assert bad.reason == "the time 2020-01-06 01:00:00 in row 2 is between steps of D"


def test_short_columns_have_the_frequency_of_the_table(tmp_path: Path) -> None:
    table = wide(10)
    table.loc[2:, "a"] = np.nan
    assert [frame.sample.freq for frame in read(table, tmp_path / "x.csv")] == ["h"] * 3


def test_irregular_first_series(tmp_path: Path) -> None:
    (bad,) = read(long("a").drop(index=4), tmp_path / "x.csv")
    assert "irregular: 2020-01-06 05:00:00 in row 5 comes after 2020-01-06 03:00:00: --key freq=h" in bad.reason


@kinds
@pytest.mark.parametrize(
    ("table", "keys", "message"),
    [
        (long("a").rename(columns={"target": "traget"}), {}, "'target'; did you mean 'traget'; .*--key target=NAME"),
        (long("a").drop(columns="timestamp"), {}, "unknown column of .*x.* 'timestamp'; .*--key time=NAME"),
        (long("a"), {"covariates": "price"}, "'price'.*--key covariates=NAME"),
        (long("a"), {"keep": "target"}, "series a of .* has several values of target"),
        (long("a"), {"target": "none"}, "cannot be read without target"),
        (long("a", "b", "a"), {}, "rows of the series a in several places; sort it by item_id"),
        (changed(long("a"), 30, "target", "high"), {}, "row 31 of .*x.* has 'high' under target, which is no number"),
        (changed(long("a"), 30, "item_id", None), {}, "row 31 of .*x.* has None under item_id"),
        (pd.concat([series("a"), series("b", freq="D")]), {}, "series b .*has the frequency D where those before"),
        (
            long("a").assign(timestamp="soon"),
            {},
            "row 1 of .* has 'soon' under timestamp, which is no time in ISO 8601",
        ),
        (long("a").assign(timestamp="1/2/2020"), {"time_format": "%Y"}, "no time in the format %Y"),
        (long("a")[:0], {}, "x.* has no rows"),
        (wide()[:0], {"item": "z"}, "x.* has no rows"),
        (wide().rename(columns={"timestamp": "time"}), {}, "'timestamp'; did you mean 'time'; .*--key time=NAME"),
    ],
)
def test_fault_of_a_table_is_an_error(
    tmp_path: Path, table: pd.DataFrame, suffix: str, keys: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(table, tmp_path / f"x{suffix}", **keys)


@kinds
def test_damaged_table_is_a_user_error(tmp_path: Path, suffix: str) -> None:
    path = save(long("a", "b"), tmp_path / f"x{suffix}")
    content = path.read_bytes()
    for damaged in (b"", content[:3], content[: content.rindex(b",")], content[:-30], b"\xff\xfe" + content):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="x"):
            list(read_long(path))


def test_numbers_with_spaces_and_marks_of_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = [f"a,2020-01-0{day},{value}" for day, value in enumerate(("1.5", " 2 ", "NA", "", "?", "-1e3"), 1)]
    path.write_text("\n".join(["item_id,timestamp,target", *rows]))
    (frame,) = read_long(path)
    np.testing.assert_array_equal(frame.sample.target, [[1.5, 2, np.nan, np.nan, np.nan, -1000]])
