"""Where a sweep stands, read from its folder: once, or again and again."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from scisci.contracts.run import RunSpec
from scisci.sweep.drivers import Driver, Drivers
from scisci.sweep.forecast import Forecast
from scisci.sweep.plan import PLAN_FILE, Cell, Plan
from scisci.sweep.records import Damaged, Holder, Records

EXAMPLES = 3
DAMAGED_EXAMPLES = 20  # what is to be looked at by hand is named


@dataclass
class Trouble:
    """Runs that ended badly for the same reason."""

    status: str
    reason: str
    count: int = 0
    examples: list[tuple[Cell, RunSpec]] = field(default_factory=list)


@dataclass(frozen=True)
class AtWork:
    """A run that a process is at: which process, for how many seconds, and how many it is predicted to take."""

    cell: Cell
    spec: RunSpec
    holder: Holder
    elapsed: float
    expected: float | None

    @property
    def seconds_left(self) -> float:
        return max(0.0, (self.expected or 0.0) - self.elapsed)


@dataclass
class Standing:
    """Where a sweep stands, by cell, with the reasons of what went wrong and who is at work.

    `notes` counts what else runs say of how they came about. `work_left` is the predicted time of all runs that are
    not recorded on one worker, in seconds; None while no run's time is known.
    """

    plan: Plan
    cells: dict[Cell, Counter[str]]
    troubles: list[Trouble]
    notes: Counter[str]
    unplanned: int
    at_work: list[AtWork]
    drivers: list[Driver]
    work_left: float | None

    @property
    def totals(self) -> Counter[str]:
        return sum(self.cells.values(), Counter())

    @property
    def left(self) -> int:
        """Runs that are not recorded."""
        return self.totals["running"] + self.totals["waiting"]

    @property
    def seconds_left(self) -> float | None:
        """Wall time until the last run ends, if as many are at work as now; None if none is or nothing is known."""
        if self.work_left is None or not self.at_work:
            return None
        return max(self.work_left / len(self.at_work), *(one.seconds_left for one in self.at_work))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What counts of a recorded result, and which recording it was."""

    stamp: int | None
    status: str
    reason: str
    notes: tuple[str, ...]
    seconds: float


class Watcher:
    """Tells where the sweep in a folder stands.

    Looking again costs a listing of the records and the reading of new ones: what was read is kept, for only a run that
    did not end well can be recorded anew.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder, self._records, self._drivers = Path(folder), Records(folder), Drivers(folder)
        self._seen: dict[str, _Seen] = {}
        self._plan_stamp: int | None = None
        self._read_plan()

    def _read_plan(self) -> None:
        """Read the plan, which may have been extended since."""
        path = self._folder / PLAN_FILE
        stamp = path.stat().st_mtime_ns if path.exists() else None
        if stamp is not None and stamp == self._plan_stamp:
            return
        self._plan, self._plan_stamp = Plan.read(self._folder), stamp
        self._planned: Counter[Cell] = Counter()
        self._runs: list[tuple[Cell, int, list[str]]] = []
        for cell, spec in self._plan.specs():
            others = (spec.model_copy(update={"code_version": version}) for version in self._plan.earlier)
            self._runs.append((cell, self._planned[cell], [spec.run, *(other.run for other in others)]))
            self._planned[cell] += 1

    def look(self) -> Standing:
        """Count runs by cell: by status, and as `running` or `waiting` where nothing is recorded."""
        self._read_plan()
        held = self._records.held()  # before the recorded: what ends in between is counted once
        recorded = set(self._records.recorded())
        # as `Records.named`
        places = {
            next((name for name in names if name in recorded), names[0]): (cell, number)
            for cell, number, names in self._runs
        }
        self._read_results(recorded & places.keys())
        cells = {cell: Counter[str]() for cell in self._planned}
        troubles: dict[tuple[str, str], Trouble] = {}
        notes: Counter[str] = Counter()
        forecast = Forecast(self._plan.works())
        for run, (cell, number) in places.items():
            if (seen := self._seen.get(run)) is None:
                continue
            cells[cell][seen.status] += 1
            notes.update(seen.notes)
            if seen.status == "ok":
                forecast.observe(cell, seen.seconds)
            else:
                trouble = troubles.setdefault((seen.status, seen.reason), Trouble(seen.status, seen.reason))
                trouble.count += 1
                if len(trouble.examples) < (DAMAGED_EXAMPLES if seen.status == "damaged" else EXAMPLES):
                    spec = self._records.named(self._plan.spec(cell, number), self._plan.earlier)
                    trouble.examples.append((cell, spec))
        waiting = places.keys() - self._seen.keys()
        at_work = [self._at_work(*places[run], held[run], forecast) for run in held.keys() & waiting]
        running = Counter(one.cell for one in at_work)
        for cell, counts in cells.items():
            counts["waiting"] = self._planned[cell] - counts.total() - running[cell]
            counts["running"] = running[cell]
        return Standing(
            self._plan,
            {cell: +counts for cell, counts in cells.items()},
            sorted(troubles.values(), key=lambda trouble: -trouble.count),
            notes,
            len(recorded - places.keys()),
            sorted(at_work, key=lambda one: one.holder.since),
            self._drivers.look(),
            _work_left(cells, at_work, forecast) if forecast.knows else None,
        )

    def _read_results(self, recorded: set[str]) -> None:
        self._seen = {run: seen for run, seen in self._seen.items() if run in recorded}
        for run in recorded:
            seen = self._seen.get(run)
            if seen and (seen.status == "ok" or seen.stamp == self._records.stamp(run)):
                continue
            stamp, result = self._records.stamp(run), self._records.look(run)
            if result is not None:
                reason = result.reason or "no reason given"
                if isinstance(result, Damaged):
                    reason = f"{result.path.name} {reason}"
                self._seen[run] = _Seen(stamp, result.status, reason, result.notes, result.seconds)

    def _at_work(self, cell: Cell, number: int, holder: Holder, forecast: Forecast) -> AtWork:
        elapsed = max(0.0, time.time() - holder.since)
        return AtWork(
            cell, self._plan.spec(cell, number), holder, elapsed, forecast.cost(cell) if forecast.knows else None
        )


def _work_left(cells: dict[Cell, Counter[str]], at_work: list[AtWork], forecast: Forecast) -> float:
    waiting = sum(counts["waiting"] * forecast.cost(cell) for cell, counts in cells.items() if counts["waiting"])
    return waiting + sum(one.seconds_left for one in at_work)


def standing(folder: Path | str) -> Standing:
    """Where the sweep in a folder stands now."""
    return Watcher(folder).look()
