"""Rows of tables of time series, CSV or Parquet: some at a time, as times, numbers and words."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from scisci.contracts.errors import UserError
from scisci.sources.labels import KEEP
from scisci.sources.series import column

MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"]


@dataclass
class Rows:
    """Some rows of a table: times in microseconds, numbers, and text as it is; `first` is the number of their first."""

    first: int
    times: np.ndarray
    numbers: np.ndarray
    """[columns, rows]"""
    text: dict[str, np.ndarray]

    def __getitem__(self, rows: slice) -> Rows:
        text = {name: values[rows] for name, values in self.text.items()}
        return Rows(self.first + (rows.start or 0), self.times[rows], self.numbers[:, rows], text)


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows one after the other."""
    times = np.concatenate([part.times for part in parts])
    text = {name: np.concatenate([part.text[name] for part in parts]) for name in parts[0].text}
    return Rows(parts[0].first, times, np.concatenate([part.numbers for part in parts], axis=1), text)


def columns(path: Path) -> list[str]:
    """The columns of a table."""
    if path.suffix == ".parquet":
        return list(parquet.ParquetFile(path).schema_arrow.names)
    with path.open(newline="", encoding="utf-8") as text:
        return next(csv.reader(text), [])


def table_rows(path: Path, wanted: Mapping[str, list[str]], time_format: str | None) -> Iterator[Rows]:
    """The columns of each label, some rows at a time; `UserError` names column and row of what cannot be read."""
    found, first = columns(path), 1
    for label, names in wanted.items():
        for name in names:
            column(name, label, found, str(path))
    (time,), text = wanted["time"], [*wanted.get("item", []), *wanted.get(KEEP, [])]
    numbers = [*wanted["target"], *wanted["covariates"]]
    for batch in _batches(path, list(dict.fromkeys([time, *text, *numbers]))):
        reader = _Columns(batch, first, path)
        values = np.array([reader.numbers(name) for name in numbers]).reshape(len(numbers), len(batch))
        yield Rows(first, reader.times(time, time_format), values, {name: reader.words(name) for name in text})
        first += len(batch)
    if first == 1:
        raise UserError(f"{path} has no rows; give a table with at least one")


@dataclass
class _Columns:
    """Converts the columns of some rows, the first of which has the number `first`."""

    batch: pa.RecordBatch
    first: int
    path: Path

    def numbers(self, name: str) -> np.ndarray:
        """[rows] float64, NaN where there is none."""
        values = self.batch[name]
        try:
            return values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            found = pd.to_numeric(values.to_pandas(), errors="coerce").to_numpy(np.float64)
        self._check(name, ~np.isnan(found) | ~self._there(name), "which is no number")
        return found

    def times(self, name: str, written: str | None) -> np.ndarray:
        """[rows] microseconds since 1970, UTC."""
        values, there = self.batch[name], self._there(name)
        if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
            found = values.cast(pa.timestamp("us", getattr(values.type, "tz", None)), safe=False)
            found = found.cast(pa.int64()).to_numpy(zero_copy_only=False)
        else:
            text = pd.Series(values.cast(pa.string()).to_numpy(zero_copy_only=False), dtype=object)
            stamps = pd.to_datetime(text, format=written or "ISO8601", utc=True, errors="coerce")
            found, there = stamps.dt.as_unit("us").astype("int64").to_numpy(), stamps.notna().to_numpy()
        known = f"the format {written}" if written else "ISO 8601; describe others with --key time_format=%d/%m/%Y"
        self._check(name, there, f"which is no time in {known}")
        return found

    def words(self, name: str) -> np.ndarray:
        """[rows] text."""
        self._check(name, self._there(name), "where each row needs one")
        return self.batch[name].cast(pa.string()).to_numpy(zero_copy_only=False)

    def _there(self, name: str) -> np.ndarray:
        return self.batch[name].is_valid().to_numpy(zero_copy_only=False)

    def _check(self, name: str, good: np.ndarray, reason: str) -> None:
        if not good.all():
            row = int(good.argmin())
            value = self.batch[name][row].as_py()
            raise UserError(f"row {self.first + row} of {self.path} has {value!r} under {name}, {reason}")


def _batches(path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Some rows at a time; those of a CSV file as text."""
    if path.suffix == ".parquet":
        yield from parquet.ParquetFile(path).iter_batches(columns=names, use_threads=False)
        return
    options = arrow_csv.ConvertOptions(
        include_columns=names,
        column_types=dict.fromkeys(names, pa.string()),
        null_values=MISSING,
        strings_can_be_null=True,
    )
    yield from arrow_csv.open_csv(path, arrow_csv.ReadOptions(use_threads=False), convert_options=options)
