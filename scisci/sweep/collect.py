"""The results table of a sweep's folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scisci.contracts.results import write_runs
from scisci.contracts.run import RunResult, RunSpec
from scisci.sweep.plan import Plan
from scisci.sweep.records import Damaged, Records

TABLE_FILE = "results.parquet"


@dataclass
class Collected:
    """What a results table was made from."""

    path: Path
    runs: int = 0
    rows: int = 0
    missing: int = 0
    damaged: list[Damaged] = field(default_factory=list)
    unplanned: int = 0
    earlier: int = 0


def collect(folder: Path | str, everything: bool = False) -> Collected:
    """Write `results.parquet` from the records of a sweep's folder, in the order of the plan.

    Only planned runs go in: recordings of an older version of the study would mix two recipes in one table.
    With `everything`, all recordings do, in the order of their names. Damaged ones are left out.
    """
    records, plan = Records(folder), Plan.read(folder)
    collected = Collected(records.folder / TABLE_FILE)
    asked: Iterator[tuple[str, RunSpec | None]]
    if everything:
        asked = ((run, None) for run in sorted(records.recorded()))
    else:
        # what is recorded by the name of a planned run has its spec, which need not be read again
        asked = ((spec.run, spec) for _, spec in records.planned(plan))

    def runs() -> Iterator[tuple[RunSpec, RunResult]]:
        for run, planned in asked:
            result = records.look(run)
            if result is None:
                collected.missing += 1
                continue
            spec = planned or records.look_spec(run)
            if isinstance(result, Damaged):
                collected.damaged.append(result)
            elif isinstance(spec, Damaged):
                collected.damaged.append(spec)
            else:
                collected.runs += 1
                collected.earlier += spec.code_version in plan.earlier
                yield spec, result

    collected.rows = write_runs(collected.path, runs())
    if not everything:
        collected.unplanned = sum(1 for _ in records.recorded()) - collected.runs - len(collected.damaged)
    return collected
