"""For every law, variables and parameters in the range it is used in."""

from __future__ import annotations

import numpy as np

from scisci.scaling.laws.curves import annealing_areas

LINE = np.geomspace(1e3, 1e9, 40)
N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 8), np.geomspace(1e8, 1e11, 8)))
UNIQUE = np.repeat([1e7, 1e8, 1e9], 20)
SEEN = UNIQUE * np.tile(np.geomspace(0.2, 30, 20), 3)
RATES = np.concatenate([np.full(3000, 1e-3), np.linspace(1e-3, 1e-5, 1500)])
S1, S2 = (area[200::20] for area in annealing_areas(RATES))

TYPICAL: dict[str, tuple[tuple[np.ndarray, ...], tuple[float, ...]]] = {
    "power": ((LINE,), (30, 0.3)),
    "power_offset": ((LINE,), (0.5, 30, 0.3)),
    "variance_limited": ((LINE,), (0.5, 3000)),
    "chinchilla": ((N, D), (1.8, 480, 2100, 0.35, 0.37)),
    "kaplan": ((N, D), (8.8e13**0.076, 5.4e13**0.095, 0.076, 0.095)),
    "kaplan_steps": ((N, D / 1e6), (6.5e13**0.077, 2.1e3**0.76, 0.077, 0.76)),
    "critical_batch": ((np.geomspace(2, 8, 20),), (2.1e8, 0.21)),
    "annealing": ((S1, S2), (2.5, 0.6, 0.4, 0.5)),
    "repetition": ((UNIQUE, SEEN), (30, 1.5, 0.2, 5)),
    "bnsl_0": ((LINE,), (0.1, 30, 0.3)),
    "bnsl_1": ((LINE,), (0.1, 10, 0.1, 0.4, 1e6, 0.3)),
    "bnsl_2": ((LINE,), (0.01, 10, 0.1, 0.4, 1e5, 0.3, -0.2, 1e7, 0.2)),
    "farseer": ((N, D), (-0.06, -0.6, 0.15, -0.2, 6.0, 0.12, -0.1, 1.2, 0.1)),
}
