"""Keating's valence force field of a zinc-blende alloy: where its atoms sit, and how heat moves them.

It draws positions only; labels never come from it. P. N. Keating, Phys. Rev. 145, 637 (1966), in the form of
R. M. Martin, Phys. Rev. B 1, 4005 (1970), with r the bond vectors and d their rest lengths:

    V = sum over bonds 3 alpha / (8 d²) (r² - d²)² + sum over angles 3 beta / (8 d d') (r·r' + d d'/3)²

A crystal of one bond with lattice constant a has bulk modulus (3 alpha + beta) / 3a and C11 - C12 = 4 beta / a.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from ase import units
from ase.neighborlist import primitive_neighbor_list
from scipy.optimize import minimize

STEP = 1e-4
RIGID = 3


@dataclass(frozen=True)
class Bond:
    """Rest length in Å, and stiffness of length and angle in eV/Å²; an angle's is its bonds' geometric mean."""

    length: float
    alpha: float
    beta: float


class Keating:
    """The force field of N atoms on a periodic zinc-blende network, in eV and Å.

    `sites` [N, 3] are ideal fractional coordinates in a cube, where nearest neighbours are bonded; `numbers` [N] the
    atomic numbers; `bonds` has an entry for each pair of them that is bonded, the lower number first. The attribute
    `bonds` lists the pair of each bond, twice.
    """

    def __init__(self, sites: np.ndarray, numbers: np.ndarray, bonds: Mapping[tuple[int, int], Bond]) -> None:
        side = np.cbrt(len(sites) / 8)
        first, second, self._images = primitive_neighbor_list(
            "ijS", np.ones(3, bool), np.eye(3), sites, 0.5 / side, use_scaled_positions=True
        )
        unit = np.eye(len(sites))
        self._ends = unit[second] - unit[first]
        # A bond is listed from both of its ends, so the angles at an atom are pairs of bonds listed from it.
        angles = [pair for i in range(len(sites)) for pair in combinations(np.flatnonzero(first == i), 2)]
        self._angle = p, q = np.array(angles).T
        self.bonds: list[tuple[int, int]] = [(a, b) for a, b in np.sort(numbers[[first, second]], axis=0).T.tolist()]
        kinds = [bonds[pair] for pair in self.bonds]
        length, alpha, beta = (np.array([getattr(b, name) for b in kinds]) for name in ("length", "alpha", "beta"))
        self._square, self._product = length**2, length[p] * length[q] / 3
        self._stretch = 3 * alpha / (8 * self._square) / 2
        self._bend = np.sqrt(beta[p] * beta[q]) / (8 * self._product)
        self._at_p, self._at_q = (np.eye(len(first))[:, ends] for ends in (p, q))

    def energy_and_gradient(self, positions: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies [...] eV and their gradients [..., N, 3] eV/Å at positions [..., N, 3] in `cell` [3, 3] Å."""
        bond = self._ends @ positions + self._images @ cell
        p, q = self._angle
        longer = (bond**2).sum(-1) - self._square
        wider = (bond[..., p, :] * bond[..., q, :]).sum(-1) + self._product
        energy = (self._stretch * longer**2).sum(-1) + (self._bend * wider**2).sum(-1)
        pull = 4 * (self._stretch * longer)[..., None] * bond
        turn = 2 * (self._bend * wider)[..., None]
        pull += self._at_p @ (turn * bond[..., q, :]) + self._at_q @ (turn * bond[..., p, :])
        return energy, self._ends.T @ pull

    def relax(self, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Positions [N, 3] at the minimum of the energy near `positions`, in a fixed cell."""

        def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
            energy, gradient = self.energy_and_gradient(flat.reshape(-1, 3), cell)
            return float(energy), gradient.ravel()

        found = minimize(value, positions.ravel(), jac=True, method="L-BFGS-B", options={"ftol": 0.0, "gtol": 1e-5})
        return found.x.reshape(-1, 3)

    def hessian(self, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Second derivatives [3N, 3N] of the energy, eV/Å², by central differences of its gradient."""
        steps = STEP * np.eye(positions.size).reshape(-1, *positions.shape)
        up, down = (self.energy_and_gradient(positions + sign * steps, cell)[1] for sign in (1, -1))
        slopes = (up - down).reshape(len(steps), -1) / (2 * STEP)
        return (slopes + slopes.T) / 2

    def thermal(
        self, minimum: np.ndarray, cell: np.ndarray, temperature: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Positions [N, 3] drawn from the classical harmonic crystal around `minimum` at `temperature` K."""
        stiffness, modes = np.linalg.eigh(self.hessian(minimum, cell))
        stiffness, modes = stiffness[RIGID:], modes[:, RIGID:]
        if stiffness[0] <= 0:
            raise RuntimeError("the positions are not a minimum of the force field: a mode has no restoring force")
        # The symmetric root: eigenvectors of degenerate modes, and so a draw through them, differ between machines.
        root = (modes / np.sqrt(stiffness)) @ modes.T
        displacement = np.sqrt(units.kB * temperature) * root @ rng.standard_normal(minimum.size)
        return minimum + displacement.reshape(-1, 3)
