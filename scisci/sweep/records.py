"""Run folders: claimed by one process at a time, written whole, read back."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import ValidationError

from scisci.contracts.errors import UserError
from scisci.contracts.files import creating
from scisci.contracts.run import CHECKPOINT_FILE, RunResult, RunSpec

if TYPE_CHECKING:
    from scisci.sweep.plan import Cell, Plan

SPEC_FILE, RESULT_FILE = "spec.json", "result.json"
# What a run goes on from that was interrupted: its last checkpoint, and why batches are to be had in parts.
SHORTAGE_FILE = "shortage.txt"
KEPT = (CHECKPOINT_FILE, SHORTAGE_FILE)
CRASH_FILE = "crash.txt"
FLUSHES = 8
R = TypeVar("R", RunSpec, RunResult)
T = TypeVar("T")


@dataclass(frozen=True)
class Damaged:
    """Stands where a run is recorded, but not to be read: no result, and no reason to do the run again unasked."""

    path: Path
    reason: str
    status: Literal["damaged"] = "damaged"
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.path} {self.reason}; add '--retry damaged' to do a planned run again"


@dataclass(frozen=True)
class Holder:
    """The process that holds a run: on which machine, and since when (seconds since 1970)."""

    host: str = "unknown"
    pid: int = 0
    since: float = field(default_factory=time.time)


class Records:
    """The runs of one sweep's folder.

    `runs/<id>` is a recorded run. While a process works on one it holds a lock on `locks/<id>` and fills
    `runs/.<id>.partial`, which becomes `runs/<id>` by a rename: nobody ever sees half a record, and a run
    whose process died is simply not there. The kernel drops a dead process's lock.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.runs = self.folder / "runs"
        self.locks = self.folder / "locks"

    def prepare(self) -> None:
        """Make the folders that runs are recorded in; where that cannot be, it is a `UserError`."""
        for folder in (self.runs, self.locks):
            with creating(folder):
                folder.mkdir(parents=True, exist_ok=True)
                # only making a file tells whether files can be made here
                tempfile.TemporaryFile(dir=folder).close()

    def path(self, run: str) -> Path:
        """Folder of a recorded run."""
        return self.runs / run

    def partial(self, run: str) -> Path:
        """Folder of a run that is being executed."""
        return self.runs / f".{run}.partial"

    def stamp(self, run: str) -> int | None:
        """Which recording of a run is present (a number that a new recording changes); None: no recording."""
        try:
            return (self.path(run) / RESULT_FILE).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def look(self, run: str) -> RunResult | Damaged | None:
        """The recorded result of a run, or what is the matter with it; None if there is none."""
        try:
            return _read(RunResult, self.path(run) / RESULT_FILE)
        except FileNotFoundError:
            return None

    def result(self, run: str) -> RunResult | None:
        """The recorded result of a run; None if there is none. One that cannot be read is a `UserError`."""
        return _sound(self.look(run))

    def spec(self, run: str) -> RunSpec:
        """The recorded spec of a run that has a result. One that cannot be read is a `UserError`."""
        return _sound(self.look_spec(run))

    def look_spec(self, run: str) -> RunSpec | Damaged:
        """The recorded spec of a run that has a result, or what is the matter with it."""
        path = self.path(run) / SPEC_FILE
        return _read(RunSpec, path) if path.exists() else Damaged(path, "is missing")

    def named(self, spec: RunSpec, earlier: Sequence[str]) -> RunSpec:
        """The spec under whose name a run is recorded: this one, or else that of the first `earlier` code that has it.

        This one where none is recorded.
        """
        if earlier and self.stamp(spec.run) is None:
            for version in earlier:
                other = spec.model_copy(update={"code_version": version})
                if self.stamp(other.run) is not None:
                    return other
        return spec

    def planned(self, plan: Plan) -> Iterator[tuple[Cell, RunSpec]]:
        """All runs of a plan with their cells, by the names that they are recorded under."""
        return ((cell, self.named(spec, plan.earlier)) for cell, spec in plan.specs())

    def recorded(self) -> Iterator[str]:
        """Names of all recorded runs, in no order, whether planned or not."""
        if self.runs.is_dir():
            with os.scandir(self.runs) as entries:
                yield from (entry.name for entry in entries if not entry.name.startswith("."))

    @contextmanager
    def claim(self, run: str) -> Iterator[bool]:
        """Yield whether this process now holds the run; what it holds, no other process can claim.

        A POSIX record lock: it belongs to the process (forked loader workers do not inherit it), ends with it
        however it ends, and works across the machines that share a file system with locks: NFS, and Lustre
        mounted with `flock`. A file system without any is a `UserError`.
        """
        self.locks.mkdir(parents=True, exist_ok=True)
        path = self.locks / run
        descriptor = lock(path)
        try:
            if descriptor is not None:
                note = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()})
                os.ftruncate(descriptor, 0)  # what a dead holder left; who looks in between sees an empty note
                os.pwrite(descriptor, note.encode(), 0)
                self._finish(run)
            yield descriptor is not None
        finally:
            if descriptor is not None:
                path.unlink()
                os.close(descriptor)

    def held(self) -> dict[str, Holder]:
        """Runs that other processes hold at this moment, and who does.

        Not for a process with a claim of its own: closing a file drops the process's locks on it.
        """
        found = {}
        for path in self.locks.iterdir() if self.locks.is_dir() else ():
            try:
                is_held, note = peek(path)
            except FileNotFoundError:
                continue
            if is_held:
                # one may look before the holder has written
                found[path.name] = Holder(**json.loads(note)) if note else Holder()
        return found

    def begin(self, spec: RunSpec) -> Path:
        """A folder to execute a claimed run in; of what a dead process left there, what a run goes on from is kept."""
        folder = self.partial(spec.run)
        folder.mkdir(parents=True, exist_ok=True)
        clear(folder, but=KEPT)
        return folder

    def commit(self, spec: RunSpec, result: RunResult) -> None:
        """Record a claimed run with all files in its partial folder; an older recording is replaced.

        The files reach the disk before the rename does, so that a power cut leaves no empty records either.
        """
        folder, final = self.partial(spec.run), self.path(spec.run)
        folder.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            (folder / name).unlink(missing_ok=True)
        (folder / SPEC_FILE).write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / RESULT_FILE).write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
        # together: what the disk does for one of them serves those that wait beside it
        with ThreadPoolExecutor(FLUSHES) as pool:
            list(pool.map(_flush, (*folder.rglob("*"), folder)))
        shutil.rmtree(self._replaced(spec.run), ignore_errors=True)
        if final.exists():
            os.replace(final, self._replaced(spec.run))
        os.replace(folder, final)
        _flush(self.runs)
        shutil.rmtree(self._replaced(spec.run), ignore_errors=True)

    def _replaced(self, run: str) -> Path:
        """Where an older recording is while a new one takes its place."""
        return self.runs / f".{run}.replaced"

    def _finish(self, run: str) -> None:
        """Finish what a process that died while it recorded a claimed run again left undone."""
        replaced = self._replaced(run)
        if replaced.exists():
            if not self.path(run).exists() and (self.partial(run) / RESULT_FILE).exists():
                os.replace(self.partial(run), self.path(run))
            shutil.rmtree(replaced, ignore_errors=True)


def clear(folder: Path, but: Sequence[str]) -> None:
    """Remove all that is in a folder, but files of these names."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in but:
            path.unlink()


def _read(record: type[R], path: Path) -> R | Damaged:
    """What a file of a record says; raises FileNotFoundError where there is none."""
    try:
        return record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        return Damaged(path, f"cannot be read ({error.strerror})")
    except ValidationError as error:
        broken = error.errors()[0]["type"] == "json_invalid"
        return Damaged(path, "is damaged" if broken else "is of another version of scisci")


def _sound(record: T | Damaged) -> T:
    if isinstance(record, Damaged):
        raise UserError(str(record))
    return record


def lock(path: Path) -> int | None:
    """Descriptor of `path`, locked; None if another process has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the holder may have removed the file between our open and our lock: then it locks nobody out
            if _is_at(descriptor, path):
                return descriptor
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            raise UserError(f"the file system of {path.parent} has no file locks; choose another --out") from error
        os.close(descriptor)


def peek(path: Path) -> tuple[bool, bytes]:
    """Whether another process has `path` locked, and what the file says."""
    with open(path, "rb") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True, file.read()
        return False, file.read()


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError as error:
        # NFS says that the file is stale where another machine has removed it
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return False


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
