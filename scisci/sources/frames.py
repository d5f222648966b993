"""What a source yields: frames that can be stored, and frames that cannot, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from scisci.contracts.errors import UserError
from scisci.data.samples import Sample, problem

T = TypeVar("T")
# What libraries raise where a file's content is not what its format says.
DAMAGE = (
    *(OSError, EOFError, MemoryError, ArithmeticError),
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError),
)


@dataclass(frozen=True)
class Frame:
    """One sample of a source file, in the project's units."""

    where: str
    """Names the frame in messages: "frame 3 of water.xyz"."""
    sample: Sample
    group: str
    """The molecule, simulation or series it belongs to."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Columns to keep beside the sample: numbers or short strings, the same in every frame."""


@dataclass(frozen=True)
class BadFrame:
    """A frame that no store can hold, such as one with NaN, overlapping atoms or no atoms at all."""

    where: str
    reason: str


@dataclass(frozen=True)
class Counted:
    """Frames whose number is known before they are read, so that progress can be shown."""

    frames: Iterator[Frame | BadFrame]
    total: int

    def __iter__(self) -> Iterator[Frame | BadFrame]:
        return self.frames

    def __length_hint__(self) -> int:
        return self.total


def checked(frame: Frame) -> Frame | BadFrame:
    """The frame, or what is wrong with its sample."""
    reason = problem(frame.sample)
    return frame if reason is None else BadFrame(frame.where, reason)


def undamaged(items: Iterator[T], path: Path | str, kind: str) -> Iterator[T]:
    """The items of a file; what a library raises where the file is damaged becomes a `UserError` that says where.

    `kind` names the items ("row", "frame"). A file without any is a `UserError` too.
    """
    for number in count():
        try:
            item = next(items)
        except StopIteration:
            if not number:
                raise UserError(f"{path} has no {kind}s; give a file with at least one") from None
            return
        except DAMAGE as error:
            reason = str(error) or type(error).__name__
            raise UserError(f"{kind} {number} of {path} cannot be read ({reason}); get the file again") from error
        yield item
