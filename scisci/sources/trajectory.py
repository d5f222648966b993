"""ASE trajectories (`.traj`): arrays and JSON, so nothing is unpickled; those from before ASE 3.9 are refused.

ASE's unit is eV, and its stress is tensile positive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from ase import Atoms
from ase.io.trajectory import TrajectoryReader, VersionTooOldError

from scisci.contracts.errors import UserError
from scisci.data.samples import AtomsSample
from scisci.sources.frames import DAMAGE, BadFrame, Counted, Frame, undamaged
from scisci.sources.labels import Labels

PICKLED = b"PickleTrajectory"


def read_trajectory(path: Path | str, keys: Mapping[str, str] | None = None) -> Counted:
    """Stream a trajectory; labels are found as `Labels` says, among the calculator's results and `atoms.info`."""
    labels = Labels(keys or {})
    try:
        with open(path, "rb") as file:
            total = len(_reader(file, path))
    except DAMAGE as error:
        raise UserError(f"{path} is not an ASE trajectory ({error}); give a .traj file") from error
    return Counted(_frames(path, labels), total)


def _reader(file: BinaryIO, path: Path | str) -> TrajectoryReader:
    if file.read(len(PICKLED)) == PICKLED:
        raise UserError(
            f"{path} is a pickled trajectory from before ASE 3.9, and unpickling runs whatever code a file holds;"
            f" if you trust it, convert it with 'python -m ase.io.trajectory {path}'"
        )
    return TrajectoryReader(file)


def _frames(path: Path | str, labels: Labels) -> Iterator[Frame | BadFrame]:
    for number, atoms in enumerate(undamaged(_images(path), path, "frame")):
        yield _frame(atoms, labels, f"frame {number} of {path}")


def _images(path: Path | str) -> Iterator[Atoms]:
    try:
        with open(path, "rb") as file:
            yield from _reader(file, path)
    except VersionTooOldError as error:
        raise ValueError(error) from error


def _frame(atoms: Atoms, labels: Labels, where: str) -> Frame | BadFrame:
    results = atoms.calc.results if atoms.calc is not None else {}
    structure = AtomsSample(atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc)
    return labels.frame(where, structure, {**atoms.info, **results}, atoms.info)
