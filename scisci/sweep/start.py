"""How a sweep starts: its plan is made by a process of its own while Ray starts in this one."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from scisci.contracts.errors import UserError
from scisci.sweep.cluster import Cluster
from scisci.sweep.extend import plan_for
from scisci.sweep.plan import PLAN_FILE, Plan, make_plan
from scisci.sweep.study import load_study


@contextmanager
def started(
    file: Path, out: Path | None, *, engine: str, address: str | None, workers: int | None
) -> Iterator[tuple[Plan, Cluster | None]]:
    """The plan as `plan_for` has it, and for a new sweep on this machine alone the cluster that is to do it.

    Making a plan takes imports that this process has no other use for, and Ray spends as long waiting for its own
    processes. A sweep that was begun before may have nothing left to do: it gets no cluster until that is known.
    """
    elsewhere = engine == "inline" or address not in (None, "local")
    if elsewhere or out is None or (out / PLAN_FILE).exists():
        yield plan_for(file, out), None
        return
    from scisci.sweep.ray_engine import own_cluster

    study = load_study(file)
    needs = {study.needs(label, size) for label, entry in study.architectures.items() for size in entry.sizes}
    with ProcessPoolExecutor(1, get_context("spawn"), _short_lived) as pool:
        planned = pool.submit(make_plan, study)
        with own_cluster(needs, workers) as cluster:
            try:
                plan = planned.result()
            except BrokenProcessPool as error:
                raise UserError(
                    "the process that makes the plan was killed; see that there is memory for it"
                ) from error
            pool.shutdown()
            yield plan, cluster


def _short_lived() -> None:
    """End with the process that waits, leave interruptions to it, and garbage to the end."""
    Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
