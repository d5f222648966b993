from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import ulm
from ase.io.pickletrajectory import PickleTrajectory
from ase.io.trajectory import Trajectory
from ase.md.verlet import VelocityVerlet

from scisci.contracts.errors import UserError
from scisci.sources.frames import Frame
from scisci.sources.trajectory import read_trajectory


def test_dynamics_come_back_with_their_labels(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = EMT()
    expected = []

    def record() -> None:
        forces = atoms.get_forces(apply_constraint=False)
        expected.append((atoms.positions.copy(), atoms.get_potential_energy(), forces, atoms.get_stress(voigt=False)))

    dynamics = VelocityVerlet(atoms, 2.0)
    with Trajectory(str(tmp_path / "md.traj"), "w", atoms) as trajectory:
        dynamics.attach(record)
        dynamics.attach(trajectory.write)
        dynamics.run(4)
    found = [frame for frame in read_trajectory(tmp_path / "md.traj") if isinstance(frame, Frame)]
    assert len(found) == len(expected) == 5
    for frame, (positions, energy, forces, stress) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(frame.sample.positions, positions)
        np.testing.assert_array_equal(frame.sample.forces, forces)
        assert frame.sample.energy == energy
        np.testing.assert_allclose(frame.sample.stress, stress, atol=1e-15)
    # A constraint hides forces from ASE's users, not from models.
    assert np.abs(found[0].sample.forces[0]).max() > 0.01


def test_trajectory_can_be_read_again_and_counted(tmp_path: Path) -> None:
    with Trajectory(str(tmp_path / "x.traj"), "w") as trajectory:
        for length in (1, 2, 3):
            atoms = bulk("Al") * (length, 1, 1)
            atoms.calc = EMT()
            trajectory.write(atoms, energy=float(length), forces=np.zeros((length, 3)))
    frames = read_trajectory(tmp_path / "x.traj")
    assert frames.total == 3
    assert [len(frame.sample.numbers) for frame in frames if isinstance(frame, Frame)] == [1, 2, 3]


def test_pickled_trajectory_is_refused_unopened(tmp_path: Path, payload: Any) -> None:
    path = tmp_path / "old.traj"
    with PickleTrajectory(str(path), "w", _warn=False) as trajectory:
        trajectory.write(bulk("Cu"))
    assert path.read_bytes().startswith(b"PickleTrajectory")
    with pytest.raises(UserError, match=r"pickled trajectory from before ASE 3\.9, and unpickling runs"):
        read_trajectory(path)
    path.write_bytes(b"PickleTrajectory" + pickle.dumps(payload))
    with pytest.raises(UserError, match="pickled trajectory"):
        read_trajectory(path)
    assert not payload.trace.exists()


def test_array_of_objects_is_refused_and_not_unpickled(tmp_path: Path, payload: Any) -> None:
    path = tmp_path / "x.traj"
    with ulm.open(path, "w", tag="ASE-Trajectory") as file:
        file.write(version=1, pbc=[False] * 3, numbers=np.array([1]), cell=np.zeros((3, 3)).tolist())
        file.write(positions=np.frombuffer(pickle.dumps(payload).ljust(240, b"."), dtype=float).reshape(10, 3))
    content = path.read_bytes()
    assert json.dumps("float64").encode() in content
    path.write_bytes(content.replace(b'"float64"', b'"object" '))
    with pytest.raises(UserError, match=r"frame 0 of .*x\.traj cannot be read \(.*object"):
        list(read_trajectory(path, {"energy": "none", "forces": "none"}))
    assert not payload.trace.exists()


@pytest.mark.parametrize("tag", ["GPAW", None])
def test_other_file_is_refused(tmp_path: Path, tag: str | None) -> None:
    path = tmp_path / "x.traj"
    if tag is None:
        path.write_text("3\n\nH 0 0 0\n")
    else:
        with ulm.open(path, "w", tag=tag) as file:
            file.write(version=1)
    with pytest.raises(UserError, match=r"x\.traj is not an ASE trajectory"):
        read_trajectory(path)


def test_empty_trajectory_is_refused(tmp_path: Path) -> None:
    Trajectory(str(tmp_path / "x.traj"), "w").close()
    with pytest.raises(UserError, match=r"x\.traj has no frames"):
        list(read_trajectory(tmp_path / "x.traj"))
