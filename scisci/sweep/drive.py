"""Carrying out a plan: skip what is recorded, wait for what another process is at, do the rest."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from scisci.contracts.run import RunResult
from scisci.sweep.attempt import EXECUTE, Destination, Job, Outcome
from scisci.sweep.drivers import Driving, Start
from scisci.sweep.engine import Engine, InlineEngine
from scisci.sweep.forecast import Forecast
from scisci.sweep.plan import Cell, Plan
from scisci.sweep.records import Damaged, Records

if TYPE_CHECKING:
    from scisci.sweep.workers import Team

Order = Literal["longest", "smallest"]
LOOK_AGAIN_SECONDS = 1.0
WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` (counted from 1): every `count`-th run of the plan."""

    index: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def select(self, before: int, runs: int) -> range:
        """Which of a cell's `runs`, that come after `before` others of the plan, are in this part."""
        return range((self.index - 1 - before) % self.count, runs, self.count)


@dataclass
class State:
    """Where a sweep stands: how many runs of each cell are left, and what became of the others."""

    forecast: Forecast
    left: Counter[Cell] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        return self.statuses.total()

    @property
    def total(self) -> int:
        return self.left.total() + self.done

    def count(self, cell: Cell, result: RunResult | Damaged) -> None:
        """Take in a recorded run."""
        self.statuses[result.status] += 1
        if result.status == "ok":
            self.forecast.observe(cell, result.seconds)

    def seconds_left(self, engine: Engine) -> float | None:
        """Wall time until the last run ends; None while no run's duration is known."""
        if self.left.total() and not self.forecast.knows:
            return None
        work = sum(n * self.forecast.cost(cell) * engine.share(cell) for cell, n in self.left.items() if n)
        longest = 0.0
        for job, since in engine.running:
            expected, elapsed = self.forecast.cost(job.cell), time.monotonic() - since
            work -= min(elapsed, expected) * engine.share(job.cell)
            longest = max(longest, expected - elapsed)
        return max(work, longest)


class Listener(Protocol):
    """Is told how a sweep goes on."""

    def finished(self, outcome: Outcome, state: State, engine: Engine) -> None:
        """A run was recorded, here or by another process."""

    def tick(self, state: State, engine: Engine) -> None:
        """Some time has passed."""


class Queue:
    """Which run comes next.

    Always one of the cell predicted to take longest, or least; predictions improve as runs finish. Longest
    first ends a sweep soonest, for short runs fill the gaps at its end; smallest first gives an early look
    at the law. Where time is short, runs that would not end in it stay, and the smallest comes first until one
    was measured. Runs are held as numbers within their cell, and their specs made when they are due. A run that
    another process was at, or that was lost, is offered again after `LOOK_AGAIN_SECONDS`.
    """

    def __init__(self, plan: Plan, forecast: Forecast, order: Order) -> None:
        self._plan, self._forecast = plan, forecast
        self._best = max if order == "longest" else min
        self._waiting: dict[Cell, deque[int]] = {}
        self._replace: dict[str, int] = {}
        self._deferred: deque[tuple[float, Job]] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values())) + len(self._deferred)

    def add(self, cell: Cell, number: int, run: str, replace: int | None) -> None:
        """Put a run in; `replace` names the recording it is to take the place of."""
        self._waiting.setdefault(cell, deque()).append(number)
        if replace is not None:
            self._replace[run] = replace

    def defer(self, job: Job) -> None:
        """Take back a job that another process is at."""
        self._deferred.append((time.monotonic() + LOOK_AGAIN_SECONDS, job))

    def within(self, seconds: float) -> list[Cell]:
        """Cells of which a run that waits is predicted to end within `seconds`; any, while none was measured."""
        cells = dict.fromkeys([*self._waiting, *(job.cell for _, job in self._deferred)])
        known = self._forecast.knows
        return [cell for cell in cells if seconds > (self._forecast.cost(cell) if known else 0.0)]

    def next(self, fits: Callable[[Cell], bool] = lambda cell: True, seconds: float = math.inf) -> Job | None:
        """The job to do now, if it `fits` and is predicted to end within `seconds`; None if there is none just now."""
        cells = self.within(seconds)
        if waiting := [cell for cell in cells if cell in self._waiting]:
            blind = seconds < math.inf and not self._forecast.knows
            cell = (min if blind else self._best)(waiting, key=self._forecast.cost)
            if not fits(cell):
                return None
            spec = self._plan.spec(cell, self._waiting[cell].popleft())
            if not self._waiting[cell]:
                del self._waiting[cell]
            return Job(cell, spec, self._replace.get(spec.run))
        for _ in range(len(self._deferred)):
            since, job = self._deferred.popleft()
            if since <= time.monotonic() and job.cell in cells and fits(job.cell):
                return job
            self._deferred.append((since, job))
        return None


