"""ASE databases, SQLite (`.db`) and JSON (`.json`), a few rows at a time; ASE itself would load all of them.

ASE's unit is eV, and its stress is tensile positive. Neither kind holds pickles. SQLite has no NaN, so an energy that
is NaN was stored as none at all, and is reported as missing.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import all_properties
from ase.db.row import AtomsRow
from ase.db.sqlite import SQLite3Database
from ase.io.jsonio import object_hook

from scisci.contracts.errors import UserError
from scisci.data.samples import AtomsSample
from scisci.sources.frames import DAMAGE, BadFrame, Counted, Frame, undamaged
from scisci.sources.labels import Labels

SQLITE = b"SQLite format 3\0"
ROWS_AT_ONCE = 256
TEXT_AT_ONCE = 2**18
LONGEST_ROW = 2**26
MEMBER = re.compile(r'\s*[{,]\s*"(\w+)"\s*:\s*')


def read_ase_db(path: Path | str, keys: Mapping[str, str] | None = None) -> Counted | Iterator[Frame | BadFrame]:
    """Stream the rows of a database, told by its content to be SQLite or JSON.

    Labels are found as `Labels` says, among the calculator's results, the key-value pairs and `data`.
    """
    labels = Labels(keys or {})
    try:
        with open(path, "rb") as file:
            start = file.read(len(SQLITE))
        if start == SQLITE:
            database = _ReadOnly(str(Path(path).absolute()))
            with database:
                rows, last = database.extent()
            return Counted(_frames(_sqlite_rows(database, last), labels, path), rows)
    except (*DAMAGE, sqlite3.Error) as error:
        raise UserError(f"{path} is not a readable ASE database ({error}); get it again") from error
    if not start.lstrip().startswith(b"{"):
        raise UserError(f"{path} is neither SQLite nor JSON; give a .db or .json file written by ase.db")
    return _frames(_json_rows(path), labels, path)


def row_frame(row: AtomsRow, labels: Labels, where: str) -> Frame | BadFrame:
    """One row of any ASE database as a frame."""
    try:
        # A pair called charge is hidden by the row's property of that name, the sum of the atoms' initial charges.
        fields = vars(row)
        info = {**row.data, **{name: fields[name] for name in row.key_value_pairs}}
        entries = {**info, **{name: fields[name] for name in all_properties if name in fields}}
        numbers, positions, cell, pbc = (np.asarray(fields[name]) for name in ("numbers", "positions", "cell", "pbc"))
        if positions.shape != (*numbers.shape, 3) or numbers.ndim != 1:
            raise ValueError("its numbers and positions do not belong together")
        structure = AtomsSample(numbers, positions, cell, pbc)
    except DAMAGE as error:
        raise UserError(f"{where} cannot be read ({error}); get the file again") from error
    return labels.frame(where, structure, entries, info)


def _frames(rows: Iterator[AtomsRow], labels: Labels, path: Path | str) -> Iterator[Frame | BadFrame]:
    for row in undamaged(rows, path, "row"):
        yield row_frame(row, labels, f"row with id {row.id} of {path}")


class _ReadOnly(SQLite3Database):
    """ASE's reader, which would otherwise add its tables to a file that lacks them."""

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{Path(str(self.filename)).as_uri()}?mode=ro", uri=True)

    def extent(self) -> tuple[int, int]:
        """The number of rows, and the last id."""
        with self.managed_connection() as connection:
            rows, last = connection.execute("SELECT count(*), max(id) FROM systems").fetchone()
            return rows, last or 0


def _sqlite_rows(database: _ReadOnly, last: int) -> Iterator[AtomsRow]:
    # ASE fetches all rows of a query at once, so every query asks for a few.
    try:
        with database:
            for start in range(0, last, ROWS_AT_ONCE):
                wanted = [("id", ">", start), ("id", "<=", start + ROWS_AT_ONCE)]
                yield from sorted(database.select(wanted), key=lambda row: row.id)
    except sqlite3.Error as error:
        raise ValueError(error) from error


def _json_rows(path: Path | str) -> Iterator[AtomsRow]:
    """Rows of `{"1": {...}, "2": {...}, ..., "ids": [...], "nextid": 3}`, without reading it whole."""
    rows = 0
    for name, value in _json_members(path):
        if name.isdecimal():
            yield AtomsRow({**value, "id": int(name)})
            rows += 1
        elif name == "ids" and len(value) != rows:
            raise ValueError(f"it lists {len(value)} ids but has {rows} rows")


def _json_members(path: Path | str) -> Iterator[tuple[str, Any]]:
    """The members of a JSON object one by one, by the standard library's decoder: ASE writes NaN, others refuse it."""
    decoder = json.JSONDecoder(object_hook=object_hook)
    with open(path, encoding="utf-8") as file:
        text, start = "", 0
        while True:
            value, end = None, len(text)
            if member := MEMBER.match(text, start):
                with suppress(json.JSONDecodeError):  # not wholly there yet, or never: the end of the file tells
                    value, end = decoder.raw_decode(text, member.end())
            if member and end < len(text):
                yield member[1], value
                start = end
                continue
            text, start = text[start:], 0
            if len(text) > LONGEST_ROW or not (more := file.read(max(TEXT_AT_ONCE, len(text)))):
                break
            text += more
    if text.strip() not in ("}", "{}"):
        raise ValueError(f"no valid JSON: {text[:40]!r}")
