"""One attempt at one run: claim it, execute it, record what became of it. Every engine does just this."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Literal, TextIO

from scisci.contracts.errors import DISK_FULL, UserError
from scisci.contracts.run import CHECKPOINT_FILE, RunResult, RunSpec, Status
from scisci.sweep import shortage
from scisci.sweep.plan import Cell
from scisci.sweep.records import CRASH_FILE, KEPT, Damaged, Records, clear
from scisci.sweep.resources import Needs

Execute = Callable[..., RunResult]
EXECUTE = "scisci.tasks.run:execute"
OUTPUT_FILE, TRACEBACK_FILE = "output.txt", "traceback.txt"
ROOM = 2**16


@dataclass(frozen=True)
class Job:
    """A run to execute. `replace` names the recording it may take the place of (`Records.stamp`), if any."""

    cell: Cell
    spec: RunSpec
    replace: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to.

    `done`: executed and recorded here. `recorded`: another process had recorded it. Without a result yet:
    `busy`, another process is at it; `unstarted`, the worker died before it began; `lost`, it died at work.
    """

    job: Job
    state: Literal["done", "recorded", "busy", "unstarted", "lost"]
    result: RunResult | Damaged | None = None


@dataclass(frozen=True)
class Destination:
    """The sweep's folder, where records go, and what else an attempt needs to know apart from its job.

    `execute` is "module:function", imported where the run is executed; the function has the signature
    `(spec, folder) -> RunResult`, writes its files into `folder` and raises if the run fails. For a run that has
    several GPUs it is called with their number, `gpus`; for one that was out of memory, again, with `accumulation`, the
    number of parts that each batch is to be had in.
    """

    folder: Path
    domain: str
    execute: str = EXECUTE


def load(execute: str) -> Execute:
    """Import the function "module:function" that executes a run, with all it needs."""
    module, _, function = execute.partition(":")
    with _no_garbage():
        loaded: Execute = getattr(import_module(module), function)
    return loaded


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Collect no garbage: imports leave hardly any, but looking for it takes a fifth of their time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def attempt(destination: Destination, job: Job, needs: Needs, crash_report: bool = False) -> Outcome:
    """Execute a run with what it needs and record it, unless another process holds it or has recorded it.

    With `crash_report`, a fatal signal leaves Python's stack in the run's folder (for a process of its own).
    Raises only what stops the whole sweep: a full disk, an `execute` that cannot be imported.
    """
    execute = load(destination.execute)
    if needs.devices > 1:
        execute = partial(execute, gpus=needs.devices)
    records = Records(destination.folder)
    with _full_disk_stops(destination), records.claim(job.spec.run) as held:
        if not held:
            return Outcome(job, "busy")
        # before one looks: what this machine changes in a folder shared by NFS makes it see what others have
        folder = records.begin(job.spec)
        if (recorded := _recorded(records, job)) is not None:
            shutil.rmtree(folder)
            return recorded
        _use_threads(needs.cpus)
        with _crash_report(folder) if crash_report else contextlib.nullcontext():
            result = _execute_in_memory(execute, job.spec, folder, destination.domain)
        records.commit(job.spec, result)
        return Outcome(job, "done", result)


def record_death(
    destination: Destination, job: Job, status: Status, reason: str, seconds: float, retry: bool
) -> Outcome:
    """Record a run whose process died, unless it had not begun or another process has taken it up since.

    With `retry` it is not recorded but `lost`, unless the crash was one of its own code; so are a run that has got to a
    new checkpoint in its `seconds`, and one whose process was out of memory for the first time.
    """
    records = Records(destination.folder)
    with _full_disk_stops(destination), records.claim(job.spec.run) as held:
        if not held:
            return Outcome(job, "busy")
        if (recorded := _recorded(records, job)) is not None:
            return recorded
        folder = records.partial(job.spec.run)
        if not folder.exists():
            return Outcome(job, "unstarted")
        if not _has_room(folder):
            # no fault of the run: HDF5 kills processes that cannot write
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        crash = folder / CRASH_FILE
        fatal = crash.read_text(encoding="utf-8").partition("\n")[0] if crash.exists() else ""
        if (retry or _got_on(folder, seconds)) and not fatal:
            return Outcome(job, "lost")
        reason = f"{reason}: {fatal}" if fatal else reason
        if status == "out_of_memory" and (earlier := shortage.earlier(folder)) is not None:
            reason = shortage.both(earlier, reason)
        elif status == "out_of_memory" and shortage.divisible(job.spec):
            shortage.note(folder, reason)
            return Outcome(job, "lost")
        result = _no_result(job.spec, destination.domain, status, reason, seconds)
        records.commit(job.spec, result)
        return Outcome(job, "done", result)


