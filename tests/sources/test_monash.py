from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.monash import frequency, read_monash

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Using `json`-module")
    from gluonts.dataset.repository._tsf_reader import TSFReader, frequency_converter

HEADER = """# Données
#
@relation Électricité
@attribute series_name string
@attribute start_timestamp date
@frequency half_hourly
@horizon 8
@missing true
@equallength false
@data
"""
LINES = ["T1:2010-07-01 00-30-00:207.06,?,173.042", "T2:2011-02-03 04-05-06:-1,2e3"]
WHOLE = HEADER + "\n".join(LINES) + "\n"
START = "@attribute start_timestamp date\n"


def save(path: Path, text: str) -> Path:
    path.write_text(text, encoding="latin-1")
    return path


def read(path: Path, text: str, **keys: str) -> list[Frame | BadFrame]:
    return list(read_monash(save(path / "x.tsf", text), keys))


def test_values_starts_and_frequency(tmp_path: Path) -> None:
    first, second = read(tmp_path, WHOLE)
    np.testing.assert_array_equal(first.sample.target, np.float32([[207.06, np.nan, 173.042]]))
    np.testing.assert_array_equal(second.sample.target, [[-1, 2000]])
    assert [frame.group for frame in (first, second)] == ["T1", "T2"]
    assert [frame.sample.freq for frame in (first, second)] == ["30min"] * 2
    times = [pd.Timestamp(frame.sample.start, unit="s") for frame in (first, second)]
    assert times == [pd.Timestamp("2010-07-01 00:30"), pd.Timestamp("2011-02-03 04:05:06")]


numbers = st.one_of(st.none(), st.floats(-1e30, 1e30, width=64), st.integers(-(10**6), 10**6))
names = st.text(st.characters(codec="latin-1", exclude_characters=":#@\r\n\x85\x1c\x1d\x1e\x0b\x0c"), max_size=9)


@given(
    series=st.lists(st.lists(numbers, min_size=1, max_size=9).filter(lambda row: set(row) != {None}), min_size=1),
    name=names.map(lambda text: f"T{text}Z"),
    start=st.datetimes(pd.Timestamp("1700-01-01"), pd.Timestamp("2200-01-01")),
)
def test_reads_what_gluonts_reads(tmp_path_factory: pytest.TempPathFactory, series: list, name: str, start) -> None:
    begin = start.strftime("%Y-%m-%d %H-%M-%S")
    rows = [f"{name}:{begin}:" + ",".join("?" if v is None else repr(v) for v in row) for row in series]
    path = save(tmp_path_factory.mktemp("x") / "x.tsf", HEADER + "\n".join(rows))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using `json`-module")
        meta, expected = TSFReader(path).read()
    for frame, row in zip(read_monash(path), expected, strict=True):
        np.testing.assert_array_equal(frame.sample.target[0], row["target"].astype(np.float32))
        assert frame.group == row["series_name"]
        assert frame.sample.start == (row["start_timestamp"] - pd.Timestamp(0).to_pydatetime()) // pd.Timedelta("1s")
        assert frame.sample.freq == pd.tseries.frequencies.to_offset(frequency_converter(meta.frequency)).freqstr


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        *[("4_seconds", "4s"), ("minutely", "min"), ("10_minutes", "10min"), ("half_hourly", "0.5h"), ("hourly", "h")],
        *[("daily", "D"), ("weekly", "W"), ("monthly", "MS"), ("quarterly", "QS"), ("yearly", "YS")],
    ],
)
def test_frequency_names_of_the_archive(tmp_path: Path, name: str, spelled: str) -> None:
    assert frequency(name, "x") == spelled
    (frame, _) = read(tmp_path, WHOLE.replace("half_hourly", name))
    assert frame.sample.target.shape == (1, 3)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("1750-01-01 00-00-00", "1750-01-01"),
        ("2010-07-01 00:30:00", "2010-07-01 00:30"),
        ("2010-07-01T00:30:00", "2010-07-01 00:30"),
        ("2010-07-01", "2010-07-01"),
        ("2010-07", "2010-07-01"),
        ("2010", "2010-01-01"),
    ],
)
def test_formats_of_dates(tmp_path: Path, text: str, start: str) -> None:
    (frame, _) = read(tmp_path, WHOLE.replace("2010-07-01 00-30-00", text))
    assert frame.sample.start == pd.Timestamp(start).timestamp()


def test_months_begin_on_their_first_day(tmp_path: Path) -> None:
    (frame, _) = read(tmp_path, WHOLE.replace("half_hourly", "monthly").replace("07-01 00", "07-31 00"))
    assert (frame.sample.freq, frame.sample.start) == ("MS", pd.Timestamp("2010-07-01").timestamp())


