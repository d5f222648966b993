"""Worker processes of the Ray engine: what they do, how they are hired, and how some are there before their runs."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scisci.contracts.errors import UserError
from scisci.sweep.attempt import EXECUTE, Destination, Job, Outcome, attempt, load
from scisci.sweep.cluster import Cluster, local
from scisci.sweep.engine import cores
from scisci.sweep.plan import Plan
from scisci.sweep.planning import make_plan
from scisci.sweep.records import peek
from scisci.sweep.resources import Needs
from scisci.sweep.study import Study

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# What takes longest to import of all that `EXECUTE` needs. Not scisci itself: workers that Ray starts along with itself
# do not look for modules where this process does, and might find another one.
HEAVY = ("lightning", "torch_geometric")
WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Post:
    """Where a worker records its runs, and what it sees there if its machine shares the driver's files.

    `directory` is where the driver works, `driver` the record that it keeps of itself.
    """

    destination: Destination
    directory: str
    driver: Path


class Worker:
    """The Ray actor: makes a plan, or attempts one job after the other."""

    def __init__(self) -> None:
        self._ready = False

    def prepare(self) -> None:
        """Import what training needs, before there is something to train."""
        load(EXECUTE)

    def plan(self, study: Study, directory: str) -> Plan:
        """The plan of a study, whose files are found from `directory`."""
        os.chdir(directory)
        self.prepare()
        return make_plan(study)

    def attempt(self, post: Post, job: Job, needs: Needs) -> Outcome:
        """See `scisci.sweep.attempt`."""
        if not self._ready:
            # not in the constructor, where an error would look like the death of a worker
            _take_up(post)
            load(post.destination.execute)
            # what was imported stays, and need not be looked through for garbage in every run
            gc.collect()
            gc.freeze()
            self._ready = True
        return attempt(post.destination, job, needs, crash_report=True)


def _take_up(post: Post) -> None:
    """Go to the driver's directory; `UserError` unless this machine shares that and the locks on the sweep's folder."""
    folder, machine = post.destination.folder, socket.gethostname()
    if not os.path.isdir(post.directory):
        raise UserError(f"{machine} has no folder {post.directory}; start from one that all machines share")
    os.chdir(post.directory)
    if not post.driver.exists():
        raise UserError(f"{machine} does not see {folder}; choose an --out that all machines share")
    is_locked, _ = peek(post.driver)
    if not is_locked:
        raise UserError(
            f"locks on files of {folder} do not reach {machine}; mount the file system with locks "
            "that all machines share"
        )


def hire(cluster: Cluster, needs: Needs) -> Any:
    """A new worker for runs of these needs, with as many threads as they have cores."""
    options: dict[str, Any] = {
        "num_cpus": needs.cpus,
        "num_gpus": needs.gpus or None,
        "memory": needs.memory or None,
        "max_restarts": 0,
    }
    if (environment := _environment(needs)) != cluster.environment:
        options["runtime_env"] = {"env_vars": environment}
    return cluster.ray.remote(Worker).options(**options).remote()


def _environment(needs: Needs) -> dict[str, str]:
    environment = dict.fromkeys(THREADS, str(needs.cpus))
    if needs.gpus == 0:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    elif needs.gpus is None:
        # else earlier versions of Ray hide all GPUs from who asks for none
        environment["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    return environment


def own_cluster(
    needs: Collection[Needs], workers: int | None, runs: int, execute: str = EXECUTE
) -> contextlib.AbstractContextManager[Cluster]:
    """A cluster on this machine for so many workers, or for as many as there is room for, but no more than `runs`.

    Where a core is all that each run takes, workers start along with Ray and import what is heavy while Ray waits for
    its own processes.
    """
    most, gpus, memory = (max(getattr(one, name) or 0 for one in needs) for name in ("cpus", "gpus", "memory"))
    cpus = most * min(workers or runs, runs)
    cpus = cpus if workers else min(cpus, cores())
    environment, *others = map(_environment, needs)
    if most > 1 or gpus or memory or execute != EXECUTE or any(other != environment for other in others):
        return local(cpus, gpus > 0)
    return local(cpus, False, environment, HEAVY)


@dataclass(frozen=True)
class Team:
    """A cluster of this process's own, with workers for runs of the same needs that are there before the runs are."""

    cluster: Cluster
    needs: Needs
    workers: list[Any]

    def plan(self, study: Study) -> Plan:
        """Have the first worker make the plan of a study while the others prepare; raises what `make_plan` raises."""
        from ray.exceptions import RayError, RayTaskError

        if not self.workers:
            return make_plan(study)
        for worker in self.workers[1:]:
            worker.prepare.remote()
        planned = self.workers[0].plan.remote(study, os.getcwd())
        while not self.cluster.ray.wait([planned], timeout=WAIT_SECONDS)[0]:
            self.cluster.check()
        try:
            plan: Plan = self.cluster.ray.get(planned)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            self.cluster.check()
            raise UserError("the process that makes the plan was killed; see that there is memory for it") from error
        return plan


@contextlib.contextmanager
def own_team(study: Study, workers: int | None) -> Iterator[Team]:
    """A cluster on this machine for the runs of a study, with all its workers, or one if the runs' needs differ."""
    entries = study.architectures.items()
    needs = list(dict.fromkeys(study.needs(label, size) for label, entry in entries for size in entry.sizes))
    with own_cluster(needs, workers, study.runs) as cluster:
        count = min(cluster.capacity(needs[0]), workers or study.runs)
        yield Team(cluster, needs[0], [hire(cluster, needs[0]) for _ in range(min(count, 1) if needs[1:] else count)])
