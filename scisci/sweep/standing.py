"""Where a sweep stands, read from its folder."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from scisci.contracts.run import RunResult, RunSpec
from scisci.sweep.forecast import Forecast
from scisci.sweep.plan import Cell, Plan
from scisci.sweep.records import Damaged, Records

EXAMPLES = 3


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
    forecast = Forecast(plan.works())
    recorded = 0
    for cell, spec in records.planned(plan):
        result = records.look(spec.run)
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


def _note(troubles: dict[tuple[str, str], Trouble], spec: RunSpec, result: RunResult | Damaged) -> None:
    reason = result.reason or "no reason given"
    trouble = troubles.setdefault((result.status, reason), Trouble(result.status, reason))
    trouble.count += 1
    if len(trouble.examples) < EXAMPLES:
        trouble.examples.append(spec)
