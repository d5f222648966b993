from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.frequencies import period
from scisci.data.samples import SeriesSample
from scisci.data.store import Store
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.gluonts import read_gluonts

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Using `json`-module")
    from gluonts.dataset.arrow import ArrowWriter, ParquetWriter
    from gluonts.dataset.common import FileDataset, MetaData, TrainDatasets
    from gluonts.dataset.jsonl import JsonLinesWriter

HORIZON = 24
WRITERS = {
    "json.gz": JsonLinesWriter(),
    "json": JsonLinesWriter(use_gzip=False),
    "arrow": ArrowWriter(suffix=".arrow", compression="lz4"),
    "arrow stream": ArrowWriter(suffix=".arrow", stream=True),
    "arrow of lists": ArrowWriter(suffix=".feather", flatten_arrays=False),
    "parquet": ParquetWriter(),
}
written = pytest.mark.parametrize("writer", list(WRITERS.values()), ids=list(WRITERS))
numbers = st.floats(-(2.0**99), 2.0**99, width=32)
values = arrays(np.float32, array_shapes(min_dims=1, max_dims=2, max_side=9), elements=numbers)


def entries(extra: int = 0, count: int = 3, freq: str = "h") -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(count, 2, 700)).astype("f4")
    whole[:, 1, 5] = np.nan
    return [
        {
            "start": pd.Period("2020-01-31 12:00", freq) + k,
            "target": whole[k, :, : 600 + extra],
            "item_id": f"s{k}",
            "feat_dynamic_real": -whole[k, :1],
            "past_feat_dynamic_real": 2 * whole[k, :, : 600 + extra],
            "feat_static_cat": np.array([k]),
            "feat_static_real": np.array([0.5, k]),
        }
        for k in range(count)
    ]


def saved(path: Path, writer: Any, **meta: Any) -> Path:
    """A data set as GluonTS saves it."""
    metadata = MetaData(**({"freq": "H", "prediction_length": HORIZON} | meta))
    TrainDatasets(metadata, entries(), entries(HORIZON)).save(str(path), writer)
    return path


def read(path: Path, **keys: str) -> list[Frame | BadFrame]:
    return list(read_gluonts(path, keys))


def sample(frame: Frame | BadFrame) -> SeriesSample:
    assert isinstance(frame, Frame), frame
    assert isinstance(frame.sample, SeriesSample)
    return frame.sample


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@written
def test_reads_what_gluonts_reads(tmp_path: Path, writer: Any) -> None:
    path = saved(tmp_path / "x", writer)
    expected = list(FileDataset(path / "train", freq="h", one_dim_target=False))
    frames = read(path / "train")
    assert [frame.group for frame in frames] == ["s0", "s1", "s2"]
    for frame, entry in zip(frames, expected, strict=True):
        found = sample(frame)
        np.testing.assert_array_equal(found.target, entry["target"])
        assert found.start == entry["start"].start_time.timestamp()
        assert found.freq == "h"
        known = [entry["feat_dynamic_real"][:, :600], entry["past_feat_dynamic_real"]]
        np.testing.assert_array_equal(found.covariates, np.concatenate(known))


@pytest.mark.parametrize("freq", ["15min", "D", "W-SUN", "M", "Q-DEC", "Q-NOV", "Y-DEC"])
@written
def test_starts_of_every_frequency(tmp_path: Path, freq: str, writer: Any) -> None:
    whole = entries(freq=freq)
    writer.write_to_folder(whole, tmp_path)
    for frame, entry in zip(read(tmp_path, freq=freq), whole, strict=True):
        found = sample(frame)
        assert pd.Timestamp(found.start, unit="s") == entry["start"].start_time
        assert (
            pd.Period(pd.Timestamp(found.start, unit="s"), freq=period(found.freq)).start_time
            == entry["start"].start_time
        )


@written
@given(target=values, missing=st.randoms(use_true_random=False))
def test_any_target_is_read_back(tmp_path_factory: Any, writer: Any, target: np.ndarray, missing: Any) -> None:
    target = np.where([[missing.random() < 0.3] for _ in target] if target.ndim > 1 else False, np.nan, target)
    path = tmp_path_factory.mktemp("x")
    writer.write_to_folder([{"start": pd.Period("2020", "D"), "target": target, "item_id": "a"}], path)
    (frame,) = read(path, freq="D")
    if np.isnan(target).all():
        assert isinstance(frame, BadFrame)
        assert "all of its values are missing" in frame.reason
    else:
        np.testing.assert_array_equal(sample(frame).target, np.atleast_2d(target).astype(np.float32))


