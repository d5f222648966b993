"""ASE trajectories (`.traj`): arrays and JSON, so nothing is unpickled; those from before ASE 3.9 are refused.

ASE's unit is eV, and its stress is tensile positive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

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
            pickled = file.read(len(PICKLED)) == PICKLED
        if pickled:
            raise UserError(
                f"{path} is a pickled trajectory from before ASE 3.9, and unpickling runs whatever code a file holds;"
                f" if you trust it, convert it with 'python -m ase.io.trajectory {path}'"
            )
        trajectory = TrajectoryReader(str(path))
    except DAMAGE as error:
        raise UserError(f"{path} is not an ASE trajectory ({error}); give a .traj file") from error
    return Counted(_frames(trajectory, labels, path), len(trajectory))


def _frames(trajectory: TrajectoryReader, labels: Labels, path: Path | str) -> Iterator[Frame | BadFrame]:
    with trajectory:
        for number, atoms in enumerate(undamaged(_images(trajectory), path, "frame")):
            yield _frame(atoms, labels, f"frame {number} of {path}")


def _images(trajectory: TrajectoryReader) -> Iterator[Atoms]:
    try:
        yield from trajectory
    except VersionTooOldError as error:
        raise ValueError(error) from error


def _frame(atoms: Atoms, labels: Labels, where: str) -> Frame | BadFrame:
    results = atoms.calc.results if atoms.calc is not None else {}
    structure = AtomsSample(atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc)
    return labels.frame(where, structure, {**atoms.info, **results}, atoms.info)
