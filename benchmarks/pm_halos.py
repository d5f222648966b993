"""The simulator of pm-halos: where its time goes, and what an expert would ask of it before using its halos.

Averages are over seeds, with the standard error of the mean; times are CPU seconds on one core. The mass function is
compared with Watson et al. (2013) and Sheth and Tormen (1999) for friends-of-friends halos, through colossus.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import replace

import numpy as np
import torch
from colossus.cosmology import cosmology as colossus
from colossus.lss import mass_function
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scisci.generate.growth import HUBBLE, OMEGA_B, TILT, Cosmology
from scisci.generate.halos import Halos, find_halos, particle_mass
from scisci.generate.particle_mesh import Box, CloudInCell, linear_density, simulate
from scisci.generate.pm_halos import FEWEST, STANDARD

MODEL, SEEDS = Cosmology(0.3175, 0.834), range(8)
FACTORS = np.array([1, 1.5, 2.2, 3.3, 5, 8, 13, 25])  # edges of mass bins, in halos of the fewest particles
Array = NDArray[np.float64]


def run(box: Box, seed: int, model: Cosmology = MODEL) -> tuple[Halos, torch.Tensor, torch.Tensor, dict[str, float]]:
    """Halos, particles' positions and velocities, and CPU seconds of each part."""
    seconds, last = {}, [time.process_time()]

    def clock(part: str) -> None:
        now = time.process_time()
        seconds[part], last[0] = now - last[0], now

    positions, velocities = simulate(model, box, seed, clock)
    halos = find_halos(positions.numpy(), velocities.numpy(), box.side, FEWEST)
    clock("halo finder")
    return halos, positions, velocities, seconds


def expected_counts(edges: Array, box: Box, published: str, model: Cosmology = MODEL) -> Array:
    """Halos in a box by mass bin, from a published mass function."""
    parameters = {"H0": 100 * HUBBLE, "Ob0": OMEGA_B, "ns": TILT, "Om0": model.omega_m, "sigma8": model.sigma_8}
    colossus.setCosmology("benchmark", params={"flat": True, "relspecies": False, **parameters}, persistence="")
    counts = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        masses = np.geomspace(low, high, 24)
        options = {"mdef": "fof", "model": published, "q_out": "dndlnM", "ps_args": {"model": "eisenstein98"}}
        density = mass_function.massFunction(masses, 1 / box.end - 1, **options)
        counts.append(np.trapezoid(density, np.log(masses)) * box.side**3)
    return np.array(counts)


def mass_edges(box: Box) -> Array:
    """Edges of the mass bins, Msun/h; the first is the lightest halo."""
    lightest = FEWEST * (1 - FEWEST**-0.6) * particle_mass(MODEL.omega_m, STANDARD.side, STANDARD.particles)
    return lightest * FACTORS * (box.side / STANDARD.side) ** 3


def show_counts(box: Box, found: list[Halos]) -> None:
    """Counts by mass bin, summed over seeds, and their ratios to published mass functions."""
    edges, mass = mass_edges(box), particle_mass(MODEL.omega_m, box.side, box.particles)
    counts = np.stack([np.histogram(h.masses(mass), edges)[0] for h in found])
    total, error = counts.sum(0), counts.std(0, ddof=1) * math.sqrt(len(found))
    print(f"{'Msun/h from':>12} {'halos':>6} {'/ Watson':>14} {'/ Sheth-Tormen':>15}")
    ratios = {name: total / (len(found) * expected_counts(edges, box, name)) for name in ("watson13", "sheth99")}
    for k, low in enumerate(edges[:-1]):
        share = error[k] / total[k]
        watson, sheth = (f"{ratios[name][k]:.2f} ± {ratios[name][k] * share:.2f}" for name in ratios)
        print(f"{low:12.2e} {total[k]:6d} {watson:>14} {sheth:>15}")


def show_times(sides: tuple[int, ...] = (32, 64, 96)) -> None:
    """Where the time goes at mesh = 2 and 3 times the particles, over three sizes."""
    print("\nCPU seconds of one box, median of 3, by particles and mesh per side")
    for particles in sides:
        for factor in (2, 3):
            box = replace(STANDARD, particles=particles, mesh=factor * particles)
            rows = [run(box, seed)[3] for seed in range(3)]
            parts = {part: float(np.median([row[part] for row in rows])) for part in rows[0]}
            split = ", ".join(f"{part} {seconds:.2f}" for part, seconds in parts.items())
            print(f"{particles:4d} {box.mesh:4d}  {sum(parts.values()):6.2f} ({split})", flush=True)


