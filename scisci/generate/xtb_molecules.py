"""The data set `xtb-molecules`: GFN2-xTB Langevin dynamics of small organic molecules, with four shifts.

Molecules are the closed-shell ones of ASE's g2 collection that contain hydrogen and otherwise only C, N, O, with 4 to
14 atoms. Those with up to 10 atoms are divided at random into training molecules and `ood_molecule`; the larger
ones are `ood_size`. Each stored frame is turned by a rotation drawn uniformly from SO(3), so the distribution of
the data has the symmetry that some models build in and others must learn.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.collections import g2
from ase.constraints import FixCom
from ase.data import covalent_radii
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from scipy.spatial.transform import Rotation

from scisci.data.references import ReferenceFit
from scisci.data.samples import AtomsSample
from scisci.data.writer import StoreWriter
from scisci.generate import silent
from scisci.generate.xtb import calculator, workers

SEED = 20260
TIMESTEP_FS = 0.5
FRICTION_PER_FS = 0.01
EQUILIBRATION_FS = 1000.0
STRIDE_FS = 20.0
GAP_FRAMES = 64
ATTEMPTS = 8
METHOD = "GFN2-xTB"
SMALL, LARGE = (4, 10), (11, 14)
OOD_MOLECULES = 8
TRAIN, VAL, TEST, OOD = 16_384, 1_024, 2_048, 2_048


@dataclass(frozen=True)
class Frames:
    """Frames of one trajectory: positions [T, N, 3] Å, energies [T] eV, forces [T, N, 3] eV/Å, times [T] fs."""

    molecule: str
    temperature: float
    numbers: np.ndarray
    positions: np.ndarray
    energies: np.ndarray
    forces: np.ndarray
    times: np.ndarray


def molecules(seed: int = SEED) -> dict[str, list[str]]:
    """Names of the g2 molecules used for training, for `ood_molecule` and for `ood_size`."""

    def eligible(low: int, high: int) -> list[str]:
        names = []
        for name in sorted(g2.names):
            atoms = g2[name]
            symbols = set(atoms.get_chemical_symbols())
            closed_shell = not atoms.get_initial_magnetic_moments().any()
            if closed_shell and "H" in symbols and len(symbols) > 1 and symbols <= set("HCNO"):
                names += [name] if low <= len(atoms) <= high else []
        return names

    small = np.random.default_rng(seed).permutation(eligible(*SMALL)).tolist()
    return {
        "train": sorted(small[OOD_MOLECULES:]),
        "ood_molecule": sorted(small[:OOD_MOLECULES]),
        "ood_size": eligible(*LARGE),
    }


class CameApartError(RuntimeError):
    """A molecule lost a bond."""


def _bonds(atoms: Atoms, stretch: float) -> np.ndarray:
    reach = covalent_radii[atoms.numbers]
    return atoms.get_all_distances() < stretch * (reach[:, None] + reach[None, :])


def trajectory(molecule: str, temperature: float, frames: int, seed: int = SEED) -> Frames:
    """Langevin dynamics of one molecule from its g2 geometry: `frames` frames after equilibration.

    A molecule that loses a bond (stretched beyond 1.8 times the sum of covalent radii) is a `CameApartError`: the data
    set is meant to hold intact molecules.
    """
    atoms = g2[molecule].copy()
    atoms.set_initial_magnetic_moments(None)
    atoms.calc = calculator(METHOD)
    atoms.set_constraint(FixCom())
    key = [seed, zlib.crc32(molecule.encode()), round(temperature)]
    rng = np.random.default_rng(key)
    thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
    dynamics = Langevin(
        atoms,
        timestep=TIMESTEP_FS * units.fs,
        temperature_K=temperature,
        friction=FRICTION_PER_FS / units.fs,
        rng=rng,
        fixcm=False,
    )
    bonded = _bonds(atoms, 1.3)
    stride = round(STRIDE_FS / TIMESTEP_FS)
    dynamics.run(round(EQUILIBRATION_FS / TIMESTEP_FS))
    positions: list[np.ndarray] = []
    energies: list[float] = []
    forces: list[np.ndarray] = []
    turns = Rotation.random(frames, rng=np.random.default_rng([*key, 1])).as_matrix()
    for turn in turns:
        dynamics.run(stride)
        if (bonded & ~_bonds(atoms, 1.8)).any():
            raise CameApartError(f"{molecule} came apart at {temperature} K after {len(energies)} frames")
        positions.append((atoms.positions - atoms.positions.mean(axis=0)) @ turn.T)
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces(apply_constraint=False) @ turn.T)
    times = EQUILIBRATION_FS + STRIDE_FS * np.arange(1, frames + 1)
    return Frames(
        molecule,
        temperature,
        atoms.numbers,
        np.array(positions, dtype=np.float32),
        np.array(energies),
        np.array(forces, dtype=np.float32),
        times,
    )


def _shares(total: int, names: list[str]) -> dict[str, int]:
    base, extra = divmod(total, len(names))
    return {name: base + (i < extra) for i, name in enumerate(names)}


def plan(seed: int = SEED) -> dict[tuple[str, float], dict[str, slice]]:
    """For each (molecule, temperature): which frames of its trajectory belong to which split.

    On a training molecule's 300 K trajectory `train`, `val` and `test` follow each other, 64 frames (1.28 ps) apart.
    """
    chosen = molecules(seed)
    jobs: dict[tuple[str, float], dict[str, slice]] = {}
    for name in chosen["train"]:
        at, parts = 0, {}
        for split, total in (("train", TRAIN), ("val", VAL), ("test", TEST)):
            count = _shares(total, chosen["train"])[name]
            parts[split] = slice(at, at + count)
            at += count + GAP_FRAMES
        jobs[name, 300.0] = parts
        for temperature in (600.0, 1200.0):
            share = _shares(OOD, chosen["train"])[name]
            jobs[name, temperature] = {f"ood_{temperature:.0f}K": slice(0, share)}
    for split in ("ood_molecule", "ood_size"):
        for name, count in _shares(OOD, chosen[split]).items():
            jobs[name, 300.0] = {split: slice(0, count)}
    return jobs


# Of which molecules, and at which temperature (K), the test splits are.
TESTS = {
    "test": ("train", 300.0),
    "ood_600K": ("train", 600.0),
    "ood_1200K": ("train", 1200.0),
    "ood_molecule": ("ood_molecule", 300.0),
    "ood_size": ("ood_size", 300.0),
}


def new_tests(only: Mapping[str, int]) -> dict[tuple[str, float], dict[str, slice]]:
    """As `plan`, for so many samples of these test splits, on trajectories of their own of the molecules by `SEED`."""
    chosen = molecules()
    return {
        (name, temperature): {split: slice(0, count)}
        for split, total in only.items()
        for kind, temperature in [TESTS[split]]
        for name, count in _shares(total, chosen[kind]).items()
        if count
    }


def _job(job: tuple[str, float, int, int]) -> Frames:
    """A trajectory; where the molecule comes apart, another one."""
    molecule, temperature, frames, seed = job
    for attempt in range(ATTEMPTS):
        try:
            return trajectory(molecule, temperature, frames, seed + attempt)
        except CameApartError as error:
            last = error
    raise last


def _trajectories(
    jobs: dict[tuple[str, float], dict[str, slice]], seed: int, processes: int | None
) -> Iterator[tuple[Frames, dict[str, slice]]]:
    calls = [(name, t, max(s.stop for s in parts.values()), seed) for (name, t), parts in jobs.items()]
    with workers(processes) as pool:
        yield from zip(pool.map(_job, calls), jobs.values(), strict=True)


SHIFTS: dict[str, tuple[str, float | None, bool]] = {
    "train": ("none: 300 K, training molecules, fixed permutation", 300.0, False),
    "val": ("none: later in the training trajectories", 300.0, False),
    "test": ("none: later still in the training trajectories", 300.0, False),
    "ood_600K": ("temperature: training molecules at 600 K", 600.0, False),
    "ood_1200K": ("temperature: training molecules at 1200 K", 1200.0, False),
    "ood_molecule": ("composition and structure: 8 molecules of up to 10 atoms, none in train", None, True),
    "ood_size": ("size: 11 molecules of 11 to 14 atoms, none in train", None, True),
}


def generate(
    out: Path,
    seed: int = SEED,
    processes: int | None = None,
    log: Callable[[str], None] = silent,
    only: Mapping[str, int] | None = None,
) -> None:
    """Write the whole data set to `out`; about 35 CPU minutes. `log` gets a line for each finished trajectory.

    `only`: these test splits alone, with so many samples each (`new_tests`).
    """
    jobs = plan(seed) if only is None else new_tests(only)
    members: dict[str, list[int]] = {split: [] for split in only or SHIFTS}
    references = ReferenceFit()
    with StoreWriter(out, "atoms") as writer:
        for frames, parts in _trajectories(jobs, seed, processes):
            log(f"{frames.molecule:22s} {frames.temperature:5.0f} K  {', '.join(parts)}")
            for split, part in parts.items():
                for i in range(part.start, part.stop):
                    sample = AtomsSample(
                        frames.numbers, frames.positions[i], energy=frames.energies[i], forces=frames.forces[i]
                    )
                    index = writer.append(sample, frames.molecule, temperature=frames.temperature, time=frames.times[i])
                    members[split].append(index)
                    if split == "train":
                        references.add(frames.numbers, frames.energies[i])
        rng = np.random.default_rng([seed, 2])
        for split, indices in members.items():
            shift, severity, disjoint = SHIFTS[split]
            if only is not None and split == "test":
                shift = "none: other trajectories of the training molecules"
            writer.split(split, rng.permutation(indices), shift, severity, disjoint)
        if "train" in members:
            writer.reference("energy", references.solve())
