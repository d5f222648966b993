"""What readers of time series share: frames of series, their frequency, and entries of GluonTS's fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from scisci.contracts.errors import UserError, unknown_name
from scisci.data.frequencies import anchored, later, moment, same_step, spelling
from scisci.data.samples import SeriesSample
from scisci.sources.conformers import chosen
from scisci.sources.frames import BadFrame, Frame, checked
from scisci.sources.labels import KEEP, NONE

# Steps of a published test split that come before its first forecast, and may be in train: what forecasts start from.
CONTEXT = "512"


class Frequency:
    """The one frequency that the series of a file have: what --key says, or the file as a whole, or the first of them.

    `wholly` is what the file says of all its series.
    """

    def __init__(self, labels: Mapping[str, str], wholly: str | None = None) -> None:
        given = labels.get("freq", wholly)
        self.given, self.known = given is not None, None if given is None else spelling(given)
        self._origin = "--key freq says" if "freq" in labels else "the file says" if given else "those before it have"

    def __call__(self, found: str | None, where: str) -> str:
        """The frequency of a series, which itself says `found` or nothing."""
        freq = found or self.known
        if freq is None:
            raise UserError(f"{where} has no frequency; give it with --key freq=h or the like")
        if self.known is None:
            self.known = spelling(freq)
        if not same_step(freq, self.known):
            raise UserError(
                f"{where} has the frequency {spelling(freq)} where {self._origin} {self.known}; import series of"
                " different frequencies from files of their own"
            )
        return self.known


def series_frame(
    where: str,
    item: str,
    target: np.ndarray,
    start: int,
    freq: str,
    covariates: np.ndarray | None = None,
    kept: Mapping[str, float | str] | None = None,
) -> Frame | BadFrame:
    """One series, in the group `item`. `target` [T] or [C, T]; `covariates` [F, T] or longer, and then cut to T."""
    if kept and "freq" in kept:
        raise UserError(f"{where} has a freq to keep, but that column is for its frequency; rename it in the file")
    rows = [np.atleast_2d(target)]
    length = rows[0].shape[1]
    if not rows[0].size:
        return BadFrame(where, "it has no values")
    if covariates is not None:
        rows.append(np.atleast_2d(covariates))
        if rows[1].shape[1] < length:
            return BadFrame(where, f"its covariates end after {rows[1].shape[1]} of {length} times")
    if np.isnan(rows[0]).all():
        return BadFrame(where, "all of its values are missing")
    with np.errstate(over="ignore"):  # `checked` finds what is too large
        values = [row[:, :length].astype(np.float32) for row in rows]
    start, freq = anchored(start, freq)
    sample = SeriesSample(values[0], start, freq, values[1] if covariates is not None else None)
    return checked(Frame(where, sample, item, kept or {}))


def piece(sample: SeriesSample, begin: int, end: int) -> SeriesSample:
    """The steps of a series from `begin` to before `end`."""
    covariates = None if sample.covariates is None else sample.covariates[:, begin:end]
    return SeriesSample(sample.target[:, begin:end], later(sample.start, begin, sample.freq), sample.freq, covariates)


def named(labels: dict[str, str], *needed: str) -> dict[str, str]:
    """The labels, if none is left out that is needed."""
    for label in needed:
        if label not in labels:
            raise UserError(f"series cannot be read without {label}; name it with --key {label}=NAME")
    return labels


def column(name: str, label: str, found: Iterable[str], where: str) -> str:
    """The name of a column, if `found` has it."""
    if name not in (names := list(found)):
        error = str(unknown_name(f"column of {where}", name, names)).removesuffix("?")
        raise UserError(f"{error}; name the right one with --key {label}=NAME")
    return name


def numbers(value: Any, what: str, where: str) -> np.ndarray:
    """[T] or [C, T] numbers of a list, NaN where one is `None` or says so; `UserError` for anything else."""
    try:
        found = np.asarray(value, dtype=np.float64)
        if found.ndim not in (1, 2):
            raise ValueError(f"its shape is {found.shape}")
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{where} has no numbers of one channel or several under {what} ({error}); correct the file"
        ) from error
    return found


def whole(value: str, label: str) -> int:
    """A count given with --key."""
    if not value.isdecimal():
        raise UserError(f"--key {label}={value} is not a whole number of steps; give one")
    return int(value)


class Entries:
    """Makes frames of entries with GluonTS's fields, whichever file has them.

    `keys` maps `target`, `start`, `item` and `covariates` (several, separated by commas) to the names they have in the
    file; `freq` is a frequency, and `keep` names scalars that become metadata columns.
    """

    LABELS: Mapping[str, str] = {
        "target": "target",
        "start": "start",
        "item": "item_id",
        "covariates": "feat_dynamic_real,past_feat_dynamic_real",
        "freq": NONE,
        KEEP: NONE,
    }

    def __init__(self, labels: Mapping[str, str], keys: Mapping[str, str], freq: Frequency) -> None:
        self.target, self.start = labels["target"], labels["start"]
        self.item, self.item_given = labels.get("item"), "item" in keys
        self.covariates = [name for name in labels.get("covariates", "").split(",") if name]
        self.covariates_given = "covariates" in keys
        self.kept = [name for name in labels.get(KEEP, "").split(",") if name]
        self.freq = freq

    @classmethod
    def labels(cls, keys: Mapping[str, str], **more: str) -> dict[str, str]:
        """The name of each label, `keys` before the defaults."""
        return named(chosen({**cls.LABELS, **more}, keys), "target", "start")

    @property
    def names(self) -> list[str]:
        """The fields that are read, of those an entry has."""
        optional = [] if self.item is None else [self.item]
        return [self.target, self.start, "freq", *optional, *self.covariates, *self.kept]

    def frame(self, entry: Mapping[str, Any], number: int, where: str) -> Frame | BadFrame:
        """The series of one entry; `where` is its place in the file, and `number` its name if it has none."""
        item = str(number)
        if self.item is not None and (self.item_given or self.item in entry):
            item = str(entry[column(self.item, "item", entry, where)])
        where = f"series {item} ({where})"
        freq = self.freq(entry.get("freq"), where)
        start = seconds(entry[column(self.start, "start", entry, where)], freq, where)
        target = numbers(entry[column(self.target, "target", entry, where)], self.target, where)
        present = [name for name in self.covariates if self.covariates_given or name in entry]
        found = {name: numbers(entry[column(name, "covariates", entry, where)], name, where) for name in present}
        covariates = [np.atleast_2d(values) for values in found.values() if values.size]
        lengths = [values.shape[-1] for values in covariates]
        rows = [values[:, : min(lengths)] for values in covariates]
        kept = {name: scalar(entry[column(name, KEEP, entry, where)], name, where) for name in self.kept}
        return series_frame(where, item, target, start, freq, np.concatenate(rows) if rows else None, kept)


def seconds(value: Any, freq: str, where: str) -> int:
    """A start, as text or as a time of numpy, in seconds since 1970."""
    if isinstance(value, np.datetime64):
        return int(value.astype("M8[s]").astype(np.int64))
    try:
        return moment(str(value), freq)
    except ValueError as error:
        raise UserError(
            f"{where} starts at {str(value)!r}, which is no time such as 2020-01-31 12:00:00; correct the file"
        ) from error


def scalar(value: Any, name: str, where: str) -> float | str:
    """A number or a word to keep beside a series; a list of one number is that number."""
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in "biufU":
        raise UserError(f"{where} has no single number or word under {name}; leave it out of --key {KEEP}=")
    return str(found.item()) if found.dtype.kind == "U" else float(found.item())
