"""The data set `xtb-crystals`: GFN1-xTB labels of random alloys of diamond, boron nitride and boron phosphide.

Every sample is a zinc-blende network of 64 atoms in a periodic cell. The pairs CC, BN and BP are spread at random over
each of the two sublattices. `train` has the three crystals and the alloys of BN with the other two; `ood_composition`
the alloys of diamond with BP, whose elements are all in train but whose bonds between C and P are not.

Frames are independent of each other: a cell is strained at random and its atoms are drawn from the classical harmonic
crystal of a valence force field (`scisci.generate.keating`), which says where atoms are and nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed

from scisci.data.references import ReferenceFit
from scisci.data.samples import AtomsSample
from scisci.data.writer import StoreWriter
from scisci.generate import silent
from scisci.generate.keating import Bond, Keating
from scisci.generate.xtb import calculator, workers

SEED = 20260
METHOD = "GFN1-xTB"
FRAMES = 2
PAIRS = {"CC": (6, 6), "BN": (5, 7), "BP": (5, 15)}
SITES = bulk("BN", "zincblende", 1.0, cubic=True).repeat(2).get_scaled_positions()
# Lattice constants, Å, and bonds of the pure crystals are GFN1-xTB's own (docs/results/xtb-crystals-quality.md). Bonds
# that only alloys have: lengths of relaxed alloys, stiffness between those of the crystals they join.
LATTICE = {"CC": 3.5486, "BN": 3.6126, "BP": 4.5811}
BONDS = {
    (6, 6): Bond(1.537, 10.26, 4.35),
    (5, 7): Bond(1.564, 7.79, 3.00),
    (5, 15): Bond(1.984, 4.26, 1.49),
    (5, 6): Bond(1.60, 9.0, 3.7),
    (6, 7): Bond(1.52, 9.0, 3.7),
    (6, 15): Bond(1.86, 7.3, 2.9),
}
UNSEEN_BOND = (6, 15)
WARM, HOT = (300.0, 900.0), (2000.0, 2000.0)
SMALL_STRAIN, LARGE_STRAIN, SHEAR = (0.0, 0.025), (0.04, 0.08), 0.007


@dataclass(frozen=True)
class Population:
    """From what the samples of a split are drawn, and how that differs from `train`.

    `arrangements` random ones of each composition, with `FRAMES` frames each; temperature in K; `strain` is the
    magnitude of the isotropic linear strain. The shift is graded by `severity` or by a metadata column.
    """

    arrangements: int
    shift: str
    alloys: tuple[tuple[str, str], ...] = (("CC", "BN"), ("BN", "BP"))
    crystals: tuple[str, ...] = tuple(PAIRS)
    temperature: tuple[float, float] = WARM
    strain: tuple[float, float] = SMALL_STRAIN
    severity: float | None = None
    severity_column: str | None = None


POPULATIONS: dict[str, Population] = {
    "train": Population(16, "none: C, BN, BP and alloys of BN with C or BP, 300 to 900 K, strained by up to 2.5 %"),
    "val": Population(2, "none: other arrangements of the same compositions"),
    "test": Population(4, "none: other arrangements of the same compositions"),
    "ood_composition": Population(
        6,
        "composition: alloys of C with BP, graded by the share of bonds between C and P, which train has none of",
        alloys=(("CC", "BP"),),
        crystals=(),
        severity_column="cp_bonds",
    ),
    "ood_strain": Population(
        4,
        "strain: compressed or expanded by 4 to 8 %, graded by that strain",
        strain=LARGE_STRAIN,
        severity_column="strain_size",
    ),
    "ood_2000K": Population(2, "temperature: displacements of 2000 K", temperature=HOT, severity=2000.0),
}


@dataclass(frozen=True)
class Frame:
    """One structure before it is labelled: positions [64, 3] of atoms in a periodic cell [3, 3], Å."""

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    metadata: dict[str, float]


def compositions(population: Population) -> list[dict[str, int]]:
    """How many of the 32 pairs of each kind: every alloy in steps of an eighth, then the pure crystals."""
    mixed = [{one: 32 - count, other: count} for one, other in population.alloys for count in range(4, 32, 4)]
    return mixed + [{kind: 32} for kind in population.crystals]


def arrange(composition: dict[str, int], rng: np.random.Generator) -> np.ndarray:
    """Atomic numbers [64] of a random alloy: first atoms of the pairs on even sites, second atoms on odd ones."""
    pairs = np.array([PAIRS[kind] for kind, count in composition.items() for _ in range(count)])
    return rng.permuted(pairs, axis=0).ravel()


def draw(composition: dict[str, int], population: Population, rng: np.random.Generator) -> Iterator[Frame]:
    """`FRAMES` independent frames of one random arrangement: strained cells, alternately compressed and expanded."""
    numbers = arrange(composition, rng)
    field = Keating(SITES, numbers, BONDS)
    side = 2 * sum(LATTICE[kind] * count for kind, count in composition.items()) / 32
    for k in range(FRAMES):
        size, temperature = rng.uniform(*population.strain), rng.uniform(*population.temperature)
        strain = size if k % 2 else -size
        shear = rng.normal(0.0, SHEAR, (3, 3))
        shear = (shear + shear.T) / 2 - np.eye(3) * np.trace(shear) / 3
        cell = side * (1 + strain) * (np.eye(3) + shear)
        positions = field.thermal(field.relax(SITES @ cell, cell), cell, temperature, rng)
        metadata = {
            "temperature": temperature,
            "strain": strain,
            "strain_size": size,
            "cp_bonds": field.bonds.count(UNSEEN_BOND) / len(field.bonds),
        }
        yield Frame(numbers, positions.astype(np.float32), cell, metadata)


def label(frame: Frame) -> AtomsSample | None:
    """The frame with GFN1-xTB energy, forces and stress at its stored positions; `None` if they do not converge."""
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=True, calculator=calculator(METHOD))
    try:
        energy = atoms.get_potential_energy()
    except CalculationFailed:
        return None
    return AtomsSample(
        frame.numbers,
        frame.positions,
        frame.cell,
        atoms.pbc,
        energy=energy,
        forces=atoms.get_forces(),
        stress=atoms.get_stress(voigt=False),
    )


@dataclass(frozen=True)
class Group:
    """All labelled frames of one random arrangement of atoms, and how many could not be labelled."""

    name: str
    frames: list[tuple[AtomsSample, dict[str, float]]]
    failed: int


def jobs(seed: int) -> list[tuple[str, int, int, int]]:
    """What `group` is called with: the split, the numbers of composition and arrangement in it, and the seed."""
    return [
        (split, kind, k, seed)
        for split, population in POPULATIONS.items()
        for kind in range(len(compositions(population)))
        for k in range(population.arrangements)
    ]


def fewer_jobs(seed: int, only: Mapping[str, int]) -> list[tuple[str, int, int, int]]:
    """As `jobs`, for so many samples of these splits: one arrangement of every composition, then another of each."""
    kinds = {split: len(compositions(POPULATIONS[split])) for split in only}
    return [
        (split, i % kinds[split], i // kinds[split], seed)
        for split, samples in only.items()
        for i in range(-(-samples // FRAMES))
    ]


def group(job: tuple[str, int, int, int]) -> Group:
    """Draw and label one random arrangement."""
    split, kind, k, seed = job
    population = POPULATIONS[split]
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), kind, k])
    drawn = list(draw(compositions(population)[kind], population, rng))
    labelled = [(sample, frame.metadata) for frame in drawn if (sample := label(frame)) is not None]
    name = f"{Atoms(drawn[0].numbers).get_chemical_formula()} {split} {k}"
    return Group(name, labelled, len(drawn) - len(labelled))


def generate(
    out: Path,
    seed: int = SEED,
    processes: int | None = None,
    log: Callable[[str], None] = silent,
    only: Mapping[str, int] | None = None,
) -> None:
    """Write the whole data set to `out`; about 30 CPU minutes.

    `log` gets a line for each arrangement of atoms, with the number of its frames whose energy did not converge:
    those are left out. `only`: these splits alone, with about so many samples each.
    """
    members: dict[str, list[int]] = {split: [] for split in only or POPULATIONS}
    references = ReferenceFit()
    with StoreWriter(out, "atoms") as writer, workers(processes) as pool:
        wanted = jobs(seed) if only is None else fewer_jobs(seed, only)
        for (split, *_), made in zip(wanted, pool.map(group, wanted), strict=True):
            log(f"{made.name}: {len(made.frames)} frames, {made.failed} failed")
            for sample, metadata in made.frames:
                members[split].append(writer.append(sample, made.name, **metadata))
                if split == "train":
                    references.add(sample.numbers, float(sample.energy))  # type: ignore[arg-type]
        rng = np.random.default_rng([seed, 2])
        for split, indices in members.items():
            population = POPULATIONS[split]
            writer.split(
                split,
                rng.permutation(indices),
                population.shift,
                population.severity,
                disjoint=split != "train",
                severity_column=population.severity_column,
            )
        if "train" in members:
            writer.reference("energy", references.solve())
