"""Where runs are executed: in worker processes under Ray, or in this process."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol, Self

from scisci.contracts.errors import UserError
from scisci.contracts.run import Status
from scisci.sweep.attempt import Destination, Job, Outcome, attempt, record_death

ENGINES = ("ray", "inline")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
STILLBORN_LIMIT = 5
PACKAGE = Path(__file__).resolve().parents[1]
OBJECT_STORE_BYTES = 80 * 2**20  # near Ray's least: jobs and outcomes are a few kB


class Engine(Protocol):
    """Executes jobs, at most `workers` at a time; a context manager that holds the processes to do so."""

    workers: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    @property
    def free(self) -> int:
        """How many more jobs can be submitted now."""
        ...

    @property
    def running(self) -> list[tuple[Job, float]]:
        """Submitted jobs that have not come back, each with when it was submitted (`time.monotonic`)."""
        ...

    def submit(self, job: Job) -> None: ...

    def wait(self, timeout: float) -> list[Outcome]:
        """Outcomes that are there, waiting up to `timeout` seconds for the first."""
        ...


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_engine(name: str, destination: Destination, workers: int) -> Engine:
    """The engine called `name` (one of `ENGINES`)."""
    return InlineEngine(destination) if name == "inline" else RayEngine(destination, workers)


class InlineEngine:
    """Executes each job in this process, in `wait`: to debug, and where something else runs the processes."""

    workers = 1

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self.running: list[tuple[Job, float]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.running.clear()

    @property
    def free(self) -> int:
        return 1 - len(self.running)

    def submit(self, job: Job) -> None:
        self.running.append((job, time.monotonic()))

    def wait(self, timeout: float) -> list[Outcome]:
        outcomes = [attempt(self._destination, job) for job, _ in self.running]
        self.running.clear()
        return outcomes


class RayEngine:
    """Executes jobs in Ray actors, one process and one thread each, on a local cluster of its own.

    Actors stay: the imports are paid once per worker, not per run. When one dies, the run it was at is
    recorded with the reason and another takes its place. Ray is not told of the jobs that wait: what is to be
    done next is known from the records alone, so nothing is lost with it.
    """

    def __init__(self, destination: Destination, workers: int) -> None:
        self.workers = workers
        self._destination = destination
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Job, float]] = {}
        self._stillborn = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            parent = os.environ.get("RAY_TMPDIR", "/tmp")
            temporary = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="scisci-", dir=parent, ignore_cleanup_errors=True)
            )
            self._ray = _start_ray(self.workers, temporary)
            stack.callback(self._ray.shutdown)
            options = {"num_cpus": 1, "max_restarts": 0, "runtime_env": {"env_vars": ONE_THREAD}}
            self._actor = self._ray.remote(_Worker).options(**options)
            self._idle = [self._hire() for _ in range(self.workers)]
            stack.callback(self._dismiss)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _dismiss(self) -> None:
        for actor in (*self._idle, *(actor for actor, _, _ in self._busy.values())):
            self._ray.kill(actor)  # at once: an interrupted run is no failed run, so it must not be recorded

    def _hire(self) -> Any:
        return self._actor.remote(self._destination, os.getcwd())

    @property
    def free(self) -> int:
        return len(self._idle)

    @property
    def running(self) -> list[tuple[Job, float]]:
        return [(job, since) for _, job, since in self._busy.values()]

    def submit(self, job: Job) -> None:
        actor = self._idle.pop()
        self._busy[actor.attempt.remote(job)] = (actor, job, time.monotonic())

    def wait(self, timeout: float) -> list[Outcome]:
        ready, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=timeout)
        return [self._outcome(reference) for reference in ready]

    def _outcome(self, reference: Any) -> Outcome:
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

        actor, job, since = self._busy.pop(reference)
        try:
            outcome: Outcome = self._ray.get(reference)
        except RayTaskError as error:
            raise error.cause from error
        except (OutOfMemoryError, RayActorError) as error:
            self._idle.append(self._hire())
            status: Status = "out_of_memory" if isinstance(error, OutOfMemoryError) else "failed"
            outcome = record_death(self._destination, job, status, _obituary(error), time.monotonic() - since)
        else:
            self._idle.append(actor)
        self._stillborn = self._stillborn + 1 if outcome.state == "unstarted" else 0
        if self._stillborn > STILLBORN_LIMIT:
            raise UserError(
                "worker processes die before they begin a run; see why with '--engine inline', or use fewer --workers"
            )
        return outcome


class _Worker:
    """The actor: attempts one job after the other."""

    def __init__(self, destination: Destination, directory: str) -> None:
        os.chdir(directory)
        self._destination = destination

    def attempt(self, job: Job) -> Outcome:
        return attempt(self._destination, job, crash_report=True)


def _start_ray(workers: int, temporary: str) -> Any:
    """A local Ray cluster that keeps to itself: no dashboard, no usage statistics, nothing on the terminal.

    Its processes end with this one, however it ends.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray would run workers at low priority, which anything else on the machine slows down several times over.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # reports of dead workers would break into the progress bar; the run's record says it better
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    import ray

    # workers look for modules first where Ray starts: so they find this scisci, not that of a checkout
    with contextlib.chdir(PACKAGE.parent):
        ray.init(
            address="local",
            num_cpus=workers,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=temporary,
        )
    return ray


def _obituary(error: Exception) -> str:
    """Why a worker died, as far as it is known."""
    text = str(error)
    if "SIGTERM" in text:
        return "the worker process was told to end (SIGTERM)"
    if type(error).__name__ == "OutOfMemoryError":
        return "the worker process was killed because the machine was short of memory"
    return "the worker process died, as after SIGKILL or a crash in native code"
