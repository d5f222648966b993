"""Where runs are executed: in worker processes under Ray, or in this process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol, Self

from scisci.sweep.attempt import Destination, Job, Outcome, attempt
from scisci.sweep.plan import Cell
from scisci.sweep.resources import Needs

NeedsOf = Callable[[Cell], Needs]


class Engine(Protocol):
    """Executes jobs, as many at a time as there is room for; a context manager that holds the processes to do so."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    @property
    def running(self) -> list[tuple[Job, float]]:
        """Submitted jobs that have not come back, each with when it was submitted (`time.monotonic`)."""
        ...

    def fits(self, cell: Cell) -> bool:
        """Whether a run of the cell can be submitted now; raises `UserError` where there can never be room."""
        ...

    def share(self, cell: Cell) -> float:
        """What share of all room a run of the cell takes."""
        ...

    def submit(self, job: Job) -> None: ...

    def wait(self, timeout: float) -> list[Outcome]:
        """Outcomes that are there, waiting up to `timeout` seconds for the first."""
        ...


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class InlineEngine:
    """Executes each job in this process, in `wait`: to debug, and where something else runs the processes."""

    def __init__(self, destination: Destination, needs: NeedsOf) -> None:
        self._destination, self._needs = destination, needs
        self.running: list[tuple[Job, float]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.running.clear()

    def fits(self, cell: Cell) -> bool:
        if (devices := self._needs(cell).devices) > 1:
            from scisci.tasks.several import require_gpus

            require_gpus(devices)
        return not self.running

    def share(self, cell: Cell) -> float:
        return 1.0

    def submit(self, job: Job) -> None:
        self.running.append((job, time.monotonic()))

    def wait(self, timeout: float) -> list[Outcome]:
        outcomes = [attempt(self._destination, job, self._needs(job.cell)) for job, _ in self.running]
        self.running.clear()
        return outcomes
