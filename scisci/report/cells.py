"""What a table of the page is made of; the template turns it into HTML and escapes every text."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """One cell: its text, what it sorts by (its text where `order` is None), and how it is shown.

    `series` is the position of an architecture, drawn as a swatch of its colour; `verdict` colours a fit's
    outcome; `notes` are numbers of notes under the table; `strong` marks a decided difference; `hint` is said
    when the cell is pointed at.
    """

    text: str
    order: float | None = None
    numeric: bool = False
    series: int | None = None
    verdict: str | None = None
    notes: tuple[int, ...] = ()
    strong: bool = False
    hint: str = ""


@dataclass
class Table:
    """A captioned table; the first column names the row. `notes` are numbered from 1."""

    key: str
    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)

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
            self.caption += f" {words} {values.pop()}."
            self.columns = self.columns[:at] + self.columns[at + 1 :]
            self.rows = [row[:at] + row[at + 1 :] for row in self.rows]


def number(text: str, order: float | None) -> Cell:
    return Cell(text, order, numeric=True)
