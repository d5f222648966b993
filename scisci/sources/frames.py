"""What a source yields: frames that can be stored, and frames that cannot, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scisci.data.samples import Sample, problem


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


def checked(frame: Frame) -> Frame | BadFrame:
    """The frame, or what is wrong with its sample."""
    reason = problem(frame.sample)
    return frame if reason is None else BadFrame(frame.where, reason)
