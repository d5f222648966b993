"""Frames of any source into a store: which are used, which split each is in, and reference energies."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scisci.contracts.errors import UserError
from scisci.contracts.files import atomic_path
from scisci.data.card import CardSplit
from scisci.data.references import CompositionLog
from scisci.data.samples import AtomsSample
from scisci.data.splits import check_fractions, group_split, random_split
from scisci.data.writer import StoreWriter
from scisci.sources.frames import BadFrame, Frame

SHOWN = 10


@dataclass(frozen=True)
class Division:
    """How samples without a split of their own are divided at random: one by one, or by whole groups."""

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


class _Skipped:
    """Counts frames that are left out and lists all of them in a file, which is there only if there are any."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.first: list[str] = []
        self._open = ExitStack()

    def __enter__(self) -> _Skipped:
        if self.path.exists():
            raise UserError(f"{self.path} exists already; remove it first or choose another name for the store")
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def add(self, bad: BadFrame) -> None:
        """Count and list a frame."""
        line = f"{bad.where}: {bad.reason}\n"
        if not self.count:
            temporary = self._open.enter_context(atomic_path(self.path))
            self._file = self._open.enter_context(temporary.open("w", encoding="utf-8"))
        self._file.write(line)
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(line)


@dataclass(frozen=True)
class Packed:
    """What a new store holds: samples, frames left out, and atomic numbers that no sample of `train` has."""

    path: Path
    samples: int
    skipped: int
    first_skipped: tuple[str, ...]
    list_of_skipped: Path
    strange: tuple[int, ...]

    def __str__(self) -> str:
        lines = []
        if self.skipped:
            total = self.skipped + self.samples
            lines.append(f"skipped {self.skipped:,} of {total:,} frames, all listed in {self.list_of_skipped}:")
            lines += [f"  {line.rstrip()}" for line in self.first_skipped]
            lines += ["  ..."] if self.skipped > len(self.first_skipped) else []
        if self.strange:
            lines.append(
                f"mind: atomic numbers {list(self.strange)} are not in 'train', so no model trained on it can be used"
                " on them"
            )
        return "\n".join([f"wrote {self.path}: {self.samples:,} samples", *lines])


def pack(
    parts: Iterable[tuple[str | None, Iterable[Frame | BadFrame]]],
    out: Path,
    domain: str,
    division: Division,
    about: Mapping[str, CardSplit] | None = None,
    skip_bad: bool = False,
) -> Packed:
    """Write the frames of all parts to a new store at `out`.

    A part is the frames of one published split, or of none: those are divided as `division` says. `about` describes
    the splits; one that it leaves out is as drawn. Atoms with energies get per-element references, fitted on `train`.
    A frame that cannot be used is a `UserError`, or with `skip_bad` listed in `out`.skipped.txt.
    """
    check_fractions(division.fractions)
    log, owner, published = CompositionLog(), array("i"), dict[str, int]()
    with (
        _Skipped(out.with_name(f"{out.name}.skipped.txt")) as skipped,
        StoreWriter(out, domain, checked=True) as writer,
    ):
        for split, frames in parts:
            number = -1 if split is None else published.setdefault(split, len(published))
            for frame in _usable(frames, skipped if skip_bad else None):
                writer.append(frame.sample, frame.group, **frame.metadata)
                owner.append(number)
                if isinstance(frame.sample, AtomsSample) and frame.sample.energy is not None:
                    log.add(frame.sample.numbers, frame.sample.energy)
        if not len(writer):
            raise UserError(f"none of the {skipped.count:,} frames can be used; {''.join(skipped.first[:1]).strip()}")
        members = _members(np.array(owner), writer.sample_groups(), list(published), division)
        described = dict.fromkeys(members, CardSplit(shift=division.shift)) | dict(about or {})
        for name, indices in members.items():
            apart = division.by_group and name not in published and name != "train"
            writer.split(name, indices, described[name].shift, described[name].severity, disjoint=apart)
        references = log.fit(members["train"]) if log.elements else np.empty(0)
        if log.elements:
            writer.reference("energy", references)
    strange = tuple(sorted(z for z in log.elements if np.isnan(references[z])))
    return Packed(out, len(owner), skipped.count, tuple(skipped.first), skipped.path, strange)


def _usable(frames: Iterable[Frame | BadFrame], skipped: _Skipped | None) -> Iterator[Frame]:
    for frame in frames:
        if isinstance(frame, Frame):
            yield frame
        elif skipped is None:
            raise UserError(
                f"{frame.where} cannot be used: {frame.reason}; correct the file, or leave out such frames with"
                " --skip-bad"
            )
        else:
            skipped.add(frame)


def _members(owner: np.ndarray, groups: np.ndarray, published: list[str], division: Division) -> dict[str, np.ndarray]:
    """Split → its samples in random order; `owner` [n] refers to the published splits, -1 is for the rest."""
    rng = np.random.default_rng(division.seed)
    members = {name: rng.permutation(np.flatnonzero(owner == k)) for k, name in enumerate(published)}
    if len(rest := np.flatnonzero(owner < 0)):
        if twice := sorted(members.keys() & division.fractions.keys()):
            raise UserError(f"the split {twice[0]!r} comes with the data; do not draw another one of that name")
        members |= {name: rest[positions] for name, positions in division.split(groups[rest]).items()}
    if "train" not in members:
        raise UserError("no split is named train, which training needs; add train=FRACTION")
    return members