def test_import_of_a_saved_data_set_has_its_splits(tmp_path: Path) -> None:
    path, out = saved(tmp_path / "x", WRITERS["json.gz"]), tmp_path / "x.h5"
    main(["import", str(path), "--format", "gluonts", "--out", str(out), "--key", "keep=feat_static_cat"])
    store = Store(out)
    train, test = (store.take(store.split(split).indices()) for split in ("train", "test"))
    assert set(store.metadata("freq")) == {"h"}
    assert sorted(store.metadata("feat_static_cat")) == [0, 0, 1, 1, 2, 2]
    assert sorted(train.samples["channels"]) == [2, 2, 2]
    # A series of test: 512 steps of context, then the horizon, which is not in train.
    whole = {entry["item_id"]: entry for entry in entries(HORIZON)}
    for k, group in enumerate(test.samples["group"].tolist()):
        entry = whole[store.groups[group]]
        stored = test.items["values"][test.offsets[k] : test.offsets[k + 1]].reshape(5, 512 + HORIZON)
        np.testing.assert_array_equal(stored[:2], entry["target"][:, 600 - 512 :])
        np.testing.assert_array_equal(stored[2:3], entry["feat_dynamic_real"][:, 600 - 512 : 600 + HORIZON])
        assert test.samples["start"][k] == (entry["start"] + 88).start_time.timestamp()


