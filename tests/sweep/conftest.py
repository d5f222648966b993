"""Drivers in processes of their own, and a count of what is trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .grid import DRIVER, IMPORT_ROOT

# Ray reads it when it is imported, which some tests do before a sweep does.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Counter[str]]:
    """How often each run was started or ended, in this process and in those it starts."""
    folder = tmp_path / "journal"
    folder.mkdir()
    monkeypatch.setenv("SWEEP_JOURNAL", str(folder))
    return lambda event: Counter(p.name.split(".")[0] for p in folder.glob(f"[!.]*.{event}.*"))


@pytest.fixture
def workers_find_tests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Worker processes import `regression` as this one does, and Ray's files go when the test ends."""
    monkeypatch.setenv("PYTHONPATH", str(IMPORT_ROOT))
    # not tmp_path: the paths of Ray's sockets must be short
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="r-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield


@pytest.fixture
def start_driver(tmp_path: Path, workers_find_tests: None) -> Any:
    """Start drivers of a folder's plan, each in its own process group; the end of the test kills them."""
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: Path, engine: str, prelude: str = "", **options: Any) -> subprocess.Popen[bytes]:
        with open(tmp_path / f"driver-{len(started)}.log", "wb") as log:
            command = [sys.executable, "-W", "error", "-c", prelude + DRIVER, str(folder), engine, json.dumps(options)]
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=os.environ)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that holds 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True)
    if mount.returncode:
        pytest.skip("this user may not mount file systems")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
