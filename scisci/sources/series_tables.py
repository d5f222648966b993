"""Time series in plain tables, CSV or Parquet: long, a row per series and time, or wide, a column per series.

Times are ISO 8601 in UTC, or as `--key time_format` says, and have to ascend in regular steps. The frequency is that of
the first series; with `--key freq` steps may be left out, and their values are missing: up to ten for each value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from scisci.contracts.errors import UserError
from scisci.data.frequencies import inferred, positions
from scisci.sources.conformers import chosen
from scisci.sources.frames import BadFrame, Frame, undamaged
from scisci.sources.labels import KEEP, NONE
from scisci.sources.series import Frequency, named, series_frame
from scisci.sources.series_rows import Rows, columns, joined, table_rows

LONG = {"item": "item_id", "time": "timestamp", "target": "target"}
WIDE = {"item": NONE, "time": "timestamp", "target": NONE}
OPTIONS = {"covariates": NONE, "freq": NONE, "time_format": NONE}
# A series with more missing steps than this for each value has mistaken times or a mistaken frequency.
MOST_GAPS = 10


def read_long(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[Frame | BadFrame]:
    """Stream a table with rows of a series one after the other; the group is the series.

    `keys` maps `item` (or `none`: the table is one series) and `time` to a column each, `target` to those of its
    channels and `covariates` to others, separated by commas; `keep` names columns that become metadata, with one value
    per series. `freq` is a frequency, and `time_format` how times are written, such as `%d/%m/%Y %H:%M`.
    """
    path, labels = Path(path), named(chosen({**LONG, **OPTIONS, KEEP: NONE}, keys or {}), "time", "target")
    return undamaged(_long(path, labels), path, "item")


def read_wide(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[Frame | BadFrame]:
    """Read a table whose rows are times; each column is a series, from its first value to its last one.

    `keys` maps `time` to a column and `target` to those that are read (default: all others but covariates). With
    `item=NAME` the columns are the channels of one series of that name. `freq` and `time_format` as in long tables.
    """
    path, labels = Path(path), named(chosen({**WIDE, **OPTIONS}, keys or {}), "time")
    return undamaged(_wide(path, labels), path, "item")


def split_names(labels: Mapping[str, str], label: str) -> list[str]:
    """The columns of a label that can have several."""
    return [name for name in labels.get(label, "").split(",") if name]


def _long(path: Path, labels: Mapping[str, str]) -> Iterator[Frame | BadFrame]:
    target, covariates = split_names(labels, "target"), split_names(labels, "covariates")
    kept, item, freq = split_names(labels, KEEP), labels.get("item"), Frequency(labels)
    wanted = {"time": [labels["time"]], "target": target, "covariates": covariates, KEEP: kept}
    wanted |= {} if item is None else {"item": [item]}
    for name, rows in _series(table_rows(path, wanted, labels.get("time_format")), item, path):
        where = f"series {name} of {path}"
        metadata = {column: _one_value(rows.text[column], column, where) for column in kept}
        yield table_frame(where, name, rows, len(target), freq, metadata)


def _wide(path: Path, labels: Mapping[str, str]) -> Iterator[Frame | BadFrame]:
    item, freq, covariates = labels.get("item"), Frequency(labels), split_names(labels, "covariates")
    target = split_names(labels, "target") or [n for n in columns(path) if n not in (labels["time"], *covariates)]
    rows = whole_table(path, target, covariates, labels)
    if item is not None:
        yield table_frame(f"series {item} of {path}", item, rows, len(target), freq)
        return
    if not freq.given and (found := inferred(rows.times)):
        freq(found, str(path))  # columns may be shorter than it takes to tell
    known = rows.numbers[len(target) :]
    for name, values in zip(target, rows.numbers, strict=False):
        there = np.flatnonzero(~np.isnan(values))
        extent = slice(there[0], there[-1] + 1) if len(there) else slice(0)
        alone = Rows(rows.first, rows.times, np.concatenate([values[None], known]), {})[extent]
        yield table_frame(f"series {name} of {path}", name, alone, 1, freq)


def whole_table(path: Path, target: list[str], covariates: list[str], labels: Mapping[str, str]) -> Rows:
    """All rows of a table, with the numbers of target and covariates."""
    wanted = {"time": [labels["time"]], "target": target, "covariates": covariates}
    return joined(list(table_rows(path, wanted, labels.get("time_format"))))


def table_frame(
    where: str,
    item: str,
    rows: Rows,
    channels: int,
    freq: Frequency,
    kept: Mapping[str, float | str] | None = None,
) -> Frame | BadFrame:
    """One series of rows, the first `channels` of whose numbers are the target; steps that are left out are NaN."""
    if not len(rows.times):
        return BadFrame(where, "it has no values")
    apart = np.diff(rows.times)
    if (apart <= 0).any():
        row = int((apart <= 0).argmax()) + 1
        fault = "comes twice" if apart[row - 1] == 0 else "is before that of the row above"
        return BadFrame(where, f"the time {_time(rows, row)} in row {rows.first + row} {fault}")
    found = inferred(rows.times)
    if found is None and freq.known is None:
        why = _irregular(rows) if len(apart) > 1 else f"{len(rows.times)} times are too few to tell its frequency"
        return BadFrame(where, f"{why}: --key freq=h or the like says what its steps are")
    # What is left out regularly looks like longer steps.
    step = freq(None if freq.given else found, where)
    places = positions(rows.times, step)
    if (off := np.diff(places, prepend=-1) <= 0).any():
        row = int(off.argmax())
        return BadFrame(where, f"the time {_time(rows, row)} in row {rows.first + row} is between steps of {step}")
    length = int(places[-1]) + 1
    if length > len(places) and not freq.given:
        return BadFrame(where, f"{_irregular(rows)}: --key freq={step} leaves values of other times missing")
    if length > MOST_GAPS * len(places):
        return BadFrame(where, f"it has {len(places)} values in {length} steps of {step}; is that its frequency?")
    numbers = np.full((len(rows.numbers), length), np.nan)
    numbers[:, places] = rows.numbers
    covariates = numbers[channels:] if len(numbers) > channels else None
    return series_frame(where, item, numbers[:channels], int(rows.times[0] // 10**6), step, covariates, kept)


def _irregular(rows: Rows) -> str:
    """Where the steps of times are first unlike the most common of them."""
    apart = np.diff(rows.times)
    lengths, counts = np.unique(apart, return_counts=True)
    row = int((apart != lengths[counts.argmax()]).argmax()) + 1
    return f"its times are irregular: {_time(rows, row)} in row {rows.first + row} comes after {_time(rows, row - 1)}"


def _time(rows: Rows, row: int) -> str:
    return str(rows.times[row].astype("M8[us]").astype("M8[s]")).replace("T", " ")


def _one_value(values: np.ndarray, name: str, where: str) -> float | str:
    if len(unique := np.unique(values)) > 1:
        raise UserError(
            f"{where} has several values of {name}, which is one for all its times; leave it out of {KEEP}="
        )
    try:
        return float(unique[0])
    except ValueError:
        return str(unique[0])


def _series(batches: Iterator[Rows], item: str | None, path: Path) -> Iterator[tuple[str, Rows]]:
    """Name and rows of each series of a table, in which its rows are one after the other."""
    if item is None:
        yield path.stem, joined(list(batches))
        return
    seen: set[str] = set()
    current, parts = None, list[Rows]()
    for batch in batches:
        names = batch.text[item]
        edges = np.flatnonzero(names[1:] != names[:-1]) + 1
        for start, stop in zip([0, *edges], [*edges, len(names)], strict=True):
            if names[start] != current:
                if current is not None:
                    yield current, joined(parts)
                current, parts = str(names[start]), []
                if current in seen:
                    raise UserError(f"{path} has rows of the series {current} in several places; sort it by {item}")
                seen.add(current)
            parts.append(batch[start:stop])
    if current is not None:
        yield current, joined(parts)
