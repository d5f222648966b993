"""Runs in worker processes, on one machine or on many."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from scisci.contracts.errors import UserError
from scisci.contracts.run import Status
from scisci.sweep.attempt import Destination, Job, Outcome, attempt, record_death
from scisci.sweep.cluster import Cluster, joined, local
from scisci.sweep.engine import NeedsOf, cores
from scisci.sweep.plan import Cell
from scisci.sweep.records import peek
from scisci.sweep.resources import Needs

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
STILLBORN_LIMIT = 5
LATE_SECONDS = 60.0


def own_cluster(needs: Collection[Needs], workers: int | None) -> contextlib.AbstractContextManager[Cluster]:
    """A cluster on this machine for so many workers for runs of these needs, or for as many as there is room for."""
    cpus = workers * max(one.cpus for one in needs) if workers else cores()
    return local(cpus, any(one.gpus for one in needs))


class RayEngine:
    """Executes jobs in Ray actors, a process each, on a cluster of its own or on a running one.

    Actors stay as long as runs of the same needs are to be done: the imports are paid once per worker, not per run.
    When one dies, the run it was at is lost and another actor takes its place; a run lost more than `retries` times
    is recorded with the reason. Ray is not told of the jobs that wait: what is to be done next is known from the
    records alone, so nothing is lost with it. `driver` is the record that this process keeps of itself, `cluster` one
    that is there already, which is left as it is.
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
        cluster: Cluster | None = None,
        retries: int = 1,
    ) -> None:
        self._destination, self._needs, self._cells, self._driver = destination, needs, cells, driver
        self._workers, self._most, self._retries = workers, most, retries
        self._address, self._started = address, cluster
        self._idle: defaultdict[Needs, list[Any]] = defaultdict(list)
        self._busy: dict[Any, tuple[Any, Job, float]] = {}
        self._losses: Counter[str] = Counter()
        self._proven: set[Any] = set()
        self._stillborn = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._cluster = stack.enter_context(self._open())
            self._ray = self._cluster.ray
            self._actor = self._ray.remote(_Worker)
            for cell in self._cells:
                self._see_that_it_can_run(cell)
            stack.callback(self._dismiss)
            self._stack = stack.pop_all()
        return self

    def _open(self) -> contextlib.AbstractContextManager[Cluster]:
        if self._started:
            return contextlib.nullcontext(self._started)
        if self._address and self._address != "local":
            return joined(self._address)
        return own_cluster({self._needs(cell) for cell in self._cells}, self._workers and self._limit)

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
        self._busy[actor.attempt.remote(job)] = (actor, job, time.monotonic())

    def _hire(self, needs: Needs) -> Any:
        """A worker for runs of these needs; those that wait for runs of others make room."""
        for actors in self._idle.values():
            while actors and self._load(idle=True) + self._share(needs) > 1:
                self._ray.kill(actors.pop())
        environment = dict.fromkeys(THREADS, str(needs.cpus))
        if needs.gpus == 0:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        options = {"num_cpus": needs.cpus, "num_gpus": needs.gpus or None, "memory": needs.memory or None}
        actor = self._actor.options(**options, max_restarts=0, runtime_env={"env_vars": environment})
        return actor.remote(self._destination, os.getcwd(), self._driver, needs)

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


class _Worker:
    """The actor: attempts one job after the other."""

    def __init__(self, destination: Destination, directory: str, driver: Path, needs: Needs) -> None:
        self._destination, self._directory, self._driver, self._needs = destination, directory, driver, needs
        self._ready = False

    def attempt(self, job: Job) -> Outcome:
        if not self._ready:
            # not in the constructor, where an error would look like the death of a worker
            self._see_the_folder()
            self._ready = True
        return attempt(self._destination, job, self._needs, crash_report=True)

    def _see_the_folder(self) -> None:
        """Check that this machine shares the driver's folder and its locks."""
        folder, machine = self._destination.folder, socket.gethostname()
        if not os.path.isdir(self._directory):
            raise UserError(f"{machine} has no folder {self._directory}; start from one that all machines share")
        os.chdir(self._directory)
        if not self._driver.exists():
            raise UserError(f"{machine} does not see {folder}; choose an --out that all machines share")
        is_locked, _ = peek(self._driver)
        if not is_locked:
            raise UserError(
                f"locks on files of {folder} do not reach {machine}; mount the file system with locks "
                "that all machines share"
            )
