from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.lotsa import read_lotsa

ONE = {"item_id": pa.string(), "start": pa.timestamp("s"), "freq": pa.string(), "target": pa.list_(pa.float32())}
MANY = ONE | {"target": pa.list_(pa.list_(pa.float32())), "past_feat_dynamic_real": pa.list_(pa.list_(pa.float32()))}
START = datetime(2012, 1, 1, 6)
finite = st.floats(-(2.0**99), 2.0**99, width=32)


def row(item: str = "a", target: Any = (1.0, 2.0), freq: str = "H", **more: Any) -> dict[str, Any]:
    return {"item_id": item, "start": START, "freq": freq, "target": target, **more}


def saved(path: Path, rows: list[dict[str, Any]], columns: dict[str, pa.DataType] = ONE, shards: int = 1) -> Path:
    """A folder as save_to_disk writes it: the Arrow stream format, a state and a description."""
    path.mkdir()
    schema = pa.schema(columns)
    names = [f"data-{k:05d}-of-{shards:05d}.arrow" for k in range(shards)]
    for k, name in enumerate(names):
        with pa.OSFile(str(path / name), "wb") as file, pa.ipc.new_stream(file, schema) as sink:
            for entry in rows[k::shards]:
                sink.write_batch(pa.RecordBatch.from_pylist([entry], schema=schema))
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "x", "_split": "train"}
    (path / "state.json").write_text(json.dumps(state))
    features = {name: {"_type": "Value"} for name in columns}
    (path / "dataset_info.json").write_text(json.dumps({"features": features, "citation": ""}))
    return path


def read(path: Path, **keys: str) -> list[Frame | BadFrame]:
    return list(read_lotsa(path, keys))


def test_series_of_one_channel(tmp_path: Path) -> None:
    rows = [row("a", [1.0, None, 3.0]), row("b", [float("nan"), 5.0])]
    first, second = read(saved(tmp_path / "x", rows))
    np.testing.assert_array_equal(first.sample.target, [[1, np.nan, 3]])
    np.testing.assert_array_equal(second.sample.target, [[np.nan, 5]])
    assert (first.group, first.sample.freq, first.sample.covariates) == ("a", "h", None)
    assert first.sample.start == (START - datetime(1970, 1, 1)).total_seconds()


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(0, 3)).flatmap(
            lambda shape: st.tuples(
                st.lists(st.lists(finite, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]),
                st.lists(st.lists(finite, min_size=shape[1], max_size=shape[1]), min_size=shape[2], max_size=shape[2]),
            )
        ),
        min_size=1,
        max_size=5,
    ),
    shards=st.integers(1, 3),
)
def test_any_series_of_channels_is_read_back(tmp_path_factory: Any, rows: list[Any], shards: int) -> None:
    entries = [row(str(k), y, past_feat_dynamic_real=x) for k, (y, x) in enumerate(rows)]
    frames = read(saved(tmp_path_factory.mktemp("x") / "x", entries, MANY, min(shards, len(rows))))
    assert len(frames) == len(rows)
    for frame in frames:
        target, covariates = rows[int(frame.group)]
        np.testing.assert_array_equal(frame.sample.target, np.float32(target))
        if covariates:
            np.testing.assert_array_equal(frame.sample.covariates, np.float32(covariates))
        else:
            assert frame.sample.covariates is None


def test_import_streams_shards_into_a_store(tmp_path: Path) -> None:
    rows = [row(f"s{k}", [float(k), k + 0.5], kind="load") for k in range(10)]
    path, out = saved(tmp_path / "x", rows, ONE | {"kind": pa.string()}, shards=3), tmp_path / "x.h5"
    main(["import", str(path), "--format", "lotsa", "--out", str(out), "--key", "keep=kind"])
    store = Store(out)
    assert sorted(store.groups) == [f"s{k}" for k in range(10)]
    assert set(store.metadata("kind")) == {"load"}
    found = store.take(np.arange(10))
    expected = [float(name[1:]) for name in store.groups]
    np.testing.assert_array_equal(found.items["values"].reshape(10, 2)[:, 0], expected)


def test_unusable_series_names_file_item_and_row(tmp_path: Path) -> None:
    good, bad, worse = read(saved(tmp_path / "x", [row(), row("b", []), row("c", [None])]))
    file = tmp_path / "x" / "data-00000-of-00001.arrow"
    assert isinstance(good, Frame)
    assert bad == BadFrame(f"series b (row 2 of {file})", "it has no values")
    assert worse == BadFrame(f"series c (row 3 of {file})", "all of its values are missing")


def remove(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda path: (path / name).write_text(text) and None


def cut(size: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path / "data-00000-of-00001.arrow"
        file.write_bytes(file.read_bytes()[:size])

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("dataset_info.json"), "x has no dataset_info.json, which has its schema"),
        (remove("state.json"), "x has no state.json"),
        (remove("data-00000-of-00001.arrow"), "x lacks data-00000-of-00001.arrow, which state.json lists"),
        (write("dataset_info.json", "{}"), "x has no schema: dataset_info.json has no features"),
        (write("dataset_info.json", "{"), "dataset_info.json is no JSON object"),
        (write("state.json", "{}"), "x has no schema: state.json lists no data files"),
        (write("dataset_info.json", '{"features": {"price": {}}}'), "arrow has no column price, which dataset_info"),
        (write("dataset_dict.json", '{"splits": ["train", "test"]}'), "x holds several data sets; .*: train, test"),
        (cut(0), r"data-00000-of-00001.arrow has no Arrow schema"),
        (cut(20), r"data-00000-of-00001.arrow has no Arrow schema"),
        (cut(700), r"x.* cannot be read"),
    ],
)
def test_damaged_folder(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = saved(tmp_path / "x", [row()])
    damage(path)
    with pytest.raises(UserError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        ([row(), row("b", freq="D")], {}, r"series b \(row 2 .* has the frequency D where those before it have h"),
        ([row(freq="hourly")], {}, "unknown frequency 'hourly'"),
        ([row()], {"target": "y"}, r"unknown column of series a \(row 1 .*'y'.*--key target=NAME"),
        ([row() | {"start": None}], {}, r"series a .* starts at 'None', which is no time"),
        ([row() | {"target": None}], {}, r"series a \(row 1 .* has no numbers"),
        ([], {}, "x has no items"),
    ],
)
def test_fault_names_item_and_row(tmp_path: Path, rows: list[Any], keys: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(saved(tmp_path / "x", rows), **keys)


def test_columns_of_no_numbers(tmp_path: Path) -> None:
    columns = ONE | {"target": pa.list_(pa.string())}
    with pytest.raises(UserError, match=r"series a \(row 1 .* has no numbers .* under target .*'one'"):
        read(saved(tmp_path / "x", [row(target=["1", "one"])], columns))


def test_file_instead_of_a_folder(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", [row()])
    with pytest.raises(UserError, match="is a file; give the folder"):
        read(path / "state.json")
