"""Tables as CSV: every number in full, units and interval ends in columns of their own."""

from __future__ import annotations

import csv
import io
import math

from scisci.report.cells import Cell, Table


def table_csv(table: Table) -> str:
    """A table as CSV, all its rows: what the caption says of all rows is a column too.

    A column "c" of numbers with intervals becomes "c", "c, low" and "c, high", with its unit in brackets; where
    cells have a verdict or notes, "c, verdict" and "c, notes". A number that is not there is an empty field; an
    open end of an interval is infinite.
    """
    columns: dict[str, list[str]] = {}
    for name, cells in zip(table.columns, zip(*table.rows, strict=True), strict=True):
        unit = f" [{table.units[name]}]" if table.units.get(name) else ""
        numeric = any(cell.numeric for cell in cells)
        columns[name + unit] = [_number(cell.order) if numeric else cell.text for cell in cells]
        for part in dict.fromkeys(part for cell in cells for part in cell.more):
            columns[f"{name}, {part}{unit}"] = [_number(cell.more.get(part)) for cell in cells]
        if numeric and any(cell.verdict for cell in cells):
            columns[f"{name}, verdict"] = [cell.verdict or "" for cell in cells]
        if any(cell.notes for cell in cells):
            columns[f"{name}, notes"] = [_notes(table, cell) for cell in cells]
    columns |= {name: [text] * len(table.rows) for name, text in table.folded.items()}
    file = io.StringIO()
    writer = csv.writer(file)  # lines end as in RFC 4180: a lone return within a text is quoted then
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return file.getvalue()


def _notes(table: Table, cell: Cell) -> str:
    return " ".join(table.notes[number - 1] for number in cell.notes)


def _number(value: float | None) -> str:
    """The shortest decimal that reads back as `value`."""
    if value is None or math.isnan(value):
        return ""
    value = float(value)
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
