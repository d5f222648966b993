"""Frames of any source into a store: which are used, which split each is in, and reference energies."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scisci.contracts.errors import UserError
from scisci.data.references import CompositionLog
from scisci.data.samples import AtomsSample
from scisci.data.splits import check_fractions, group_split, random_split
from scisci.data.writer import StoreWriter
from scisci.sources.frames import BadFrame, Frame

LISTED = 10


@dataclass
class BadFrames:
    """What becomes of frames that no store can hold: the first one is an error, or all are skipped and counted."""

    skip: bool = False
    count: int = 0
    first: list[BadFrame] = field(default_factory=list)
    """the first ten of them"""

    def usable(self, frames: Iterable[Frame | BadFrame]) -> Iterator[Frame]:
        """The frames without the bad ones; `UserError` names the first of them unless they are to be skipped."""
        for frame in frames:
            if isinstance(frame, Frame):
                yield frame
                continue
            if not self.skip:
                raise UserError(f"{frame.where} cannot be used: {frame.reason}; correct the file, or give --skip-bad")
            self.count += 1
            self.first += [frame] if len(self.first) < LISTED else []

    def report(self) -> str:
        """What was skipped, a line each, as far as it was listed."""
        lines = [f"skipped {self.count:,} frames that cannot be used:"]
        lines += [f"  {bad.where}: {bad.reason}" for bad in self.first]
        lines += [f"  and {self.count - len(self.first):,} more"] if self.count > len(self.first) else []
        return "\n".join(lines)


@dataclass(frozen=True)
class Division:
    """How samples without a split of their own are divided at random: by sample, or by whole groups."""

    fractions: Mapping[str, float]
    by_group: bool = False
    seed: int = 0

    def split(self, groups: np.ndarray) -> dict[str, np.ndarray]:
        """Split name → positions in `groups` [n], the group of each sample."""
        if self.by_group:
            return group_split(groups, self.fractions, self.seed)
        return random_split(len(groups), self.fractions, self.seed)

    @property
    def shift(self) -> str:
        """How the splits differ from `train`, in words."""
        return "none: whole groups drawn at random" if self.by_group else "none: drawn at random"


@dataclass(frozen=True)
class Published:
    """A split that the data set comes with, and how it differs from `train`."""

    name: str
    shift: str
    severity: float | None = None


@dataclass(frozen=True)
class Packed:
    """How many samples a new store has, and the atomic numbers that no sample of `train` has."""

    samples: int
    strange: tuple[int, ...]


def pack(
    parts: Iterable[tuple[Published | None, Iterable[Frame]]], out: Path, domain: str, division: Division
) -> Packed:
    """Write the frames of all parts to a new store at `out`.

    A part is the frames of one published split, or of none: those are divided as `division` says, which has to draw
    `train` unless it is published. Atoms with energies get per-element references, fitted on `train`.
    """
    check_fractions(division.fractions)
    log, groups, seen, owner = CompositionLog(), array("i"), dict[str, int](), array("i")
    published: list[Published] = []
    with StoreWriter(out, domain) as writer:
        for split, frames in parts:
            if split is not None and split not in published:
                published.append(split)
            for frame in frames:
                writer.append(frame.sample, frame.group, **frame.metadata)
                groups.append(seen.setdefault(frame.group, len(seen)))
                owner.append(-1 if split is None else published.index(split))
                if isinstance(frame.sample, AtomsSample) and frame.sample.energy is not None:
                    log.add(frame.sample.numbers, frame.sample.energy)
        members = _members(np.array(owner, dtype=int), np.array(groups, dtype=int), published, division)
        for split, indices in members.items():
            drawn = split.name in division.fractions
            writer.split(
                split.name,
                indices,
                split.shift,
                split.severity,
                disjoint=drawn and division.by_group and split.name != "train",
            )
        train = next(indices for split, indices in members.items() if split.name == "train")
        references = log.fit(train) if log.elements else np.empty(0)
        if log.elements:
            writer.reference("energy", references)
    return Packed(len(groups), tuple(sorted(z for z in log.elements if np.isnan(references[z]))))


def _members(
    owner: np.ndarray, groups: np.ndarray, published: list[Published], division: Division
) -> dict[Published, np.ndarray]:
    members = {
        split: np.random.default_rng(division.seed).permutation(np.flatnonzero(owner == number))
        for number, split in enumerate(published)
    }
    if len(rest := np.flatnonzero(owner < 0)) or not published:
        names = {split.name for split in published}
        if twice := sorted(names & set(division.fractions)):
            raise UserError(f"the split {twice[0]!r} is published with the data; do not draw another one")
        for name, positions in division.split(groups[rest]).items():
            members[Published(name, division.shift)] = rest[positions]
    if not any(split.name == "train" for split in members):
        raise UserError("no split is named train, which training needs; add train=FRACTION")
    return members
