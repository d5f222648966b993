"""Carrying out a plan: skip what is recorded, wait for what another process is at, do the rest."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from scisci.contracts.run import RunResult
from scisci.sweep.attempt import EXECUTE, Destination, Job, Outcome
from scisci.sweep.engine import Engine, cores, make_engine
from scisci.sweep.forecast import Forecast
from scisci.sweep.plan import Cell, Plan
from scisci.sweep.records import Records

Order = Literal["longest", "smallest"]
LOOK_AGAIN_SECONDS = 1.0
WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` (counted from 1): every `count`-th run of the plan."""

    index: int = 1
    count: int = 1

    def select(self, plan: Plan, at: int) -> range:
        """Which runs of the plan's cell number `at` are in this part."""
        start = (self.index - 1 - at * plan.runs_per_cell) % self.count
        return range(start, plan.runs_per_cell, self.count)


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

    def count(self, cell: Cell, result: RunResult) -> None:
        """Take in a recorded run."""
        self.statuses[result.status] += 1
        if result.status == "ok":
            self.forecast.observe(cell, result.seconds)

    def seconds_left(self, engine: Engine) -> float | None:
        """Wall time until the last run ends; None while no run's duration is known."""
        if self.left.total() and not self.forecast.knows:
            return None
        work = sum(count * self.forecast.cost(cell) for cell, count in self.left.items())
        longest = 0.0
        for job, since in engine.running:
            expected, elapsed = self.forecast.cost(job.cell), time.monotonic() - since
            work -= min(elapsed, expected)
            longest = max(longest, expected - elapsed)
        return max(work / engine.workers, longest)


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
    at the law. Runs are held as numbers within their cell, and their specs made when they are due. A run that
    another process was at is offered again after `LOOK_AGAIN_SECONDS`.
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

    def next(self) -> Job | None:
        """The job to do now; None if there is none at this moment."""
        if self._waiting:
            cell = self._best(self._waiting, key=self._forecast.cost)
            spec = self._plan.spec(cell, self._waiting[cell].popleft())
            if not self._waiting[cell]:
                del self._waiting[cell]
            return Job(cell, spec, self._replace.get(spec.run))
        if self._deferred and self._deferred[0][0] <= time.monotonic():
            return self._deferred.popleft()[1]
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
    state = State(Forecast(plan.cells))
    queue = Queue(plan, state.forecast, order)
    for at, cell in enumerate(plan.cells):
        for number in shard.select(plan, at):
            run = plan.spec(cell, number).run
            stamp = records.stamp(run)
            result = None if stamp is None else records.result(run)
            if result is not None and result.status not in retry:
                state.count(cell, result)
            else:
                queue.add(cell, number, run, stamp)
                state.left[cell] += 1
    return state, queue


def sweep(
    plan: Plan,
    folder: Path | str,
    listener: Listener,
    *,
    engine: str = "ray",
    workers: int | None = None,
    order: Order = "longest",
    retry: Collection[str] = (),
    shard: Shard | None = None,
    execute: str = EXECUTE,
) -> State:
    """Do all runs of a plan that are not recorded in `folder`; returns where the sweep stands at the end.

    May be interrupted in any way and called again, also while another call on the same folder is at work.
    `execute` is "module:function", as in `Destination`. Raises `UserError` for a folder of another study or
    that cannot be written to, and for a full disk; what goes wrong in a run is recorded as its result.
    """
    folder = Path(folder)
    plan.write(folder)
    Records(folder).prepare()
    state, queue = survey(plan, Records(folder), order, retry, shard)
    if len(queue) == 0:
        return state
    destination = Destination(folder, plan.domain, execute)
    with make_engine(engine, destination, min(workers or cores(), len(queue))) as running:
        _drive(queue, state, running, listener)
    return state


def _drive(queue: Queue, state: State, engine: Engine, listener: Listener) -> None:
    while True:
        while engine.free and (job := queue.next()):
            engine.submit(job)
        if not engine.running and not queue:
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
