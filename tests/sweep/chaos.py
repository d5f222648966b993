"""Sweeps whose workers and drivers are killed at random."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from scisci.contracts.results import read_results
from scisci.sweep.collect import collect
from scisci.sweep.plan import Plan
from scisci.sweep.records import Records

from .grid import DRIVER, EXECUTE, IMPORT_ROOT, wait_for

AT_WORK = "ray::Worker.attempt"[:15]  # the system keeps that much of a process's name


def chaos(
    plan: Plan, folder: Path, victims: Sequence[str], log: Path, rng: random.Random, execute: str = EXECUTE
) -> None:
    """Carry out a plan while `victims` ("worker" or "driver") are killed at random moments of its runs, in this order.

    A killed driver is started again. Raises AssertionError if the sweep ends before the last kill, or badly.
    """
    plan.write(folder)
    driver = _start(folder, execute, len(victims), log)
    try:
        for victim in victims:
            at_work = _wait_for_progress(Records(folder), driver)
            time.sleep(rng.uniform(0, 0.3))
            assert driver.poll() is None, f"the sweep ended by itself: {log.read_text()}"
            if victim == "driver":
                driver.kill()
                driver.wait()
                driver = _start(folder, execute, len(victims), log)
            else:
                os.kill(rng.choice(at_work), signal.SIGKILL)
        assert driver.wait(600) == 0, log.read_text()
    finally:
        driver.kill()
        driver.wait()


def _wait_for_progress(records: Records, driver: subprocess.Popen[bytes]) -> list[int]:
    """Workers that are at a run, once one more run is recorded."""
    recorded = lambda: sum(1 for _ in records.recorded())
    done = recorded()
    wait_for(lambda: (recorded() > done and _at_work(driver)) or driver.poll() is not None, 300)
    return _at_work(driver)


def same_tables(folders: Sequence[Path]) -> bool:
    """Whether two sweeps came to the same rows, apart from what they took."""
    paths = [collect(folder).path for folder in folders]
    first, second = (read_results(path).drop_columns(["seconds", "peak_memory", "shared"]) for path in paths)
    return bool(first.equals(second))


def _start(folder: Path, execute: str, retries: int, log: Path) -> subprocess.Popen[bytes]:
    options = json.dumps({"execute": execute, "retries": retries})
    command = [sys.executable, "-W", "error", "-c", DRIVER, str(folder), "ray", options]
    environment = os.environ | {"PYTHONPATH": str(IMPORT_ROOT)}
    with open(log, "ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, env=environment)


def _at_work(driver: subprocess.Popen[bytes]) -> list[int]:
    """Worker processes of a driver that are at a run."""
    try:
        children = psutil.Process(driver.pid).children(recursive=True)
        return [child.pid for child in children if child.name().startswith(AT_WORK)]
    except psutil.NoSuchProcess:
        return []
