"""Halo catalogues of particle-mesh simulations over a prior of cosmologies, with shifts to test on.

Flat ΛCDM with Omega_m in 0.1..0.5 and sigma_8 in 0.6..1, drawn by a scrambled Sobol sequence; initial phases differ
from box to box. A corner of the prior is kept for `ood_prior`. Halos are friends-of-friends groups; the stored mass is
corrected for few particles (`Halos.masses`).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import qmc

from scisci.contracts.files import digest
from scisci.data.samples import CloudSample
from scisci.data.writer import StoreWriter
from scisci.generate import silent
from scisci.generate.growth import Cosmology
from scisci.generate.halos import find_halos, particle_mass
from scisci.generate.particle_mesh import Box, simulate

SEED = 20260
LOWEST, HIGHEST = np.array([0.1, 0.6]), np.array([0.5, 1.0])  # Omega_m, sigma_8
CORNER = np.array([0.4, 0.88])  # above both: kept for ood_prior
STANDARD = Box(side=128.0, particles=64, mesh=192, steps=10)
FINER = replace(STANDARD, particles=96)
FEWEST = 30


@dataclass(frozen=True)
class Population:
    """Boxes of one split."""

    boxes: int
    shift: str
    box: Box = STANDARD
    fewest: int = FEWEST
    """particles of the lightest halo"""
    corner: bool = False
    severity: float | None = None


POPULATIONS = {
    "train": Population(420, "none: Omega_m 0.1-0.5, sigma_8 0.6-1 without a corner, redshift 0, fixed order"),
    "val": Population(80, "none: other boxes of the same population"),
    "test": Population(120, "none: other boxes of the same population"),
    "ood_prior": Population(60, "prior: the corner Omega_m above 0.4 and sigma_8 above 0.88", corner=True),
    "ood_redshift": Population(60, "time: redshift 1", replace(STANDARD, end=0.5), severity=1.0),
    "ood_resolution": Population(
        60, "code: 96³ particles in place of 64³, halos of the same masses", FINER, round(FEWEST * (96 / 64) ** 3)
    ),
    "ood_density": Population(60, "tracers: halos of at least 75 particles in place of 30", fewest=75, severity=2.5),
}


@dataclass(frozen=True)
class Job:
    """One box."""

    omega_m: float
    sigma_8: float
    seed: int
    box: Box
    fewest: int

    def run(self) -> CloudSample:
        """Simulate and find the halos, on one core."""
        torch.set_num_threads(1)
        positions, velocities = simulate(Cosmology(self.omega_m, self.sigma_8), self.box, self.seed)
        halos = find_halos(positions.numpy(), velocities.numpy(), self.box.side, self.fewest)
        return CloudSample(
            positions=halos.positions,
            box=np.full(3, self.box.side),
            velocities=halos.velocities,
            masses=halos.masses(particle_mass(self.omega_m, self.box.side, self.box.particles)),
            omega_m=self.omega_m,
            sigma_8=self.sigma_8,
        )


def cosmologies(count: int, seed: int, corner: bool = False) -> NDArray[np.float64]:
    """[count, 2] Omega_m and sigma_8 that fill the corner, or all of the prior but the corner."""
    lowest = CORNER if corner else LOWEST
    points = qmc.scale(qmc.Sobol(2, rng=seed).random(1 << (2 * count).bit_length()), lowest, HIGHEST)
    return points[corner == (points > CORNER).all(axis=1)][:count]


def jobs(name: str, population: Population, seed: int) -> list[Job]:
    """The boxes of a split; the first ones are the same however many there are."""
    key = f"{name} {seed}".encode()
    # A secret seed has more bits than a checksum, which could be found by trying all.
    own = zlib.crc32(key) if seed < 2**32 else int(digest(key), 16)
    drawn = cosmologies(population.boxes, own, population.corner)
    return [Job(om, s8, own + k, population.box, population.fewest) for k, (om, s8) in enumerate(drawn.tolist())]


def run_all(work: list[Job]) -> Iterator[CloudSample]:
    """Run jobs on all cores; results come in the order of the jobs."""
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        yield from pool.map(Job.run, work)


def generate(
    out: Path,
    seed: int = SEED,
    log: Callable[[str], None] = silent,
    boxes: float = 1.0,
    only: Mapping[str, int] | None = None,
) -> None:
    """Write the whole data set to `out`: about half an hour on two cores.

    `boxes`: only this share of each split; `only`: these splits alone, with so many boxes each.
    """
    if only is None:
        only = {name: max(2, round(boxes * population.boxes)) for name, population in POPULATIONS.items()}
    with StoreWriter(out, "cloud") as writer:
        for name, count in only.items():
            chosen = replace(population := POPULATIONS[name], boxes=count)
            members: list[int] = []
            for job, sample in zip(work := jobs(name, chosen, seed), run_all(work), strict=True):
                about = {"redshift": 1 / job.box.end - 1, "particles_per_side": job.box.particles}
                members.append(writer.append(sample, f"{name} {len(members)}", fewest_particles=job.fewest, **about))
            writer.split(name, np.array(members), population.shift, population.severity, disjoint=name != "train")
            log(f"{name:16s} {chosen.boxes:4} boxes")
