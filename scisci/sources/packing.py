"""Frames of any source into a store: which are used, which split each is in, and reference energies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scisci.contracts.errors import UserError
from scisci.contracts.files import atomic_path
from scisci.data.card import CardSplit
from scisci.data.references import fit_references
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

    def split(self, ranges: list[range], shards: list[h5py.File]) -> dict[str, np.ndarray]:
        """Split name → those of the samples in `ranges` that are in it; `shards` have their groups."""
        if self.by_group:
            groups = np.concatenate([shard["samples/group"][...] for shard in shards])
            parts = group_split(groups[_indices(ranges)], self.fractions, self.seed)
        else:
            parts = random_split(sum(map(len, ranges)), self.fractions, self.seed)
        if len(ranges) == 1 and not ranges[0].start:
            return parts  # spares an import without published splits two copies of all indices
        samples = _indices(ranges)
        return {name: samples[positions] for name, positions in parts.items()}

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
    parted: dict[str | None, list[range]] = {}
    with (
        _Skipped(out.with_name(f"{out.name}.skipped.txt")) as skipped,
        StoreWriter(out, domain, checked=True) as writer,
    ):
        for split, frames in parts:
            start = len(writer)
            for frame in _usable(frames, skipped if skip_bad else None):
                writer.append(frame.sample, frame.group, **frame.metadata)
            parted.setdefault(split, []).append(range(start, len(writer)))
        if not len(writer):
            raise UserError(f"none of the {skipped.count:,} frames can be used; {''.join(skipped.first[:1]).strip()}")
        shards, strange, samples = writer.written(), list[int](), len(writer)
        members = _members(parted, shards, division)
        described = dict.fromkeys(members, CardSplit(shift=division.shift)) | dict(about or {})
        for name, indices in members.items():
            apart = division.by_group and name not in parted and name != "train"
            writer.split(name, indices, described[name].shift, described[name].severity, disjoint=apart)
        if domain == "atoms" and "energy" in shards[0]["samples"]:
            references, strange = fit_references(shards, members["train"])
            writer.reference("energy", references)
    return Packed(out, samples, skipped.count, tuple(skipped.first), skipped.path, tuple(strange))


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


def _indices(ranges: list[range]) -> np.ndarray:
    return np.concatenate([np.arange(samples.start, samples.stop) for samples in ranges])


def _members(
    parted: Mapping[str | None, list[range]], shards: list[h5py.File], division: Division
) -> dict[str, np.ndarray]:
    """Split → its samples in random order; `parted` has those of the published splits, and under `None` the rest."""
    rng = np.random.default_rng(division.seed)
    members = {name: rng.permutation(_indices(ranges)) for name, ranges in parted.items() if name is not None}
    if rest := [samples for samples in parted.get(None, []) if samples]:
        if twice := sorted(members.keys() & division.fractions.keys()):
            raise UserError(f"the split {twice[0]!r} comes with the data; do not draw another one of that name")
        members |= division.split(rest, shards)
    if "train" not in members:
        raise UserError("no split is named train, which training needs; add train=FRACTION")
    return members