def show_spectra(box: Box, particles: list[torch.Tensor], model: Cosmology = MODEL) -> None:
    """Matter power over that of the box's own linear modes, by k; with seeds from 0 on."""
    k = 2 * math.pi * np.fft.fftfreq(64, box.side / 64)
    size = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + np.abs(k[None, None, :33]) ** 2)
    window = np.prod(np.meshgrid(*[np.sinc(np.fft.fftfreq(64))] * 2, np.sinc(np.fft.rfftfreq(64)), indexing="ij"), 0)
    edges = np.array([0.03, 0.08, 0.15, 0.25, 0.4, 0.7, 1.1])
    ratios = []
    for seed, positions in enumerate(particles):
        grown = torch.fft.rfftn(CloudInCell(positions, 64, box.side).paint()).numpy() / window**2
        linear = linear_density(model, replace(box, particles=64), seed).numpy()
        sums = [np.histogram(size, edges, weights=np.abs(f) ** 2)[0] for f in (grown, linear)]
        ratios.append(sums[0] / sums[1])
    mean, error = np.mean(ratios, 0), np.std(ratios, 0, ddof=1) / math.sqrt(len(ratios))
    print(f"\nP / P_linear of the same modes, sigma_8 {model.sigma_8}")
    for low, high, m, e in zip(edges[:-1], edges[1:], mean, error, strict=True):
        print(f"k {low:.2f}-{high:.2f} h/Mpc: {m:.3f} ± {e:.3f}")


def show_correlation(box: Box, found: list[Halos]) -> None:
    """Two-point function of the halos, by natural counts in the periodic box."""
    edges = np.array([1.0, 2, 4, 8, 12, 18, 26])
    shells = np.diff(4 / 3 * np.pi * edges**3)
    rows = []
    for halos in found:
        tree, n = cKDTree(halos.positions, boxsize=box.side), len(halos.positions)
        pairs = np.diff(tree.count_neighbors(tree, edges)) / (n * (n - 1) / box.side**3 * shells)
        rows.append(pairs - 1)
    mean, error = np.mean(rows, 0), np.std(rows, 0, ddof=1) / math.sqrt(len(rows))
    print("\nhalo two-point function")
    for low, high, m, e in zip(edges[:-1], edges[1:], mean, error, strict=True):
        print(f"r {low:4.0f}-{high:.0f} Mpc/h: {m:+.3f} ± {e:.3f}")


def show_velocities() -> None:
    """Dispersion of halo velocities along an axis against σ8 Ωm^0.55, which linear theory makes a straight line."""
    print("\nhalo velocity dispersion (km/s along an axis) over linear theory's, by cosmology")
    for omega_m, sigma_8 in ((0.15, 0.7), (0.15, 0.95), (0.3, 0.8), (0.45, 0.7), (0.45, 0.85)):
        model, measured, linear = Cosmology(omega_m, sigma_8), [], []
        for seed in range(4):
            halos, _, velocities, _ = run(STANDARD, seed, model)
            measured.append(halos.velocities.std())
            density = linear_density(model, STANDARD, seed)
            k = 2 * math.pi * np.fft.fftfreq(64, STANDARD.side / 64)
            square = k[:, None, None] ** 2 + k[None, :, None] ** 2 + np.abs(k[None, None, :33]) ** 2
            square[0, 0, 0] = np.inf
            both = np.where(np.arange(33) % 32 == 0, 1, 2)
            displacement = math.sqrt(float((both * np.abs(density.numpy()) ** 2 / square).sum()) / 3) / 64**3
            linear.append(100 * float(model.growth(1.0)[1]) * displacement)
            if seed == 0:
                drift = float(velocities.mean(0).abs().max() / velocities.std())
        print(
            f"Omega_m {omega_m:.2f} sigma_8 {sigma_8:.2f}: {np.mean(measured):5.0f} / {np.mean(linear):4.0f} ="
            f" {np.mean(measured) / np.mean(linear):.3f}; net momentum {drift:.0e} of the dispersion"
        )


def show_convergence(box: Box) -> None:
    """Halos by mass bin relative to the finest mesh and to the most steps, same seeds."""
    edges, mass = mass_edges(box), particle_mass(MODEL.omega_m, box.side, box.particles)

    def counts(variant: Box) -> Array:
        return np.sum([np.histogram(run(variant, seed)[0].masses(mass), edges)[0] for seed in range(4)], 0)

    for name, values in (("mesh", (128, 192, 256)), ("steps", (5, 10, 20))):
        table = {value: counts(replace(box, **{name: value})) for value in values}
        print(f"\nhalos by mass bin relative to {name} {values[-1]}")
        for value in values[:-1]:
            print(f"{name} {value:4d}: {np.round(table[value] / table[values[-1]], 2)}")


def main() -> None:
    """Print times and checks."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="colossus")
    show_times()
    runs = [run(STANDARD, seed) for seed in SEEDS]
    print(f"\n{len(runs)} boxes as in the data set: {STANDARD}, Omega_m {MODEL.omega_m}, sigma_8 {MODEL.sigma_8}")
    show_counts(STANDARD, [halos for halos, *_ in runs])
    show_spectra(STANDARD, [positions for _, positions, *_ in runs])
    faint = Cosmology(MODEL.omega_m, 0.1)
    show_spectra(STANDARD, [simulate(faint, STANDARD, seed)[0] for seed in range(4)], faint)
    show_correlation(STANDARD, [halos for halos, *_ in runs])
    show_velocities()
    show_convergence(STANDARD)


if __name__ == "__main__":
    main()
