"""The results table of a sweep's folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scisci.contracts.results import rows, write_results
from scisci.sweep.plan import Plan
from scisci.sweep.records import Records

TABLE_FILE = "results.parquet"


@dataclass
class Collected:
    """What a results table was made from."""

    path: Path
    runs: int = 0
    rows: int = 0
    missing: int = 0
    unplanned: int = 0


def collect(folder: Path | str, everything: bool = False) -> Collected:
    """Write `results.parquet` from the records of a sweep's folder, in the order of the plan.

    Only planned runs go in: recordings of an older version of the study would mix two recipes in one table.
    With `everything`, all recordings do, in the order of their names.
    """
    records, plan = Records(folder), Plan.read(folder)
    collected = Collected(records.folder / TABLE_FILE)
    names = sorted(records.recorded()) if everything else (spec.run for _, spec in plan.specs())

    def table() -> Iterator[dict[str, Any]]:
        for run in names:
            result = records.result(run)
            if result is None:
                collected.missing += 1
                continue
            collected.runs += 1
            yield from rows(records.spec(run), result)

    collected.rows = write_results(collected.path, table())
    if not everything:
        collected.unplanned = sum(1 for _ in records.recorded()) - collected.runs
    return collected