def survey(
    plan: Plan,
    records: Records,
    order: Order = "longest",
    retry: Collection[str] = (),
    shard: Shard | None = None,
) -> tuple[State, Queue]:
    """What of a plan is recorded, and the queue of what is left.

    Recorded runs with a status in `retry` are put in the queue again.
    """
    shard = shard or Shard()
    state = State(Forecast(plan.works()))
    queue = Queue(plan, state.forecast, order)
    before = 0
    for cell in plan.cells:
        runs = plan.count(cell)
        for number in shard.select(before, runs):
            spec = plan.spec(cell, number)
            # before one looks, so that what is recorded meanwhile is nothing to replace
            stamp = records.stamp(spec.run)
            result = records.look(records.named(spec, plan.earlier).run)
            if result is not None and result.status not in retry:
                state.count(cell, result)
            else:
                queue.add(cell, number, spec.run, stamp)
                state.left[cell] += 1
        before += runs
    return state, queue


def sweep(
    plan: Plan,
    folder: Path | str,
    listener: Listener,
    *,
    engine: str = "ray",
    workers: int | None = None,
    address: str | None = None,
    team: Team | None = None,
    order: Order = "longest",
    budget: float | None = None,
    retry: Collection[str] = (),
    retries: int = 1,
    shard: Shard | None = None,
    execute: str = EXECUTE,
) -> State:
    """Do all runs of a plan that are not recorded in `folder`; returns where the sweep stands at the end.

    May be interrupted in any way and called again, also while another call on the same folder is at work.
    With `address` the runs go to a running Ray cluster, with `team` to workers that are there. None is begun that is
    predicted to end later than `budget` seconds from now. One whose process is lost is done again up to `retries`
    times; those recorded with a status in `retry`, or `Damaged`, are done again. `execute` is "module:function", as in
    `Destination`. Raises `UserError` for a folder of another study or that cannot be written to, for a full disk, for
    runs that no machine has the resources for, and for a cluster that is lost; what goes wrong in a run is recorded as
    its result.
    """
    folder, deadline = Path(folder), time.monotonic() + (math.inf if budget is None else budget)
    plan.write(folder)
    Records(folder).prepare()
    state, queue = survey(plan, Records(folder), order, retry, shard)
    if len(queue) == 0:
        return state
    destination = Destination(folder, plan.domain, execute)
    start = Start(engine=engine, shard=shard and str(shard), address=address)
    with Driving(folder, start) as driving:
        if engine == "inline":
            chosen: Engine = InlineEngine(destination, plan.needs)
        else:
            from scisci.sweep.ray_engine import RayEngine

            chosen = RayEngine(
                destination,
                plan.needs,
                list(state.left),
                driver=driving.path,
                workers=workers,
                most=len(queue),
                address=address,
                team=team,
                retries=retries,
            )
        with chosen as running:
            _drive(queue, state, running, listener, deadline)
        driving.left = state.left.total()
    return state


def _drive(queue: Queue, state: State, engine: Engine, listener: Listener, deadline: float) -> None:
    while True:
        seconds = deadline - time.monotonic()
        while job := queue.next(engine.fits, seconds):
            engine.submit(job)
        if not engine.running and not queue.within(seconds):
            return
        listener.tick(state, engine)
        if not engine.running:
            time.sleep(WAIT_SECONDS)
            continue
        for outcome in engine.wait(WAIT_SECONDS):
            if outcome.result is None:
                queue.defer(outcome.job)
                continue
            state.left[outcome.job.cell] -= 1
            state.count(outcome.job.cell, outcome.result)
            listener.finished(outcome, state, engine)
