"""What a plan will cost: training FLOPs, time and money, by cell and in all."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scisci.sweep.forecast import Forecast
from scisci.sweep.plan import Cell, Plan
from scisci.sweep.records import Records

# Of a cell's finished runs so many tell how long one takes.
LOOKED_AT = 20


@dataclass(frozen=True)
class Costs:
    """FLOPs of a cell's runs in all, seconds of one of them, and how the seconds were predicted, in words."""

    plan: Plan
    flops: Mapping[Cell, float]
    seconds: Mapping[Cell, float]
    origin: str

    @property
    def work(self) -> float:
        """Seconds that all runs take one after the other."""
        return sum(self.plan.count(cell) * seconds for cell, seconds in self.seconds.items())

    def wall(self, workers: int) -> float:
        """Seconds until the last of all runs ends, on so many workers."""
        return makespan(((seconds, self.plan.count(cell)) for cell, seconds in self.seconds.items()), workers)


def makespan(runs: Iterable[tuple[float, int]], workers: int) -> float:
    """When the last of all runs, as (seconds, how many), ends if each goes to the first free worker, longest first.

    As the engine does; at most 4/3 of what the best schedule takes (Graham 1969).
    """
    free = [0.0] * workers
    for seconds, count in sorted(runs, reverse=True):
        for _ in range(count):
            heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def cell_flops(plan: Plan, cell: Cell) -> float:
    """Training FLOPs of all runs of a cell."""
    amounts = plan.amounts(cell)
    return sum(plan.work(cell, data).flops for data in amounts) * (plan.count(cell) // len(amounts))


def costs(plan: Plan, folder: Path | None = None, flops_per_second: float | None = None) -> Costs:
    """Costs of a plan.

    Seconds are FLOPs by `flops_per_second` where that is given; else those of finished runs in a sweep's `folder`;
    where there are none, of a few real steps of every model on this machine.
    """
    flops = {cell: cell_flops(plan, cell) for cell in plan.cells}
    if flops_per_second:
        seconds = {cell: plan.work(cell).flops / flops_per_second for cell in plan.cells}
        return Costs(plan, flops, seconds, f"training FLOPs at {flops_per_second:.3g} a second, and nothing else")
    forecast = Forecast({}) if folder is None else finished(plan, folder)
    if forecast.knows:
        runs, unseen = sum(forecast.measured.values()), len(plan.cells) - len(forecast.measured)
        scaled = f"; {unseen} of {len(plan.cells)} rows, of which none is, from others by FLOPs" if unseen else ""
        origin = f"means over {runs} finished runs in {folder}{scaled}"
        return Costs(plan, flops, {cell: forecast.cost(cell) for cell in plan.cells}, origin)
    origin = "a few steps and one evaluation batch of every network, timed just now on this machine"
    none = "" if folder is None else f", for {folder} has no finished run of this study"
    return Costs(plan, flops, _timed(plan), origin + none)


def finished(plan: Plan, folder: Path) -> Forecast:
    """A forecast from the first finished runs of every cell in a sweep's folder, of whatever version of the code."""
    records, there = Records(folder), Plan.read(folder)
    forecast, recorded = Forecast(plan.works()), set(records.recorded())
    versions = (there.code_version, *there.earlier)
    for cell in plan.cells if recorded else ():
        for number in range(plan.count(cell)):
            if forecast.measured.get(cell, 0) == LOOKED_AT:
                break
            run = records.named(plan.spec(cell, number), versions).run
            result = records.look(run) if run in recorded else None
            if result is not None and result.status == "ok":
                forecast.observe(cell, result.seconds)
    return forecast


def _timed(plan: Plan) -> dict[Cell, float]:
    """Seconds of one run of every cell from timing each model once.

    A baseline, which is fitted in a pass or a few, counts as no time.
    """
    from scisci.tasks.costs import Pace, samples_evaluated, timed

    paces: dict[tuple[str, str], Pace] = {}
    evaluated = samples_evaluated(plan.spec(plan.cells[0], 0))
    seconds = {}
    for cell in plan.cells:
        if not plan.study.trained(cell.label):
            seconds[cell] = 0.0
            continue
        model = (cell.label, cell.size)
        if model not in paces:
            paces[model] = timed(plan.spec(cell, 0), plan.needs(cell).cpus)
        pace = paces[model]
        seconds[cell] = plan.work(cell).steps * pace.step + evaluated * pace.evaluation
    return seconds