def test_series_of_test_are_cut_as_asked(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", WRITERS["arrow"], prediction_length=None)
    with pytest.raises(UserError, match=r"metadata.json has no prediction_length.*--key horizon=STEPS"):
        read(path, split="test")
    found = sample(read(path, split="test", horizon="10", context="5")[0])
    np.testing.assert_array_equal(found.target, entries(HORIZON)[0]["target"][:, -15:])
    assert sample(read(path, split="test", horizon="10", context="5000")[0]).target.shape == (2, 624)
    with pytest.raises(UserError, match="context=many is not a whole number"):
        read(path, split="test", horizon="10", context="many")


def test_names_by_key_and_none(tmp_path: Path) -> None:
    row = {"begin": "2020-01-01", "y": [1, None, "NaN", 4], "x": [[0.5] * 6], "id": 7}
    path = lines(tmp_path / "x.jsonl", row, row | {"id": 8})
    keys = {"start": "begin", "target": "y", "freq": "D"}
    first, second = read(path, **keys, item="id", covariates="x")
    assert (first.group, second.group) == ("7", "8")
    np.testing.assert_array_equal(sample(first).target, [[1, np.nan, np.nan, 4]])
    assert sample(first).covariates.tolist() == [[0.5] * 4]
    first, second = read(path, **keys, covariates="none")
    assert (first.group, second.group) == ("0", "1")
    assert sample(first).covariates is None


GOOD = {"start": "2020-01-01", "target": [1.0, 2.0], "item_id": "a"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD | {"target": []}, "it has no values"),
        (GOOD | {"target": [None, "nan"]}, "all of its values are missing"),
        (GOOD | {"target": [1, "Infinity"]}, "values is not finite"),
        (GOOD | {"target": [1, 1e300]}, "values is not finite"),
        (GOOD | {"feat_dynamic_real": [[1]]}, "its covariates end after 1 of 2 times"),
    ],
)
def test_unusable_series_names_file_item_and_line(tmp_path: Path, row: Any, reason: str) -> None:
    path = lines(tmp_path / "x.json", GOOD, row, GOOD)
    good, bad, last = read(path, freq="D")
    assert bad == BadFrame(f"series a (line 2 of {path})", reason)
    assert isinstance(good, Frame)
    assert isinstance(last, Frame)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"start": "2020"', "line 2 of .*x.json is no JSON"),
        ("[1, 2]", "line 2 of .*x.json is no JSON object"),
        (GOOD | {"target": [1, "one"]}, r"series a \(line 2 of .*x.json\) has no numbers .* under target .*'one'"),
        (GOOD | {"target": [[1, 2], [3]]}, r"series a \(line 2 .* has no numbers of one channel or several"),
        (GOOD | {"target": 3}, "has no numbers of one channel or several"),
        (GOOD | {"target": [[[3]]]}, "has no numbers of one channel or several"),
        (GOOD | {"start": "soon"}, r"series a \(line 2 .* starts at 'soon', which is no time"),
        (GOOD | {"freq": "D"}, r"series a \(line 2 .* has the frequency D where --key freq says h"),
        (GOOD | {"freq": "hours"}, "unknown frequency 'hours'"),
        ({"start": "2020", "traget": [1]}, r"column of series 1 \(line 2 .*'target'; did you mean .*'traget'; name"),
        ({"target": [1], "item_id": "b"}, r"series b \(line 2 .*'start'.*--key start=NAME"),
    ],
)
def test_fault_names_file_item_and_line(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(lines(tmp_path / "x.json", GOOD, row), freq="h")


def test_mixed_frequencies_without_any_given(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.json", GOOD | {"freq": "W-MON"}, GOOD | {"freq": "W-SUN"}, GOOD | {"freq": "M"})
    frames = read_gluonts(path, {})
    assert [sample(next(iter(frames))).freq for _ in range(2)] == ["W-WED"] * 2  # 2020-01-01 was a Wednesday
    with pytest.raises(UserError, match=r"line 3 .* has the frequency MS where those before it have W-MON"):
        next(iter(frames))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "series a .line 1 .* has no frequency; give it with --key freq=h"),
        ({"freq": "D", "covariates": "price"}, "unknown column .*'price'.*--key covariates=NAME"),
        ({"freq": "D", "item": "name"}, "unknown column .*'name'.*--key item=NAME"),
        ({"freq": "D", "keep": "target"}, "has no single number or word under target"),
        ({"freq": "D", "target": "none"}, "cannot be read without target"),
        ({"freq": "D", "tagret": "y"}, "unknown label in --key 'tagret'; did you mean .*'target'"),
    ],
)
def test_fault_of_keys(tmp_path: Path, keys: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(lines(tmp_path / "x.json", GOOD), **keys)


@written
def test_damaged_file_is_a_user_error(tmp_path: Path, writer: Any) -> None:
    path = saved(tmp_path / "x", writer)
    (file,) = (path / "train").iterdir()
    content = file.read_bytes()
    for cut in (0, 3, 100, len(content) // 2, len(content) - 30):
        file.write_bytes(content[:cut])
        with pytest.raises(UserError, match="train"):
            read(path / "train")
    file.unlink()
    with pytest.raises(UserError, match=r"train has no files of series \(.json"):
        read(path / "train")


def test_arrow_schema_says_the_frequency(tmp_path: Path) -> None:
    writer = ArrowWriter(suffix=".arrow", metadata={"freq": "30T"})
    writer.write_to_folder(entries(), tmp_path)
    assert sample(read(tmp_path)[0]).freq == "30min"


def test_gaps_and_times_of_arrow(tmp_path: Path) -> None:
    start = pa.array([1_580_000_000, 1_590_000_000], pa.timestamp("s", "Europe/Berlin"))
    target = pa.array([[1.0, None, 3.0], [4.0]], pa.large_list(pa.float64()))
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file:
        table = pa.table({"start": start, "target": target})
        with pa.ipc.new_file(file, table.schema) as sink:
            sink.write_table(table)
    first, second = read(tmp_path / "x.arrow", freq="min")
    np.testing.assert_array_equal(sample(first).target, [[1, np.nan, 3]])
    assert (sample(first).start, sample(second).start) == (1_580_000_000, 1_590_000_000)
    assert (first.group, second.group) == ("0", "1")


def test_lines_stream(tmp_path: Path) -> None:
    path = tmp_path / "x.json.gz"
    with gzip.open(path, "wt") as file:
        file.write(f"{json.dumps(GOOD)}\n" * 2 + "broken")
    frames = iter(read_gluonts(path, {"freq": "D"}))
    assert [sample(next(frames)).target.tolist() for _ in range(2)] == [[[1, 2]]] * 2
    with pytest.raises(UserError, match="line 3"):
        next(frames)
