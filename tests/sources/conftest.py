"""Conformers with real labels, and an object whose unpickling leaves a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT


@dataclass(frozen=True)
class Conformers:
    """Rattled ethanol with EMT's labels."""

    numbers: np.ndarray
    positions: np.ndarray
    """[n, N, 3] Å"""
    energies: np.ndarray
    """[n] eV"""
    forces: np.ndarray
    """[n, N, 3] eV/Å"""


def rattled(name: str, count: int) -> Conformers:
    rng, positions, energies, forces = np.random.default_rng(1), [], [], []
    for _ in range(count):
        atoms = molecule(name)
        atoms.rattle(0.05, rng=rng)
        atoms.calc = EMT()
        positions.append(atoms.positions)
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    return Conformers(atoms.numbers, np.array(positions), np.array(energies), np.array(forces))


@pytest.fixture(scope="session")
def ethanol() -> Conformers:
    return rattled("CH3CH2OH", 12)


@pytest.fixture(scope="session")
def ammonia() -> Conformers:
    return rattled("NH3", 5)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (Path(self.trace),)  # type: ignore[return-value]


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    """Its `trace` exists once any pickle of it has been loaded."""
    return Payload(tmp_path / "executed")
