"""Opening a predictions file that anybody may have made, once nothing about it can do harm.

The HDF5 library can be made to crash, or to search for ever, by a file that contradicts itself. So another process
looks at every file first, with little memory and time (`hdf5_faults`), and this one opens what it found harmless.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from scisci.contracts.errors import UserError
from scisci.leaderboard.hdf5_faults import quoted

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MOST_BYTES = 256 * 2**20
SECONDS = 30.0


class Refused(UserError):
    """A predictions file that is not opened; `faults` are all that was found, a clause each."""

    def __init__(self, path: Path, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(f"{path} {'; it '.join(self.faults)}")


@contextmanager
def open_untrusted(path: Path, root: Path) -> Iterator[h5py.File]:
    """Open a predictions file inside the folder `root` for reading; nobody else may be writing there.

    Raises `Refused`, with all that is wrong; also where the file turns out to be damaged while it is read.
    """
    if faults := [fault] if (fault := place_fault(path, root) or signature_fault(path)) else _inspector.faults(path):
        raise Refused(path, faults)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise Refused(path, ["is damaged (a checksum or a chunk is wrong); write it again"]) from error


def place_fault(path: Path, root: Path, most: int = MOST_BYTES) -> str | None:
    """What is wrong with where a file is, of what kind and how large it is: a clause, or None."""
    if not path.is_relative_to(root) or ".." in (inside := path.relative_to(root)).parts:
        return "lies outside of the submission; give a file inside its folder"
    for place in (path, *list(path.parents)[: len(inside.parts)])[::-1]:
        if place.is_symlink():
            return f"is reached by the symbolic link {quoted(place.name)}; put the file itself there"
        if not place.exists():
            return "is missing; add the file, or take the split off the run's list"
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file; put one there"
    if found.st_size > most:
        return f"has {found.st_size / 2**20:,.1f} MiB, more than {most // 2**20} MiB; make it smaller"
    return None


def signature_fault(path: Path) -> str | None:
    """What a file is that does not begin as HDF5 does: a clause, or None."""
    with open(path, "rb") as file:
        begin = file.read(len(SIGNATURE))
    if begin == SIGNATURE:
        return None
    kinds = {b"\x80": "a pickle", b"PK": "a zip archive (as of torch.save or npz)", b"\x93NUMPY": "a NumPy array"}
    kind = next((f", but {kind}" for mark, kind in kinds.items() if begin.startswith(mark)), "")
    return f"is not HDF5{kind}; write predictions with 'scisci predict' or 'scisci evaluate'"


class _Inspector:
    """The process that looks at files; started when it is first asked, and again after it crashed or hung."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._harmless: set[tuple[int, ...]] = set()

    def faults(self, path: Path) -> list[str]:
        """All that is wrong with a file, a clause each; one that has not changed since is not looked at again."""
        status = path.lstat()
        version = (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)
        with self._lock:
            if version in self._harmless:
                return []
            answer = self._ask(json.dumps(str(path.absolute())).encode() + b"\n")
        if answer is None:
            return ["makes the HDF5 library crash or run on without end; write it again"]
        if "bug" in answer:
            raise AssertionError(answer["bug"])
        if not answer["faults"]:
            self._harmless.add(version)
        return list(answer["faults"])

    def _ask(self, line: bytes) -> dict[str, list[str]] | None:
        """The answer to a line, or None where there was none in time."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        answer, deadline = b"", time.monotonic() + SECONDS
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready or not (part := os.read(process.stdout.fileno(), 2**16)):
                self.stop()
                return None
            answer += part
        found: dict[str, list[str]] = json.loads(answer)
        return found

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.stop()
        if self._process is None or self._owner != os.getpid():
            # Without the working folder on its path (-P), where a stranger's modules may lie.
            command = [sys.executable, "-P", "-m", "scisci.leaderboard.hdf5_faults"]
            paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
            self._process, self._owner = (
                subprocess.Popen(
                    command,
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                ),
                os.getpid(),
            )
        return self._process

    def stop(self) -> None:
        """End the process, if this one started it."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            with self._process:
                self._process = None


_inspector = _Inspector()
atexit.register(_inspector.stop)
