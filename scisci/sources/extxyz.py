"""Extended XYZ, read line by line: ASE's reader goes through the whole file first and keeps a list of its frames.

The grammar is ASE's: `key=value` pairs with values bare, quoted or in brackets, `_JSON` values, and per-atom columns
named in `Properties`.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from itertools import count, islice
from lzma import LZMAError
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase.data import atomic_numbers
from ase.io.formats import open_with_compression

from scisci.contracts.errors import UserError
from scisci.data.samples import AtomsSample
from scisci.sources.frames import BadFrame, Frame
from scisci.sources.labels import Labels

QUOTED = r'"(?:\\.|[^"\\])*"|' + r"'(?:\\.|[^'\\])*'"
ENTRY = re.compile(rf"({QUOTED}|[^\s=]+)(?:\s*=\s*({QUOTED}|\{{[^}}]*\}}|\[[^\]]*\]|\S+))?")
ESCAPED = re.compile(r"\\(.)")
TRUE, FALSE = {"T", "True", "TRUE", "true", "1"}, {"F", "False", "FALSE", "false", "0"}
COLUMN_TYPES: dict[str, Any] = {"R": float, "I": int, "S": str, "L": lambda text: text in TRUE}
# Names that are no labels, so that messages leave them out.
STRUCTURE = ("Lattice", "Properties", "pbc")


def read_extxyz(path: Path | str, keys: Mapping[str, str] | None = None) -> Iterator[Frame | BadFrame]:
    """Stream an extended XYZ file, plain or compressed; energies in eV, forces in eV/Å, stress in eV/Å³.

    Labels are found as `Labels` says: MACE's `REF_` names, or the plain ones. `UserError` names file and frame.
    """
    labels, frames = Labels(keys or {}), 0
    try:
        with open_with_compression(str(path), "r") as file:
            for number in count():
                where = f"frame {number} of {path}"
                if not (head := file.readline()).strip():
                    _refuse_more(file, where)
                    break
                yield _frame(head, file, labels, where)
                frames += 1
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, LZMAError) as error:
        raise UserError(f"{path} cannot be read as extended XYZ ({error}); correct the file") from error
    if not frames:
        raise UserError(f"{path} has no frames; give a file with at least one")


def _refuse_more(file: IO[str], where: str) -> None:
    if any(line.strip() for line in file):
        raise UserError(f"{where} begins with an empty line, not with its number of atoms; correct the file")


def _frame(head: str, file: IO[str], labels: Labels, where: str) -> Frame | BadFrame:
    if not head.strip().isdecimal():
        raise UserError(f"{where} begins with {head.strip()[:40]!r}, not with its number of atoms; correct the file")
    atoms, comment = int(head), file.readline()
    rows = list(islice(file, atoms))
    if len(rows) < atoms or not comment:
        raise UserError(f"{where} ends after {len(rows)} of {atoms} atoms: the file is cut short; get it again")
    if not atoms:
        return BadFrame(where, "it has no atoms")
    info = {_bare(key): "T" if value is None else _bare(value) for key, value in _pairs(comment)}
    try:
        columns = _Columns(info.get("Properties", "species:S:1:pos:R:3"), rows)
        numbers = _numbers(columns)
        structure = AtomsSample(numbers, columns["pos"], *_cell(info))
        entries = _Entries(columns, {k: v for k, v in info.items() if k not in STRUCTURE})
        return labels.frame(where, structure, entries, info)
    except _UnknownElement as error:
        return BadFrame(where, f"its element {error} is unknown")
    except (ValueError, KeyError) as error:
        raise UserError(f"{where} is not valid extended XYZ ({error}); correct the file") from error


class _UnknownElement(Exception):
    pass


class _Columns:
    """The per-atom columns of one frame, converted when asked for."""

    def __init__(self, properties: str, rows: list[str]) -> None:
        self._tokens = "".join(rows).split()
        self._rows = len(rows)
        fields = properties.split(":")
        self._at: dict[str, tuple[int, int, str]] = {}
        self._width = 0
        for name, kind, width in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
            self._at[name] = (self._width, int(width), kind)
            self._width += int(width)
        if len(self._tokens) != self._rows * self._width:
            raise ValueError(f"its atoms do not all have the {self._width} columns that Properties names")

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._at if name not in ("species", "Z", "pos"))

    def __contains__(self, name: str) -> bool:
        return name in self._at

    def texts(self, name: str) -> list[str]:
        """A column of width 1 as it is written."""
        return self._tokens[self._at[name][0] :: self._width]

    def __getitem__(self, name: str) -> np.ndarray:
        """[N] or [N, width]"""
        start, width, kind = self._at[name]
        columns = [list(map(COLUMN_TYPES[kind], self._tokens[start + k :: self._width])) for k in range(width)]
        return np.array(columns[0]) if width == 1 else np.array(columns).T


class _Entries(Mapping[str, Any]):
    """What labels are looked up in: per-atom columns, and the comment line's values over them."""

    def __init__(self, columns: _Columns, info: dict[str, str]) -> None:
        self._columns, self._info = columns, info

    def __getitem__(self, name: str) -> Any:
        return _number(self._info[name]) if name in self._info else self._columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self._info or name in set(self._columns)

    def __iter__(self) -> Iterator[str]:
        return iter({*self._info, *self._columns})

    def __len__(self) -> int:
        return len(set(self))


def _pairs(comment: str) -> Iterator[tuple[str, str | None]]:
    return ((match[1], match[2]) for match in ENTRY.finditer(comment))


def _bare(text: str) -> str:
    """Without its quotes or brackets."""
    if text[0] in "\"'" and len(text) > 1:
        return ESCAPED.sub(r"\1", text[1:-1])
    return text[1:-1] if text[0] in "{[" and len(text) > 1 else text


def _number(text: str) -> Any:
    """A number, an array of them, or the text itself."""
    try:
        if text.startswith("_JSON "):
            return np.array(json.loads(text[6:]))
        values = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        return text
    return values[0] if len(values) == 1 else np.array(values)


def _numbers(columns: _Columns) -> np.ndarray:
    if "Z" in columns:
        return columns["Z"]
    try:
        return np.array([atomic_numbers[symbol.capitalize()] for symbol in columns.texts("species")])
    except KeyError as error:
        if "species" in columns:
            raise _UnknownElement(error) from error
        raise


def _cell(info: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Cell [3, 3] and periodic directions [3]; a frame with a lattice is periodic unless it says otherwise."""
    lattice = _number(info["Lattice"]) if "Lattice" in info else np.zeros(9)
    periodic = info["pbc"].replace(",", " ").split() if "pbc" in info else ["T" if "Lattice" in info else "F"] * 3
    if np.shape(lattice) != (9,) or len(periodic) != 3 or not set(periodic) <= TRUE | FALSE:
        raise ValueError("its Lattice is not 9 numbers, or its pbc not 3 of T or F")
    return lattice.reshape(3, 3), np.array([part in TRUE for part in periodic])
