"""Reading a sweep's folder: the results table, and where the sweep stands."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scisci.contracts.results import rows, write_results
from scisci.contracts.run import RunResult, RunSpec
from scisci.sweep.forecast import Forecast
from scisci.sweep.plan import Cell, Plan
from scisci.sweep.records import Records

TABLE_FILE = "results.parquet"
EXAMPLES = 3


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


@dataclass
class Trouble:
    """Runs that ended badly for the same reason."""

    status: str
    reason: str
    count: int = 0
    examples: list[RunSpec] = field(default_factory=list)


@dataclass
class Standing:
    """Where a sweep stands, by cell, with the reasons of what went wrong."""

    plan: Plan
    cells: dict[Cell, Counter[str]]
    troubles: list[Trouble]
    unplanned: int
    work_left: float | None

    @property
    def totals(self) -> Counter[str]:
        return sum(self.cells.values(), Counter())


def standing(folder: Path | str) -> Standing:
    """Count a sweep's runs per cell: by status, and as `running` or `waiting` where nothing is recorded."""
    records, plan = Records(folder), Plan.read(folder)
    held = records.held()
    cells: dict[Cell, Counter[str]] = defaultdict(Counter)
    troubles: dict[tuple[str, str], Trouble] = {}
    forecast = Forecast(plan.cells)
    recorded = 0
    for cell, spec in plan.specs():
        result = records.result(spec.run)
        if result is None:
            cells[cell]["running" if spec.run in held else "waiting"] += 1
            continue
        recorded += 1
        cells[cell][result.status] += 1
        if result.status == "ok":
            forecast.observe(cell, result.seconds)
        else:
            _note(troubles, spec, result)
    left = {cell: counts["running"] + counts["waiting"] for cell, counts in cells.items()}
    work = sum(count * forecast.cost(cell) for cell, count in left.items())
    return Standing(
        plan,
        dict(cells),
        sorted(troubles.values(), key=lambda trouble: -trouble.count),
        sum(1 for _ in records.recorded()) - recorded,
        work if forecast.knows else None,
    )


def _note(troubles: dict[tuple[str, str], Trouble], spec: RunSpec, result: RunResult) -> None:
    reason = result.reason or "no reason given"
    trouble = troubles.setdefault((result.status, reason), Trouble(result.status, reason))
    trouble.count += 1
    if len(trouble.examples) < EXAMPLES:
        trouble.examples.append(spec)
