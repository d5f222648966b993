"""A particle-mesh N-body code for dark matter: 2LPT initial conditions, then FastPM steps, in a periodic box.

Positions are comoving Mpc/h, times are scale factors a. Momenta are a² dx/dt in units of H0, so that a peculiar
velocity is 100 p / a km/s. With D the linear growth factor and G = a³ E dD/da, a kick from a0 to a1 with the force of
time a is (G(a1) - G(a0)) / D(a), and a drift with the momentum of time a is (D(a1) - D(a0)) / G(a): linear growth is
then exact however few steps there are (Feng et al. 2016, arXiv:1603.00476, eqs. 11-14).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from scisci.generate.growth import Cosmology

KM_PER_S = 100.0  # H0 in km/s per Mpc/h
Clock = Callable[[str], None]


@dataclass(frozen=True)
class Box:
    """What is simulated, and how finely."""

    side: float = 128.0
    """Mpc/h"""
    particles: int = 64
    """per side"""
    mesh: int = 128
    """force cells per side"""
    steps: int = 12
    start: float = 0.1
    """scale factor of the initial conditions"""
    end: float = 1.0


def wave_numbers(cells: int, side: float) -> tuple[Tensor, Tensor, Tensor]:
    """kx, ky, kz in h/Mpc, shaped to broadcast over a real transform of a mesh."""
    full = 2 * math.pi * torch.fft.fftfreq(cells, side / cells)
    half = 2 * math.pi * torch.fft.rfftfreq(cells, side / cells)
    return full[:, None, None], full[None, :, None], half[None, None, :]


def _inverse_square(k: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    square = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    square[0, 0, 0] = math.inf
    return 1 / square


def linear_density(cosmology: Cosmology, box: Box, seed: int) -> Tensor:
    """Transform of a Gaussian density contrast today, on the particles' grid: [n, n, n // 2 + 1]."""
    n = box.particles
    noise = np.random.default_rng(seed).standard_normal((n, n, n), dtype=np.float32)
    k = wave_numbers(n, box.side)
    size = torch.sqrt(k[0] ** 2 + k[1] ** 2 + k[2] ** 2).double().numpy()
    # The spectrum is smooth: a table of it is exact enough, and far quicker than every mode.
    table = np.geomspace(0.5 * 2 * math.pi / box.side, 2 * float(size.max()), 512)
    power = np.exp(np.interp(np.log(np.maximum(size, table[0])), np.log(table), np.log(cosmology.linear_power(table))))
    density = torch.fft.rfftn(torch.from_numpy(noise)) * torch.from_numpy(np.sqrt(power * n**3 / box.side**3)).float()
    density[0, 0, 0] = 0
    return density


