"""What the site's tables are made of: one list of columns gives the page, the CSV and the JSON of a table alike."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from typing import Any, Generic, TypeVar

from markupsafe import Markup, escape

from scisci.leaderboard.board import Estimate
from scisci.report.wording import significant

Row = TypeVar("Row")
Value = str | int | float | None

MISSING = "–"
LONG = 60  # characters beyond which text is given room
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Cell:
    """One cell: its `value` as downloads have it, and its text on the page.

    `ends` are those of an interval; `note` is said below the text, `hint` when the cell is pointed at; `tone` is
    "good", "fair", "poor" or "unusable"; `link` is a path inside the site.
    """

    text: str
    value: Value = None
    ends: tuple[float | None, float | None] = (None, None)
    note: str = ""
    tone: str = ""
    hint: str = ""
    link: str = ""

    def html(self, root: str) -> str:
        """What is inside the cell on a page."""
        inner: str = escape(self.text)
        if self.link:
            inner = f'<a href="{escape(root + self.link)}">{inner}</a>'
        if self.tone or self.hint:
            inner = f'<span class="{self.tone}" title="{escape(self.hint)}">{inner}</span>'
        return f"{inner}<small>{escape(self.note)}</small>" if self.note else inner


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column: how a row gives its cell, and what the column is called in pages, URLs and downloads.

    `shown` says whether the page shows it before anyone chooses columns; `interval` adds the columns `key_low` and
    `key_high` to downloads.
    """

    key: str
    label: str
    about: str
    cell: Callable[[Row], Cell]
    group: str = ""
    numeric: bool = True
    interval: bool = False
    shown: bool = True


@dataclass(frozen=True)
class Table(Generic[Row]):
    """A captioned table of any rows; `key` names it on its page, `file` its downloads, without a suffix.

    The column called `head` names the row.
    """

    key: str
    caption: str
    columns: Sequence[Column[Row]]
    rows: Sequence[Row]
    file: str
    head: str = "name"

    def shown(self, rows: Sequence[Row] | None = None) -> Table[Row]:
        """The columns that a page shows at first, of all rows or of some."""
        columns = [column for column in self.columns if column.shown]
        return replace(self, columns=columns, rows=self.rows if rows is None else rows)

    @cached_property
    def cells(self) -> list[list[Cell]]:
        return [[column.cell(row) for column in self.columns] for row in self.rows]

    def body(self, root: str) -> Markup:
        """The rows as HTML; `root` is the way from the page to the site's first folder."""
        return Markup(
            "\n".join(f"<tr>{''.join(map(self._cell, self.columns, row, repeat(root)))}</tr>" for row in self.cells)
        )

    def _cell(self, column: Column[Row], cell: Cell, root: str) -> str:
        tag, scope = ("th", ' scope="row"') if column.key == self.head else ("td", "")
        kind = ' class="long"' if len(cell.text) > LONG and not column.numeric else ""
        if column.numeric:
            kind = f' class="number" data-order="{"" if cell.value is None else escape(cell.value)}"'
        return f"<{tag}{scope}{kind}>{cell.html(root)}</{tag}>"

    def records(self) -> list[dict[str, Value]]:
        """Rows as downloads have them: plain values, intervals in columns of their own; None is not known."""
        return [self._record(row) for row in self.cells]

    def _record(self, cells: list[Cell]) -> dict[str, Value]:
        record: dict[str, Value] = {}
        for column, cell in zip(self.columns, cells, strict=True):
            record[column.key] = finite(cell.value)
            if column.interval:
                record |= {f"{column.key}_low": finite(cell.ends[0]), f"{column.key}_high": finite(cell.ends[1])}
        return record

    def fields(self) -> list[str]:
        """Names of the values of a record, in order."""
        ends = lambda column: [f"{column.key}_low", f"{column.key}_high"] if column.interval else []
        return [name for column in self.columns for name in (column.key, *ends(column))]

    def csv(self) -> str:
        """The records as CSV; text that a spreadsheet would run as a formula is led by an apostrophe."""
        out = io.StringIO()
        writer = csv.DictWriter(out, self.fields(), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _inert(value) for key, value in record.items()} for record in self.records())
        return out.getvalue()

    def json(self) -> str:
        """The records as a JSON list, one a line."""
        lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) for record in self.records())
        return "[\n" + ",\n".join(lines) + "\n]\n"


def finite(value: Value) -> Value:
    """`value`, or None where it is a number without a finite value, which JSON has no word for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _inert(value: Value) -> Value:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def text(words: str, **more: Any) -> Cell:
    return Cell(words, words, **more)


def count(value: float | None, write: Callable[[float], str] = "{:,}".format, **more: Any) -> Cell:
    """A cell of one number; a dash where it is not known."""
    return Cell(MISSING, **more) if value is None else Cell(write(value), value, **more)


def measured(estimate: Estimate | None, **more: Any) -> Cell:
    """A cell of an estimate, its interval below it."""
    if estimate is None:
        return Cell(MISSING, **more)
    value, interval = words(estimate)
    return Cell(value, estimate.value, (estimate.low, estimate.high), interval, **more)


def words(estimate: Estimate) -> tuple[str, str]:
    """An estimate and its interval as text, to the second significant digit of the half-width."""
    ends = [end for end in (estimate.low, estimate.high) if end is not None]
    half = max((abs(end - estimate.value) for end in ends), default=0.0)
    if not (half > 0 and math.isfinite(half)):
        return significant(estimate.value), ""
    decimals = 1 - math.floor(math.log10(half))
    write = significant if not -3 <= decimals <= 6 else (lambda value: f"{value:,.{max(0, decimals)}f}")
    low, high = ("?" if end is None else write(end) for end in (estimate.low, estimate.high))
    return write(estimate.value), f"[{low}, {high}]"
