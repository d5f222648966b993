"""Linear and second-order growth of structure in flat ΛCDM, and the power spectrum it grows from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

Array = NDArray[np.float64]
START = 1e-3
# Quijote's fiducial values (Villaescusa-Navarro et al. 2020), for what is not varied.
HUBBLE, OMEGA_B, TILT = 0.6711, 0.049, 0.9624


@dataclass(frozen=True)
class Cosmology:
    """Flat ΛCDM with the amplitude of its linear spectrum; radiation is left out."""

    omega_m: float
    sigma_8: float

    def expansion(self, a: Array | float) -> Array:
        """E = H / H0 at scale factor a."""
        return np.sqrt(self.omega_m / np.asarray(a) ** 3 + 1 - self.omega_m)

    @cached_property
    def _orders(self) -> CubicSpline:
        """(D1, dD1/dlna, D2, dD2/dlna) over ln a, with D1(1) = 1 and D2 → -3/7 D1² early.

        D1'' + (2 + dlnE/dlna) D1' = 3/2 Ωm(a) D1, and for D2 with the source -3/2 Ωm(a) D1² beside (Bouchet et al.
        1995, eqs. 3 and 4).
        """

        def slope(log_a: float, y: Array) -> Array:
            matter = self.omega_m / np.exp(log_a) ** 3 / self.expansion(np.exp(log_a)) ** 2
            drag = 2 - 1.5 * matter
            first, second = 1.5 * matter * y[0] - drag * y[1], 1.5 * matter * (y[2] - y[0] ** 2) - drag * y[3]
            return np.array([y[1], first, y[3], second])

        logs = np.linspace(np.log(START), 0, 400)
        begin = np.array([START, START, -3 / 7 * START**2, -6 / 7 * START**2])  # matter alone
        found = solve_ivp(slope, (logs[0], 0), begin, t_eval=logs, rtol=1e-9, atol=1e-14).y
        today = found[0, -1]
        return CubicSpline(logs, (found.T / [today, today, today**2, today**2]))

    def growth(self, a: float) -> Array:
        """D1, dD1/dlna, D2 and dD2/dlna at scale factor a (1e-3 to 1); D1 is 1 today."""
        return self._orders(np.log(a))

    def linear_power(self, k: Array) -> Array:
        """Linear matter spectrum today, (Mpc/h)³, at k in h/Mpc: Eisenstein and Hu (1998), through colossus."""
        from colossus.cosmology import cosmology

        parameters = {"H0": 100 * HUBBLE, "Ob0": OMEGA_B, "ns": TILT, "Om0": self.omega_m, "sigma8": self.sigma_8}
        model = cosmology.Cosmology(name="flat", flat=True, relspecies=False, persistence="", **parameters)
        return model.matterPowerSpectrum(k, model="eisenstein98")
