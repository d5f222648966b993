"""What a check finds in a submission, and how the terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from scisci.contracts.errors import UserError


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or suspicious: where in the submission, and a clause that says what and what to do."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Findings:
    """All that is wrong with a submission (`refused`), and all that a person should look at (`flagged`)."""

    refused: tuple[Finding, ...] = ()
    flagged: tuple[Finding, ...] = ()
    table: pa.Table | None = None
    """the recomputed scores, where nothing is refused"""

    def lines(self) -> Iterator[str]:
        """What to print: a line per finding, and one that sums up."""
        yield from (f"refused  {finding}" for finding in self.refused)
        yield from (f"flagged  {finding}" for finding in self.flagged)
        problems = f"{len(self.refused)} problem{'s' * (len(self.refused) != 1)}"
        flags = f"{len(self.flagged)} remark{'s' * (len(self.flagged) != 1)} for a person to look at"
        yield f"{problems if self.refused else 'nothing is wrong'}; {flags}"

    def require(self) -> None:
        """`UserError` with the first problem, if there is any."""
        if self.refused:
            others = f" (and {len(self.refused) - 1} more)" if len(self.refused) > 1 else ""
            raise UserError(f"{self.refused[0]}{others}; 'scisci leaderboard check' says everything")
