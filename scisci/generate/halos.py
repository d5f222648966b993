"""Friends-of-friends halos of particles in a periodic box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

CRITICAL_DENSITY = 2.77536627e11  # Msun/h per (Mpc/h)³
LINKING, FEWEST = 0.2, 20


@dataclass(frozen=True)
class Halos:
    """Halos, the heaviest first: centres of mass [n, 3] Mpc/h, mean velocities [n, 3] km/s, particles [n]."""

    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    members: NDArray[np.int64]

    def masses(self, particle_mass: float) -> NDArray[np.float64]:
        """[n] Msun/h, corrected for what a halo of few particles gains in friends: N (1 - N^-0.6) (Warren 2006)."""
        return particle_mass * self.members * (1 - self.members**-0.6)


def particle_mass(omega_m: float, side: float, particles: int) -> float:
    """Msun/h of one of `particles`³ particles in a box of `side` Mpc/h."""
    return CRITICAL_DENSITY * omega_m * (side / particles) ** 3


def friends_of_friends(
    positions: NDArray[np.floating], side: float, linking: float = LINKING
) -> tuple[int, NDArray[np.int32]]:
    """Number of groups and group [n] of each particle: any two closer than `linking` mean separations are friends."""
    count = len(positions)
    length = linking * side / count ** (1 / 3)
    tree = cKDTree(positions, boxsize=side, balanced_tree=False, compact_nodes=False)
    pairs = tree.query_pairs(length, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), dtype=bool), pairs.T), shape=(count, count))
    groups, labels = connected_components(graph, directed=False)
    return int(groups), labels


def find_halos(
    positions: NDArray[np.floating], velocities: NDArray[np.floating], side: float, fewest: int = FEWEST
) -> Halos:
    """Friends-of-friends groups of at least `fewest` of the particles at `positions` [n, 3] in 0..side Mpc/h."""
    groups, labels = friends_of_friends(positions, side)
    sizes = np.bincount(labels, minlength=groups)
    kept = np.flatnonzero(sizes >= fewest)
    kept = kept[np.argsort(-sizes[kept], kind="stable")]
    number = np.full(groups, -1)
    number[kept] = np.arange(len(kept))
    inside = np.flatnonzero(number[labels] >= 0)
    halo, members = number[labels[inside]], sizes[kept]
    places, speeds = positions[inside].astype(np.float64), velocities[inside].astype(np.float64)
    # Around any one member, so that a halo across a face of the box is not torn apart.
    anchor = np.zeros((len(kept), 3))
    anchor[halo] = places
    around = places - anchor[halo]
    around -= side * np.rint(around / side)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = [np.bincount(halo, values[:, axis], minlength=len(kept)) for axis in range(3)]
        return np.stack(sums, 1) / members[:, None]

    return Halos(np.mod(anchor + mean(around), side) % side, mean(speeds), members)
