"""Processes that do one thing together: they end together, and tell the process that started them why."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from scisci.contracts.errors import DISK_FULL, UserError

POLL_SECONDS = 0.05
# Names the file in which a process says why it failed.
FAILURE = "SCISCI_FAILURE_FILE"
# Failures that mean something to who records them; others are told in words.
KINDS: dict[str, type[Exception]] = {"UserError": UserError, "MemoryError": MemoryError}


def together(command: Sequence[str], count: int, folder: Path, environment: dict[str, str]) -> None:
    """Run `count` processes of a command, which calls `taking_part`, until all have ended.

    Process k has the `RANK` k and writes what it prints into `folder`, a new one. As soon as one fails all are
    killed, with the processes that they started, and its error is raised here. They also end if this process does,
    however it ends.
    """
    folder.mkdir()
    started: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(count):
            with open(folder / f"{rank}.txt", "wb") as output:
                process = subprocess.Popen(
                    command,
                    # Its end is the sign that this process has ended.
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    env=os.environ | environment | _own(rank, folder),
                    start_new_session=True,
                )
            started.append(process)
        while None in (codes := [_code(process) for process in started]) and not any(codes):
            time.sleep(POLL_SECONDS)
        if any(codes):
            raise _failure(codes, folder)
    finally:
        for process in started:
            _end(process)


def _own(rank: int, folder: Path) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0", FAILURE: str(folder / f"{rank}.json")}


def _code(process: subprocess.Popen[bytes]) -> int | None:
    """Exit code, minus the signal that ended it, or None; the process keeps its number until it is waited for."""
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, if it is there still, and all that it started."""
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failure(codes: Sequence[int | None], folder: Path) -> Exception:
    """The error of the process that failed first; one that was killed told nothing, and the others followed it."""
    told = []
    for rank, code in enumerate(codes):
        path = folder / f"{rank}.json"
        if path.exists():
            told.append(json.loads(path.read_text(encoding="utf-8")))
        elif code in DISK_FULL:  # by which exit code it told what it could not write
            return OSError(code, os.strerror(code))
        elif code:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            return RuntimeError(f"process {rank + 1} of {len(codes)} {how}")
    first = min(told, key=lambda failure: failure["time"])
    if first["errno"] is not None:
        return OSError(first["errno"], first["reason"])
    return KINDS.get(first["kind"], RuntimeError)(first["reason"])


def taking_part(act: Callable[[], None]) -> None:
    """What each of the processes does: `act`, whose error it leaves to the process that started it."""
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    try:
        act()
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        number = getattr(error, "errno", None)  # a full disk stops more than a run
        failure = {"time": time.time(), "kind": _kind(error), "errno": number, "reason": _reason(error)}
        path = Path(os.environ[FAILURE])
        written = path.with_suffix(".part")
        try:
            written.write_text(json.dumps(failure), encoding="utf-8")
            written.replace(path)
        except OSError as full:
            os._exit(full.errno or 1)
        # At once: an orderly end would wait for the other processes.
        os._exit(1)


def _end_with_the_other() -> None:
    # Not by `sys.stdin`, whose lock a forked loader process would find taken.
    while os.read(0, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _kind(error: Exception) -> str:
    # torch raises OutOfMemoryError for a device, and a bare RuntimeError from the allocator of the CPU.
    short = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return "MemoryError" if short else type(error).__name__


def _reason(error: Exception) -> str:
    kind = type(error).__name__
    return str(error) if kind in KINDS else f"{kind}: {error}".partition("\n")[0]
