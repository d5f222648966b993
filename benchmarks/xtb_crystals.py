"""How good GFN1-xTB is for crystals: lattice constants, elastic constants and phonons against measured ones.

tblite samples the Γ point only, so every crystal is a supercell of 64 atoms; `--repeats` shows what larger ones change.
All numbers but the lattice constants come from the very forces and stresses that label the data set `xtb-crystals`.
Times are CPU times of one thread for one structure: energy, forces and stress.

Run: OMP_NUM_THREADS=1 python -m benchmarks.xtb_crystals [--crystals C BN BP ...] [--repeats CC BN BP CC+BN BN+BP]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed

from scisci.generate import xtb_crystals
from scisci.generate.xtb import calculator

# Structure, and the measured lattice constant in Å where the search begins.
CRYSTALS = {
    "C": ("diamond", 3.567),
    "BN": ("zincblende", 3.615),
    "BP": ("zincblende", 4.538),
    "SiC": ("zincblende", 4.360),
    "Si": ("diamond", 5.431),
    "AlN": ("zincblende", 4.38),
    "GaN": ("zincblende", 4.50),
    "NaCl": ("rocksalt", 5.640),
    "LiF": ("rocksalt", 4.026),
    "MgO": ("rocksalt", 4.212),
}
SMALL, SEARCH, TRIES = 0.005, 0.01, 8
PER_CENTIMETRE = units.s / (2 * np.pi * units._c * 100)


class Crystal:
    """A supercell of 64 atoms whose cell and second sublattice can be moved."""

    def __init__(self, name: str) -> None:
        structure, self.lattice = CRYSTALS[name]
        self.sites = bulk(name, structure, 1.0, cubic=True).repeat(2)
        self.sites.calc = calculator(xtb_crystals.METHOD)
        self.scaled = self.sites.get_scaled_positions()
        self.second = np.arange(64) % 2 == 1
        self.seconds: list[float] = []

    def respond(self, strain: np.ndarray | None = None, shift: float = 0.0) -> tuple[np.ndarray, float]:
        """Stress [3, 3] in GPa and mean force along z on the second sublattice, moved by `shift` Å, in eV/Å."""
        cell = 2 * self.lattice * (np.eye(3) + (np.zeros((3, 3)) if strain is None else strain))
        self.sites.set_cell(cell)
        self.sites.positions = self.scaled @ cell + shift * np.outer(self.second, [0, 0, 1])
        start = time.thread_time()
        forces = self.sites.get_forces()
        self.seconds.append(time.thread_time() - start)
        return self.sites.get_stress(voigt=False) / units.GPa, float(forces[self.second, 2].mean())

    def settle(self) -> float:
        """Find the lattice constant without pressure by secant steps; returns the bulk modulus there in GPa."""
        for _ in range(TRIES):
            up, down = (-np.trace(self.respond(sign * SMALL * np.eye(3))[0]) / 3 for sign in (1, -1))
            modulus = (down - up) / (6 * SMALL)
            step = (up + down) / 2 / (3 * modulus)
            self.lattice *= 1 + np.clip(step, -5 * SEARCH, 5 * SEARCH)
            if abs(step) < SMALL / 5:
                return float(modulus)
        raise CalculationFailed("no lattice constant without pressure")

    def tetrahedral(self) -> str:
        """C11, C12 and C44 in GPa, and the transverse optical phonon at Γ in 1/cm."""
        axial, shear = np.diag([SMALL, 0, 0]), np.zeros((3, 3))
        shear[0, 1] = shear[1, 0] = SMALL / 2
        slope = (self.respond(axial)[0] - self.respond(-axial)[0]) / (2 * SMALL)
        (clamped, force), (moved, other) = self.respond(shear), self.respond(shear, SMALL)
        # The sublattices settle where their force vanishes; both force and stress are linear in the shift.
        relaxed = clamped + (moved - clamped) * force / (force - other)
        spring = (self.respond(None, -SMALL)[1] - self.respond(None, SMALL)[1]) / (2 * SMALL)
        one, two = self.sites.get_masses()[:2]
        phonon = np.sqrt(spring * (one + two) / (one * two)) * PER_CENTIMETRE
        return f"{slope[0, 0]:.0f} | {slope[1, 1]:.0f} | {relaxed[0, 1] / SMALL:.0f} | {phonon:.0f}"


def crystals(names: list[str]) -> None:
    """One line for each crystal."""
    print("crystal | a / Å | deviation | B / GPa | C11 | C12 | C44 | TO / cm⁻¹ | s per structure")
    for name in names:
        crystal = Crystal(name)
        try:
            modulus = crystal.settle()
            rest = crystal.tetrahedral() if CRYSTALS[name][0] != "rocksalt" else "| | |"
            off = 100 * (crystal.lattice / CRYSTALS[name][1] - 1)
            print(f"{name} | {crystal.lattice:.3f} | {off:+.1f} % | {modulus:.0f} | {rest}", end=" | ")
        except CalculationFailed as error:
            print(f"{name} | {error}", end=" | ")
        print(f"{np.median(crystal.seconds):.2f}", flush=True)


def repeats(alloys: list[str]) -> None:
    """Energy, forces and stress of a training structure when its cell is repeated, against the cell before."""
    print("alloy | atoms | eV/atom | rms force | change | largest stress | change, eV/Å³ | s")
    for alloy in alloys:
        kinds = alloy.split("+")
        composition = {kind: 32 // len(kinds) for kind in kinds}
        population = xtb_crystals.POPULATIONS["train"]
        frame = next(xtb_crystals.draw(composition, population, np.random.default_rng(3)))
        atoms, before = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=True), None
        for repeat in ((1, 1, 1), (2, 1, 1), (2, 2, 1)):
            larger = atoms.repeat(repeat)
            larger.calc = calculator(xtb_crystals.METHOD)
            start = time.thread_time()
            energy, forces = larger.get_potential_energy() / len(larger), larger.get_forces()[:64]
            seconds, stress = time.thread_time() - start, larger.get_stress(voigt=False)
            rms, change = np.sqrt(np.mean(forces**2)), (0.0, 0.0)
            if before is not None:
                change = np.sqrt(np.mean((forces - before[0]) ** 2)), abs(stress - before[1]).max()
            before = forces, stress
            print(
                f"{alloy} | {len(larger)} | {energy:.4f} | {rms:.3f} | {change[0]:.3f} | {abs(stress).max():.4f}"
                f" | {change[1]:.4f} | {seconds:.1f}",
                flush=True,
            )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", nargs="*", choices=CRYSTALS, default=list(CRYSTALS))
    parser.add_argument("--repeats", nargs="*", default=["CC", "BN", "CC+BN"])
    options = parser.parse_args()
    crystals(options.crystals)
    repeats(options.repeats)


if __name__ == "__main__":
    main()
