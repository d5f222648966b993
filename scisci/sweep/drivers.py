"""Who carries out a sweep: a record per driver, which also says how it ended."""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scisci.contracts.errors import UserError
from scisci.contracts.files import creating
from scisci.sweep.records import lock, peek

FOLDER = "drivers"
END_BYTES = 4096
LONGEST_REASON = 600  # characters, of up to six bytes in JSON


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


R = TypeVar("R", bound=_Record)


class Start(_Record):
    """What a driver says of itself when it begins."""

    schema_version: Literal[1] = 1
    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)
    at: float = Field(default_factory=time.time, description="seconds since 1970")
    engine: str
    shard: str | None = None
    address: str | None = None


class End(_Record):
    """How a driver ended: with nothing left to do, out of time, interrupted, or by an error."""

    kind: Literal["done", "budget", "interrupted", "error"]
    reason: str | None = None
    at: float = Field(default_factory=time.time, description="seconds since 1970")


@dataclass(frozen=True)
class Driver:
    """A driver as its record shows it; one that is neither at work nor has an end was killed.

    The start is None where the record was lost, as by a power cut.
    """

    path: Path
    start: Start | None
    end: End | None
    at_work: bool


class Driving:
    """Keeps the record of this process's part in a sweep while it is entered.

    `DIR/drivers/<time>-<id>.jsonl` has two lines, the `Start` and the `End`. The place of the second is taken from
    the beginning, so that a driver which a full disk stops can still say so. The process holds a POSIX lock on the
    file, as on the runs at work: so others see that it is there, and that it is gone, however it went.
    """

    def __init__(self, folder: Path, start: Start) -> None:
        self.start = start
        began = time.strftime("%Y%m%dT%H%M%S", time.gmtime(start.at))
        self.path = folder / FOLDER / f"{began}-{uuid.uuid4().hex[:8]}.jsonl"
        self.left = 0

    def __enter__(self) -> Self:
        first = self.start.model_dump_json().encode() + b"\n"
        with creating(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = lock(self.path)
            assert descriptor is not None
            try:
                os.pwrite(descriptor, first + b" " * (END_BYTES - 1) + b"\n", 0)
                os.fsync(descriptor)
            except BaseException:  # who is interrupted here has not begun
                self.path.unlink()
                os.close(descriptor)
                raise
        self._descriptor, self._offset = descriptor, len(first)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.pwrite(self._descriptor, self._end(error).model_dump_json().encode(), self._offset)
        os.fsync(self._descriptor)
        os.close(self._descriptor)

    def _end(self, error: BaseException | None) -> End:
        if error is None:
            return End(kind="budget", reason=f"{self.left} runs left out") if self.left else End(kind="done")
        if isinstance(error, KeyboardInterrupt):
            return End(kind="interrupted")
        if isinstance(error, SystemExit):
            return End(kind="interrupted", reason="told to end (SIGTERM)")
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        # a path need not be text
        return End(kind="error", reason=reason[:LONGEST_REASON].encode(errors="replace").decode())


class Drivers:
    """The drivers of a sweep, past and present; what cannot change any more is read once."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder) / FOLDER
        self._gone: dict[str, Driver] = {}

    def look(self) -> list[Driver]:
        """All drivers, those at work first, then by when they began, the last first.

        Not for a process that is one of them, as `Records.held`.
        """
        found = [self._gone.get(path.name) or self._read(path) for path in sorted(self._folder.glob("*.jsonl"))]
        return sorted(found, key=lambda driver: (driver.at_work, driver.path.name), reverse=True)

    def _read(self, path: Path) -> Driver:
        at_work, text = peek(path)
        first, _, second = text.partition(b"\n")
        end = None if at_work or not second.strip() else _parsed(End, second)
        driver = Driver(path, _parsed(Start, first), end, at_work)
        if not at_work and driver.start:  # one without may be about to begin
            self._gone[path.name] = driver
        return driver


def _parsed(record: type[R], text: bytes) -> R | None:
    try:
        return record.model_validate_json(text)
    except ValidationError:
        return None