def test_series_without_start_or_name_and_other_attributes(tmp_path: Path) -> None:
    text = "@attribute state string\n@attribute size numeric\n@frequency daily\n@data\nNSW:3:1,2\n\n# more\nVIC:4.5:3\n"
    first, second = read(tmp_path, text)
    assert (first.group, second.group) == ("0", "1")
    assert first.sample.start == second.sample.start == 0
    assert (first.metadata, second.metadata) == ({"state": "NSW", "size": 3}, {"state": "VIC", "size": 4.5})
    first, second = read(tmp_path, text, item="state")
    assert (first.group, dict(first.metadata)) == ("NSW", {"size": 3})


def test_file_without_frequency_needs_one(tmp_path: Path) -> None:
    text = WHOLE.replace("@frequency half_hourly\n", "")
    with pytest.raises(UserError, match=r"x.tsf has no frequency; give it with --key freq=h"):
        read(tmp_path, text)
    assert [frame.sample.freq for frame in read(tmp_path, text, freq="Q")] == ["QS", "QS"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [("", "it has no values"), ("?,?", "all of its values are missing"), ("1,inf", "values is not finite")],
)
def test_unusable_series_names_file_item_and_line(tmp_path: Path, values: str, reason: str) -> None:
    *_, bad = read(tmp_path, f"{WHOLE}T3:2010-07-01 00-30-00:{values}\n")
    assert bad == BadFrame(f"series T3 (line 13 of {tmp_path / 'x.tsf'})", reason)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-1,2e3", "-1,two", r"series T2 \(line 12 of .*x.tsf\) has 'two' as value 2, which is no number"),
        ("-1,2e3", "-1,,3", r"series T2 \(line 12 of .* has '' as value 2"),
        (
            "T2:",
            "",
            r"line 12 of .*x.tsf has 1 attributes and then values, where the header has 2 \(series_name, start",
        ),
        ("T2:", "T2:hot:", "line 12 of .* has 3 attributes"),
        ("2011-02-03 04-05-06", "2011-02-30 04-05-06", r"series T2 \(line 12 .* starts at '2011-02-30 04-05-06'"),
        ("half_hourly", "half_hour", None),
        ("half_hourly", "hurly", "line 6 of .*x.tsf: unknown frequency 'hurly'; did you mean .*'hourly'"),
        ("half_hourly", "third_hourly", "line 6 of .*: unknown frequency 'third_hourly'"),
        ("@horizon 8", "@horizon soon", "line 7 of .*x.tsf is '@horizon soon'"),
        ("@missing true", "@missing 3", "line 8 of .*where @missing has to be true|false"),
        ("@attribute series_name string", "@attribute series_name", "line 4 of .* is not '@attribute NAME TYPE'"),
        (START, "@attribute series_name date\n", "line 5 of .* with a new name"),
        (START, "@attribute start_timestamp time\n", "line 5 of .* is not '@attribute NAME TYPE'"),
        ("@data", "data", "line 10 of .* is neither a comment nor a tag"),
        ("@data\n", "", "line 10 of .* is neither a comment nor a tag"),
        (START, "@attribute start_timestamp numeric\n", None),
    ],
)
def test_fault_names_file_and_line(tmp_path: Path, old: str, new: str, message: str | None) -> None:
    assert old in WHOLE
    if message is None:
        assert len(read(tmp_path, WHOLE.replace(old, new))) == 2
        return
    with pytest.raises(UserError, match=message):
        read(tmp_path, WHOLE.replace(old, new))


def test_attribute_that_is_not_its_type(tmp_path: Path) -> None:
    text = WHOLE.replace(START, START + "@attribute size numeric\n")
    text = re.sub(r"(T\d:.*):", r"\1:big:", text)
    with pytest.raises(UserError, match=r"series T1 \(line 12 of .* has size 'big', which is no number"):
        read(tmp_path, text)


def test_attribute_that_would_hide_the_frequency(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"series T1 \(line 11 of .* has a freq to keep, but that column is for"):
        read(tmp_path, WHOLE.replace("@attribute start_timestamp date", "@attribute freq string"))


def test_files_without_series_or_keys_without_attributes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no items; give a file"):
        read(tmp_path, HEADER)
    with pytest.raises(UserError, match="has no @data"):
        read(tmp_path, HEADER.replace("@data\n", ""))
    with pytest.raises(UserError, match="'name'; did you mean 'series_name'; name the right one with --key item=NAME"):
        read(tmp_path, WHOLE, item="name")


def test_import_leaves_out_what_cannot_be_used(tmp_path: Path) -> None:
    path = save(tmp_path / "x.tsf", WHOLE + "T3:2010-07-01 00-30-00:\n")
    command = ["import", str(path), "--format", "monash", "--out", str(tmp_path / "x.h5"), "--split", "train=1"]
    with pytest.raises(UserError, match=r"series T3 \(line 13 of .* cannot be used: it has no values"):
        main(command)
    assert not (tmp_path / "x.h5").exists()
    main([*command, "--skip-bad"])
    store = Store(tmp_path / "x.h5")
    assert store.groups == ["T1", "T2"]
    assert list(store.metadata("freq")) == ["30min"] * 2
    found = store.take(np.array([0]))
    np.testing.assert_array_equal(found.items["values"], np.float32([207.06, np.nan, 173.042]))
