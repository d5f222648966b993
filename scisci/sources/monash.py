"""The Monash archive's `.tsf` files: a header of attributes, then a line of attributes and values per series.

Godahewa et al., NeurIPS Datasets and Benchmarks 2021. Latin-1; `#` begins a comment; `@attribute NAME TYPE` names the
attributes of the lines (`numeric`, `string`, `date`), `@frequency` the frequency of all series; `@data` ends the
header. A line is `a:b:v1,v2,?`, where `?` is a missing value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scisci.contracts.errors import UserError, unknown_name
from scisci.sources.conformers import chosen
from scisci.sources.frames import BadFrame, Frame, undamaged
from scisci.sources.labels import NONE
from scisci.sources.series import Frequency, column, seconds, series_frame

LABELS = {"item": "series_name", "start": "start_timestamp", "freq": NONE}
EPOCH = "1970-01-01"
TYPES = ("numeric", "string", "date")
NUMBERS = {"half": "0.5"}
UNITS = {
    name: unit
    for unit, names in {
        "s": "secondly second seconds",
        "min": "minutely minute minutes",
        "h": "hourly hour hours",
        "D": "daily day days",
        "W": "weekly week weeks",
        "MS": "monthly month months",
        "QS": "quarterly quarter quarters",
        "YS": "yearly year years",
    }.items()
    for name in names.split()
}
# What the values of tags besides attributes and the frequency are.
VALUES = {"@horizon": r"\d+", "@missing": "true|false", "@equallength": "true|false"}
# Colons within a time, which in other places separate attributes.
TIME = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d):(\d\d):(\d\d)")


@dataclass
class _Header:
    """What the lines before `@data` say."""

    attributes: dict[str, str] = field(default_factory=dict)
    freq: str | None = None


def read_monash(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[Frame | BadFrame]:
    """Stream a `.tsf` file line by line; the group is `series_name`, or the number of the series where it has none.

    A series without a start begins in 1970. `keys` maps `item` and `start` to attributes, or to `none`; `freq` is a
    frequency as pandas spells it, for files without `@frequency`. All other attributes become metadata columns.
    """
    path, keys = Path(path), keys or {}
    return undamaged(_series(path, keys, chosen(LABELS, keys)), path, "item")


def frequency(name: str, where: str) -> str:
    """`4_seconds`, `half_hourly` or `weekly` as pandas spells it."""
    number, _, unit = name.lower().rpartition("_")
    if unit not in UNITS or not (number in ("", *NUMBERS) or number.isdecimal()):
        error = unknown_name("frequency", name, UNITS)
        raise UserError(f"{where}: {error}")
    return NUMBERS.get(number, number) + UNITS[unit]


def _series(path: Path, keys: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[Frame | BadFrame]:
    with path.open(encoding="latin-1") as file:
        lines = ((number, line.strip()) for number, line in enumerate(file, 1))
        told = ((number, line) for number, line in lines if line and not line.startswith("#"))
        header = _header(told, path)
        names = list(header.attributes)
        for label, name in labels.items():
            if label in keys and label != "freq":
                column(name, label, names, str(path))
        freq = Frequency(labels, header.freq)(None, str(path))
        item, start = (labels.get(label) for label in ("item", "start"))
        for count, (number, line) in enumerate(told):
            values, found = _split(line, header.attributes, f"line {number} of {path}")
            name = found.pop(item, str(count)) if item else str(count)
            where = f"series {name} (line {number} of {path})"
            begin = seconds(found.pop(start, EPOCH) if start else EPOCH, freq, where)
            kept = {key: _typed(value, header.attributes[key], key, where) for key, value in found.items()}
            yield series_frame(where, name, _numbers(values, where), begin, freq, kept=kept)


def _header(lines: Iterator[tuple[int, str]], path: Path) -> _Header:
    header = _Header()
    for number, line in lines:
        where = f"line {number} of {path}"
        tag, *words = line.split()
        if not tag.startswith("@"):
            raise UserError(f"{where} is neither a comment nor a tag, before any @data; correct the file")
        if tag == "@data":
            return header
        if tag == "@attribute":
            if len(words) != 2 or words[1] not in TYPES or words[0] in header.attributes:
                raise UserError(
                    f"{where} is not '@attribute NAME TYPE' with a new name and a type of {TYPES}; correct it"
                )
            header.attributes[words[0]] = words[1]
        elif tag == "@frequency":
            header.freq = frequency(" ".join(words), where)
        elif not re.fullmatch(VALUES.get(tag, ".*"), " ".join(words)):
            raise UserError(f"{where} is {line!r}, where {tag} has to be {VALUES[tag]}; correct the file")
    raise UserError(f"{path} has no @data, after which its series come; get it again")


def _split(line: str, attributes: Mapping[str, str], where: str) -> tuple[str, dict[str, str]]:
    """The values of a line, and its attributes by name."""
    parts = line.split(":")
    if len(parts) != len(attributes) + 1:
        parts = TIME.sub(r"\1-\2-\3", line).split(":")
    if len(parts) != len(attributes) + 1:
        raise UserError(
            f"{where} has {len(parts) - 1} attributes and then values, where the header has {len(attributes)}"
            f" ({', '.join(attributes)}); correct the file"
        )
    return parts[-1], dict(zip(attributes, parts, strict=False))


def _numbers(values: str, where: str) -> np.ndarray:
    if not values.strip():
        return np.empty(0)
    words = values.replace("?", "nan").split(",")
    try:
        return np.array(words, dtype=np.float64)
    except ValueError:
        wrong = next(k for k, word in enumerate(words) if not _is_number(word))
        raise UserError(
            f"{where} has {words[wrong]!r} as value {wrong + 1}, which is no number; correct the file"
        ) from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _typed(value: str, kind: str, name: str, where: str) -> float | str:
    if kind != "numeric":
        return value
    if not _is_number(value):
        raise UserError(f"{where} has {name} {value!r}, which is no number as @attribute says; correct the file")
    return float(value)
