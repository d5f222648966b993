"""What a table is made of: the same cells become HTML, LaTeX and CSV, each escaped where it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the number in full that it shows and sorts by (`order`), and how it is shown.

    `more` are the other numbers of the text in full, by what they are ("low", "high" of an interval). `series` is
    the position of an architecture, drawn as a swatch of its colour; `verdict` colours a fit's outcome; `notes` are
    numbers of notes under the table; `strong` marks a decided difference; `hint` is said when the cell is pointed at.
    """

    text: str
    order: float | None = None
    numeric: bool = False
    series: int | None = None
    verdict: str | None = None
    notes: tuple[int, ...] = ()
    strong: bool = False
    hint: str = ""
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Table:
    """A captioned table; the first column names the row. `notes` are numbered from 1.

    `units` are those of columns, where the caption says them; `folded` are columns that it says, and their value;
    `most` is how many rows are shown, where not all.
    """

    key: str
    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)
    most: int | None = None

    @property
    def shown(self) -> list[list[Cell]]:
        """The rows that a reader sees."""
        return self.rows[: self.most]

    def note(self, text: str) -> int:
        """The number of a note, added if it is new."""
        if text not in self.notes:
            self.notes.append(text)
        return self.notes.index(text) + 1

    def fold(self, column: str, words: str) -> None:
        """Say a column's value in the caption, as "`words` value.", where it is the same in every row."""
        at = self.columns.index(column)
        values = {row[at].text for row in self.rows}
        if len(values) == 1:
            self.folded[column] = values.pop()
            self.caption += f" {words} {self.folded[column]}."
            self.columns = self.columns[:at] + self.columns[at + 1 :]
            self.rows = [row[:at] + row[at + 1 :] for row in self.rows]


def number(text: str, order: float | None, **more: float) -> Cell:
    return Cell(text, order, numeric=True, more=more)
