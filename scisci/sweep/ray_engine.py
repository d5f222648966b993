"""Runs in worker processes, on one machine or on many."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from scisci.contracts.errors import UserError
from scisci.contracts.run import Status
from scisci.sweep.attempt import Destination, Job, Outcome, record_death
from scisci.sweep.cluster import Cluster, joined
from scisci.sweep.engine import NeedsOf
from scisci.sweep.plan import Cell
from scisci.sweep.resources import Needs
from scisci.sweep.workers import Post, Team, hire, own_cluster

STILLBORN_LIMIT = 5
LATE_SECONDS = 60.0


class RayEngine:
    """Executes jobs in Ray actors, a process each, on a cluster of its own or on a running one.

    Actors stay as long as runs of the same needs are to be done: the imports are paid once per worker, not per run.
    When one dies, the run it was at is lost and another actor takes its place; a run lost more than `retries` times
    is recorded with the reason. Ray is not told of the jobs that wait: what is to be done next is known from the
    records alone, so nothing is lost with it. `driver` is the record that this process keeps of itself. The workers of
    a `team` become this engine's own; its cluster is left as it is.
    """

    def __init__(
        self,
        destination: Destination,
        needs: NeedsOf,
        cells: Collection[Cell],
        *,
        driver: Path,
        workers: int | None = None,
        most: int,
        address: str | None = None,
        team: Team | None = None,
        retries: int = 1,
    ) -> None:
        self._destination, self._needs, self._cells = destination, needs, cells
        self._post = Post(destination, os.getcwd(), driver)
        self._workers, self._most, self._retries = workers, most, retries
        self._address, self._team = address, team
        self._idle: defaultdict[Needs, list[Any]] = defaultdict(list)
        self._busy: dict[Any, tuple[Any, Job, float]] = {}
        self._losses: Counter[str] = Counter()
        self._proven: set[Any] = set()
        self._stillborn = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._cluster = stack.enter_context(self._open())
            self._ray = self._cluster.ray
            stack.callback(self._dismiss)
            if self._team:
                self._idle[self._team.needs].extend(self._team.workers)
            for cell in self._cells:
                self._see_that_it_can_run(cell)
            self._stack = stack.pop_all()
        return self

    def _open(self) -> contextlib.AbstractContextManager[Cluster]:
        if self._team:
            return contextlib.nullcontext(self._team.cluster)
        if self._address and self._address != "local":
            return joined(self._address)
        needs = {self._needs(cell) for cell in self._cells}
        return own_cluster(needs, self._workers, self._most, self._destination.execute)

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _dismiss(self) -> None:
        for actors in (*self._idle.values(), [actor for actor, _, _ in self._busy.values()]):
            for actor in actors:
                self._ray.kill(actor)  # at once: an interrupted run is no failed run, so it must not be recorded

    @property
    def running(self) -> list[tuple[Job, float]]:
        return [(job, since) for _, job, since in self._busy.values()]

    def fits(self, cell: Cell) -> bool:
        # a run that finds no room waits, and those after it: small runs must not keep large ones out
        needs = self._needs(cell)
        if self._idle[needs]:
            return True
        if not self._busy:
            self._see_that_it_can_run(cell)
        return bool(self._capacity(needs)) and self._load(idle=False) + self._share(needs) <= 1

    def share(self, cell: Cell) -> float:
        return float(self._share(self._needs(cell)))

    @property
    def _limit(self) -> int:
        return min(self._workers or self._most, self._most)

    def _capacity(self, needs: Needs) -> int:
        return min(self._limit, self._cluster.capacity(needs))

    def _share(self, needs: Needs) -> Fraction:
        return Fraction(1, max(1, self._capacity(needs)))

    def _load(self, idle: bool) -> Fraction:
        """Share of all room that runs take, and with `idle` also workers that wait for one."""
        workers = Counter(self._needs(job.cell) for job, _ in self.running)
        if idle:
            workers.update({needs: len(actors) for needs, actors in self._idle.items()})
        return sum((self._share(needs) * count for needs, count in workers.items()), Fraction())

    def _see_that_it_can_run(self, cell: Cell) -> None:
        needs = self._needs(cell)
        if not self._cluster.capacity(needs):
            raise UserError(
                f"a run of {cell} needs {needs}, which no machine has ({self._cluster}); lower its resources in the "
                "study, or add a machine"
            )

    def submit(self, job: Job) -> None:
        needs = self._needs(job.cell)
        actor = self._idle[needs].pop() if self._idle[needs] else self._hire(needs)
        self._busy[actor.attempt.remote(self._post, job, needs)] = (actor, job, time.monotonic())

    def _hire(self, needs: Needs) -> Any:
        """A worker for runs of these needs; those that wait for runs of others make room."""
        for actors in self._idle.values():
            while actors and self._load(idle=True) + self._share(needs) > 1:
                self._ray.kill(actors.pop())
        return hire(self._cluster, needs)

    def wait(self, timeout: float) -> list[Outcome]:
        ready, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=timeout)
        self._cluster.check()
        self._cluster.count()
        self._unblock()
        return [self._outcome(reference) for reference in ready]

    def _unblock(self) -> None:
        """See that no new worker waits without end, where machines were lost or others use the cluster."""
        late = time.monotonic() - LATE_SECONDS
        waits = any(since < late and actor not in self._proven for actor, _, since in self._busy.values())
        if waits or self._load(idle=True) > 1:
            for actors in self._idle.values():
                while actors:
                    self._ray.kill(actors.pop())
        for actor, job, _ in self._busy.values():
            if not self._cluster.capacity(self._needs(job.cell)):
                self._ray.kill(actor)

    def _outcome(self, reference: Any) -> Outcome:
        from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

        actor, job, since = self._busy[reference]
        try:
            outcome: Outcome = self._ray.get(reference)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            # if the whole cluster is gone, no run is to blame
            self._cluster.check()
            self._cluster.count(anew=True)
            self._ray.kill(actor)
            short = isinstance(error, OutOfMemoryError)
            status: Status = "out_of_memory" if short else "failed"
            retry = not short and self._losses[job.spec.run] < self._retries
            outcome = record_death(
                self._destination, job, status, self._obituary(error, job), time.monotonic() - since, retry
            )
            self._losses[job.spec.run] += outcome.state == "lost" and not short
        else:
            self._idle[self._needs(job.cell)].append(actor)
            self._proven.add(actor)
        del self._busy[reference]
        self._stillborn = self._stillborn + 1 if outcome.state == "unstarted" else 0
        if self._stillborn > STILLBORN_LIMIT + self._limit:
            raise UserError(
                "worker processes die before they begin a run; see why with '--engine inline', or use fewer --workers"
            )
        return outcome

    def _obituary(self, error: Exception, job: Job) -> str:
        """Why a worker died, as far as it is known, and how often."""
        text = str(error)
        times = self._losses[job.spec.run] + 1
        often = f", {times} times in a row" if times > 1 else ""
        if "SIGTERM" in text:
            return f"the worker process was told to end (SIGTERM){often}"
        if type(error).__name__ == "OutOfMemoryError":
            return "the worker process was killed because the machine was short of memory"
        return f"the worker process died, as after SIGKILL or the loss of its machine{often}"
