from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scisci.cli_data import main
from scisci.contracts.errors import UserError
from scisci.data.store import Store
from scisci.sources.ett import read_ett
from scisci.sources.frames import BadFrame

COLUMNS = ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
HOURS = 20 * 30 * 24 + 100
rates = pytest.mark.parametrize("per_hour", [1, 4])


def table(per_hour: int = 1, hours: int = HOURS) -> pd.DataFrame:
    """As ETTh1.csv and ETTm1.csv are: an hour or 15 minutes apart, and longer than their borders."""
    times = pd.date_range("2016-07-01", periods=hours * per_hour, freq=f"{60 // per_hour}min")
    numbers = np.random.default_rng(0).normal(size=(len(times), 7)).round(3)
    return pd.DataFrame(numbers, columns=COLUMNS).assign(date=times)[["date", *COLUMNS]]


def save(path: Path, found: pd.DataFrame) -> Path:
    found.to_csv(path, index=False)
    return path


def official(found: pd.DataFrame, split: int, context: int, per_hour: int) -> pd.DataFrame:
    """The rows of a split by the borders of the published data loader, with its numbers written out."""
    month = 30 * 24 * per_hour
    first = [0, 12 * month - context, 12 * month + 4 * month - context]
    last = [12 * month, 12 * month + 4 * month, 12 * month + 8 * month]
    return found[first[split] : last[split]]


@rates
def test_splits_are_the_official_ones(tmp_path: Path, per_hour: int) -> None:
    found = table(per_hour)
    path = save(tmp_path / "ETT.csv", found)
    for number, split in enumerate(("train", "val", "test")):
        (frame,) = read_ett(path, {"split": split, "context": "96"})
        expected = official(found, number, 96, per_hour)
        np.testing.assert_array_equal(frame.sample.target, expected[COLUMNS].to_numpy().T.astype(np.float32))
        assert frame.sample.start == expected["date"].iloc[0].timestamp()
        assert frame.sample.freq == ("h" if per_hour == 1 else "15min")
    assert (len(official(found, 0, 0, 1)), len(official(found, 1, 0, 1))) == (8640, 2880)


@rates
def test_import_has_the_three_splits(tmp_path: Path, per_hour: int) -> None:
    path, out = save(tmp_path / "ETTm1.csv", table(per_hour)), tmp_path / "x.h5"
    main(["import", str(path), "--format", "ett", "--out", str(out), "--key", "target=OT", "--key", "covariates=HUFL"])
    store = Store(out)
    assert store.groups == ["ETTm1"]
    lengths = {}
    for split in ("train", "val", "test"):
        found = store.take(store.split(split).indices())
        assert (found.samples["channels"].tolist(), found.samples["known"].tolist()) == ([1], [1])
        lengths[split] = len(found.items["values"]) // 2
    assert lengths == {"train": 8640 * per_hour, "val": 2880 * per_hour + 512, "test": 2880 * per_hour + 512}


def test_whole_file_and_own_columns(tmp_path: Path) -> None:
    path = save(tmp_path / "x.csv", table(hours=50).rename(columns={"date": "time"}))
    (frame,) = read_ett(path, {"split": "none", "time": "time"})
    assert frame.sample.target.shape == (7, 50)


@pytest.mark.parametrize(
    ("found", "keys", "message"),
    [
        (table(hours=10000), {"split": "val"}, "x.csv has 10000 of the 11520 rows to the end of val"),
        (table().iloc[::2], {"split": "train"}, "x.csv has the frequency 2h, where ETT's borders are for hours"),
        (
            table(hours=9),
            {"split": "none", "time": "dat"},
            "unknown column of .*x.csv 'dat'; did you mean 'date'.*time=",
        ),
        (table(hours=9), {"split": "none", "target": "OIL"}, "unknown column of .*x.csv 'OIL'.*--key target=NAME"),
        (table(hours=9), {"split": "none", "time": "none"}, "cannot be read without time"),
        (table(hours=9), {"split": "tests"}, "unknown split of ETT 'tests'; did you mean 'test'"),
        (
            table(hours=9).assign(OT="high"),
            {"split": "none"},
            "row 1 of .*x.csv has 'high' under OT, which is no number",
        ),
    ],
)
def test_fault_is_an_error(tmp_path: Path, found: pd.DataFrame, keys: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(read_ett(save(tmp_path / "x.csv", found), keys))


def test_damaged_file_is_a_user_error(tmp_path: Path) -> None:
    path = save(tmp_path / "x.csv", table(hours=50))
    content = path.read_bytes()
    for damaged in (b"", content[:3], content[:-30], b"\xff\xfe" + content):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"x\.csv"):
            list(read_ett(path, {"split": "none"}))


def test_hour_that_is_missing(tmp_path: Path) -> None:
    path = save(tmp_path / "x.csv", table().drop(index=7))
    (bad,) = read_ett(path, {"split": "train"})
    assert isinstance(bad, BadFrame)
    assert bad.where == f"train of {path}"
    assert "irregular: 2016-07-01 08:00:00 in row 8 comes after 2016-07-01 06:00:00" in bad.reason
    (frame,) = read_ett(path, {"split": "train", "freq": "h"})
    assert np.isnan(frame.sample.target).sum(axis=1).tolist() == [1] * 7
    assert np.isnan(frame.sample.target[:, 7]).all()
