"""What the page's scripts read: the numbers behind filters, ranks and charts, as plain JSON-able values."""

from __future__ import annotations

from typing import Any

from scisci.leaderboard.board import Board, Entry, Estimate
from scisci.leaderboard.site.cells import MISSING, Cell, Table, finite
from scisci.leaderboard.site.lines import Line, shared_line
from scisci.leaderboard.site.names import labels, split_label

OVERALL = "overall"


def board_rows(board: Board) -> dict[str, Any]:
    """Everything but the runs: entries in the order of the table, splits, and the lines that entries share.

    `ranked` of an entry holds, for `overall` and each split where it is ranked, the interval that ranks it.
    """
    names = labels((entry.slug, entry.submission.name) for entry in board.entries)
    lines = [line for split in board.splits[1:] if isinstance(line := shared_line(board, split), Line)]
    return {
        "splits": [{"name": split, "label": split_label(split)} for split in board.splits],
        "compute": board.compute,
        "entries": [_entry(entry, names[entry.slug]) for entry in board.entries],
        "bands": [
            {"panel": split_label(line.split), "x": x, "y": y, "low": low, "high": high}
            for line in lines
            for x, y, low, high in line.band
        ],
    }


def _entry(entry: Entry, label: str) -> dict[str, Any]:
    about = entry.submission
    return {
        "slug": entry.slug,
        "label": label,
        "words": " ".join([about.name, entry.slug, about.family, *(author.name for author in about.authors)]).lower(),
        "family": about.family,
        "status": entry.status,
        "contamination": about.training_data.contamination,
        "claims": [f"{group}: {claim}" for group, claim in about.symmetry.items()],
        "params": entry.params,
        "size": entry.size,
        "data": entry.data,
        "flops": entry.flops,
        "scores": {split: _ends(score.error) for split, score in entry.scores.items()},
        "ranked": _ranked(entry),
        "fits": _fits(entry),
    }


def _ranked(entry: Entry) -> dict[str, list[Any]]:
    """The intervals that rank an entry; a missing end is the value itself."""
    ranked = {} if entry.rank is None or entry.overall is None else {OVERALL: _ends(entry.overall)}
    return ranked | {split: _ends(s.error) for split, s in entry.scores.items() if s.rank is not None}


def _fits(entry: Entry) -> dict[str, Any]:
    """By split: the exponent against FLOPs, and the forecast that says where its line is."""
    found = [one for one in entry.exponents if one.axis == "flops" and one.estimate and one.forecast]
    return {one.split: [one.estimate.value, *_ends(one.forecast)] for one in found if one.estimate and one.forecast}


def _ends(estimate: Estimate) -> list[Any]:
    low = estimate.value if estimate.low is None else estimate.low
    high = estimate.value if estimate.high is None else estimate.high
    return [finite(estimate.value), finite(low), finite(high)]


def table_rows(table: Table[Entry]) -> list[list[Any]]:
    """The cells of a table column by column; None where there is no value.

    A cell is its text, what it sorts by, note, tone and hint, without those at the end that are empty.
    """
    numeric = [column.numeric for column in table.columns]
    columns = zip(numeric, zip(*table.cells, strict=True), strict=True) if table.cells else ()
    return [[_shown(cell, number) for cell in cells] for number, cells in columns]


def _shown(cell: Cell, numeric: bool) -> list[Any] | None:
    if cell == Cell(MISSING):
        return None
    parts = [cell.text, finite(cell.value) if numeric else "", cell.note, cell.tone, cell.hint]
    while len(parts) > 1 and not parts[-1] and parts[-1] != 0:
        parts.pop()
    return parts


def point_rows(board: Board) -> list[list[Any]]:
    """Runs as the scaling charts draw them, in columns to keep the file small.

    Entry's position, run, split's position, size, parameters, data, FLOPs, error and its interval's ends.
    """
    entries = {entry.slug: i for i, entry in enumerate(board.entries)}
    splits = {split: i for i, split in enumerate(board.splits)}
    return [
        [entries[p.slug], p.run.removeprefix(f"{p.slug}/"), splits[p.split], p.size, p.params, p.data, p.flops]
        + [float(f"{end:.5g}") for end in _ends(p.error)]
        for p in board.points
        if p.slug in entries and p.split in splits
    ]