def _got_on(folder: Path, seconds: float) -> bool:
    checkpoint = folder / CHECKPOINT_FILE
    return checkpoint.exists() and checkpoint.stat().st_mtime > time.time() - seconds


def _recorded(records: Records, job: Job) -> Outcome | None:
    present = records.stamp(job.spec.run)
    if present is None or present == job.replace:
        return None
    return Outcome(job, "recorded", records.look(job.spec.run))


@contextlib.contextmanager
def _full_disk_stops(destination: Destination) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if _is_full_disk(error):
            raise UserError(
                f"the disk that holds {destination.folder} is full; free some space and run again"
            ) from error
        raise


def _is_full_disk(error: BaseException | None) -> bool:
    """Whether an error is, or comes of, one of a full disk; libraries that write files have errors of their own."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in DISK_FULL) or any(
            os.strerror(number) in str(error) for number in DISK_FULL
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _has_room(folder: Path) -> bool:
    """Whether something can still be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
            file.flush()
    except OSError as error:
        if error.errno in DISK_FULL:
            return False
        raise
    return True


def _execute_in_memory(execute: Execute, spec: RunSpec, folder: Path, domain: str) -> RunResult:
    """Call `execute`; where memory is short, once more with each batch in parts, also if the first was elsewhere."""
    if (reason := shortage.earlier(folder)) is None:
        result = _execute(execute, spec, folder, domain)
        if result.status != "out_of_memory" or not shortage.divisible(spec):
            return result
        reason = str(result.reason)
        shortage.note(folder, reason)
        shortage.free_memory()
    result = _execute(partial(execute, accumulation=shortage.PARTS), spec, folder, domain)
    if result.status == "out_of_memory":
        return result.model_copy(update={"reason": shortage.both(reason, str(result.reason))})
    return result.model_copy(update={"notes": (f"out of memory with whole batches: {reason}", *result.notes)})


def _execute(execute: Execute, spec: RunSpec, folder: Path, domain: str) -> RunResult:
    """Call `execute`; an exception becomes a result that gives its last line as the reason."""
    started = time.perf_counter()
    try:
        with _output_into(folder / OUTPUT_FILE):
            result = _interruptible(execute, spec, folder)
        _check_finite(result)
    except Exception as error:
        if _is_full_disk(error) or not _has_room(folder):
            clear(folder, but=(*KEPT, CRASH_FILE))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        (folder / TRACEBACK_FILE).write_text(traceback.format_exc(), encoding="utf-8")
        status: Status = "out_of_memory" if shortage.is_of(error) else "failed"
        return _no_result(spec, domain, status, _reason(error), time.perf_counter() - started)
    assert result.run == spec.run
    return result


def _interruptible(execute: Execute, spec: RunSpec, folder: Path) -> RunResult:
    try:
        return execute(spec, folder)
    except SystemExit as error:
        # Lightning answers Ctrl-C with sys.exit(1), which would end the sweep without a word
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise


def _no_result(spec: RunSpec, domain: str, status: Status, reason: str, seconds: float) -> RunResult:
    return RunResult(
        run=spec.run,
        status=status,
        reason=reason,
        domain=domain,
        learning_rate=spec.optimization.learning_rate,
        learning_rate_choice=spec.optimization.learning_rate_choice,
        seconds=seconds,
        device="unknown",
    )


def _check_finite(result: RunResult) -> None:
    """JSON has no NaN: a result with one would read back as another."""
    try:
        json.dumps(result.model_dump(), allow_nan=False)
    except ValueError as error:
        raise ValueError("a number in the run's result is not finite") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    return traceback.format_exception_only(error)[-1].strip().partition("\n")[0]


def _use_threads(count: int) -> None:
    """Runs side by side must not compete for cores; the number of threads also changes the last digits."""
    if "torch" in sys.modules:
        from scisci.tasks.threads import use_threads

        use_threads(count)


@contextlib.contextmanager
def _output_into(path: Path) -> Iterator[TextIO]:
    """Send what a run prints and warns into a file, which stays only if there is something in it."""
    with (
        open(path, "w", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield file
    if path.stat().st_size == 0:
        path.unlink()


@contextlib.contextmanager
def _crash_report(folder: Path) -> Iterator[None]:
    path = folder / CRASH_FILE
    with open(path, "w", encoding="utf-8") as file:
        faulthandler.enable(file)
        try:
            yield
        finally:
            faulthandler.disable()
    path.unlink()