def displacements(density: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """First- and second-order displacement fields today, each [n³, 3] Mpc/h, for D1 = 1 and D2 = 1.

    ψ1 = -∇φ1 with ∇²φ1 = δ, and ψ2 = ∇φ2 with ∇²φ2 = Σ_{i<j} φ1,ii φ1,jj - φ1,ij² (Scoccimarro 1998, appendix D): a
    particle is at q + D1 ψ1 + D2 ψ2, where D2 is about -3/7 D1².
    """
    n, k = box.particles, wave_numbers(box.particles, box.side)
    inverse = _inverse_square(k)

    def real(field: Tensor) -> Tensor:
        return torch.fft.irfftn(field, s=(n, n, n))

    def gradient(potential: Tensor) -> Tensor:
        return torch.stack([real(1j * wave * potential).flatten() for wave in k], 1)

    potential = -density * inverse
    xx, yy, zz = (real(-(wave**2) * potential) for wave in k)
    crossed = sum(real(-k[i] * k[j] * potential).square() for i, j in ((0, 1), (0, 2), (1, 2)))
    source = torch.fft.rfftn(xx * yy + xx * zz + yy * zz - crossed)
    return -gradient(potential), gradient(-source * inverse)


class CloudInCell:
    """Cells and weights of particles on a periodic mesh, for painting and reading at the same places."""

    def __init__(self, positions: Tensor, cells: int, side: float) -> None:
        scaled = positions * (cells / side)
        low = torch.floor(scaled)
        part = scaled - low
        low = low.long() % cells
        high = (low + 1) % cells
        strides = torch.tensor([cells * cells, cells, 1])
        sides, weights = (low * strides, high * strides), (1 - part, part)
        self.cells = cells
        self.corners = [
            (sides[i][:, 0] + sides[j][:, 1] + sides[k][:, 2], weights[i][:, 0] * weights[j][:, 1] * weights[k][:, 2])
            for i, j, k in product((0, 1), repeat=3)
        ]

    def paint(self) -> Tensor:
        """Density contrast of the particles: [cells, cells, cells]."""
        mesh = torch.zeros(self.cells**3)
        for index, weight in self.corners:
            mesh.index_add_(0, index, weight)
        count = len(self.corners[0][0])
        return mesh.view(self.cells, self.cells, self.cells) * (self.cells**3 / count) - 1

    def read(self, field: Tensor) -> Tensor:
        """Values [n] at the particles of a field on the mesh."""
        values = torch.zeros(len(self.corners[0][0]))
        for index, weight in self.corners:
            values.addcmul_(field.take(index), weight)
        return values


def force(positions: Tensor, box: Box) -> Tensor:
    """-∇∇⁻²δ at the particles, [n, 3] Mpc/h: equal to D1 ψ1 as long as growth is linear."""
    places = CloudInCell(positions, box.mesh, box.side)
    k = wave_numbers(box.mesh, box.side)
    potential = torch.fft.rfftn(places.paint()) * _inverse_square(k)
    shape = (box.mesh,) * 3
    return torch.stack([places.read(torch.fft.irfftn(1j * wave * potential, s=shape)) for wave in k], 1)


def lattice(box: Box) -> Tensor:
    """[n³, 3] Mpc/h: where particles set out, amid mesh cells, so that small moves change masses linearly."""
    grid = torch.arange(box.particles, dtype=torch.float32) * (box.side / box.particles) + 0.5 * box.side / box.mesh
    return torch.cartesian_prod(grid, grid, grid)


def simulate(cosmology: Cosmology, box: Box, seed: int, clock: Clock = lambda part: None) -> tuple[Tensor, Tensor]:
    """Positions [n³, 3] Mpc/h in the box and peculiar velocities [n³, 3] km/s at `box.end`.

    `clock` is called after each part with its name, for timing.
    """
    times = np.linspace(box.start, box.end, box.steps + 1)

    def momentum_growth(a: float) -> float:
        return float(a**2 * cosmology.expansion(a) * cosmology.growth(a)[1])

    positions = lattice(box)
    first, second = displacements(linear_density(cosmology, box, seed), box)
    d1, rate1, d2, rate2 = (float(v) for v in cosmology.growth(box.start))
    positions = positions + d1 * first + d2 * second
    momenta = box.start**2 * float(cosmology.expansion(box.start)) * (rate1 * first + rate2 * second)
    clock("initial conditions")
    pull, kicked = force(positions, box) / d1, box.start
    for begin, end in zip(times[:-1], times[1:], strict=True):
        middle = 0.5 * (begin + end)
        momenta += pull * (momentum_growth(middle) - momentum_growth(kicked))
        drift = (cosmology.growth(end)[0] - cosmology.growth(begin)[0]) / momentum_growth(middle)
        positions += momenta * float(drift)
        pull, kicked = force(positions, box) / float(cosmology.growth(end)[0]), middle
    momenta += pull * (momentum_growth(box.end) - momentum_growth(kicked))
    clock("forces and steps")
    return torch.remainder(positions, box.side) % box.side, momenta * (KM_PER_S / box.end)
