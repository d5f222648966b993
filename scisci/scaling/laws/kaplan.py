"""The laws of Kaplan et al. 2020, in parameters the data determine; their critical sizes are derived."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scisci.scaling.law import Array, Law, Parameter, Value, register
from scisci.scaling.laws.powers import SCALE, decay

_SOURCE = "Kaplan et al. 2020, arXiv:2001.08361"


def _exponent(name: str, latex: str) -> Parameter:
    return Parameter(name, latex, start=(0.02, 1.5), lower=1e-3, upper=20.0)


def _data(N: Array, D: Array, A: Array, B: Array, alpha_N: Array, alpha_D: Array) -> Value:
    """With A = Nc^aN, B = Dc^aD: (A^(1/aD) N^(-aN/aD) + B^(1/aD) / D)^aD, A N^-aN and B D^-aD at the ends."""
    log_n = (np.log(A) - alpha_N * np.log(N)) / alpha_D
    log_d = np.log(B) / alpha_D - np.log(D)
    top = np.where(np.real(log_n) > np.real(log_d), log_n, log_d)
    log_sum = top + np.log(np.exp(log_n - top) + np.exp(log_d - top))
    value = np.exp(alpha_D * log_sum)
    share_n = np.exp(log_n - log_sum)
    share_d = np.exp(log_d - log_sum)
    return value, (
        value * share_n / A,
        value * share_d / B,
        -value * share_n * np.log(N),
        value * (log_sum - share_n * log_n - share_d * np.log(B) / alpha_D),
    )


def _data_starts(x: Sequence[Array], log_y: Array) -> Array:
    """A grid of exponents; A and B by least squares on L^(1/aD), where the law is linear."""
    n, d = x
    starts = []
    for alpha_n in np.geomspace(0.02, 1.2, 12):
        for alpha_d in np.geomspace(0.02, 1.2, 12):
            target = log_y / alpha_d
            basis = np.stack([-alpha_n / alpha_d * np.log(n), -np.log(d)], 1) - target[:, None]
            shift = basis.max(0)
            scaled = np.exp(basis - shift)
            coefficient = np.linalg.lstsq(scaled, np.ones(len(n)), rcond=None)[0]
            coefficient = np.maximum(coefficient, 1e-6 * np.abs(coefficient).max())
            a, b = np.exp(np.clip(alpha_d * (np.log(coefficient) - shift), -200, 200))
            starts.append((a, b, alpha_n, alpha_d))
    return np.array(starts)


KAPLAN = register(
    Law(
        name="kaplan",
        formula=r"L = [(N_c/N)^{\alpha_N/\alpha_D} + D_c/D]^{\alpha_D}",
        variables=("N", "D"),
        parameters=(
            Parameter("A", "A", transform="log"),
            Parameter("B", "B", transform="log"),
            _exponent("alpha_N", r"\alpha_N"),
            _exponent("alpha_D", r"\alpha_D"),
        ),
        evaluate=_data,
        starts=_data_starts,
        source=_SOURCE + ", eq. 1.5",
        exponent="alpha_N",
        more_exponents=("alpha_D",),
        derived={
            "N_c": lambda p: p["A"] ** (1 / p["alpha_N"]),
            "D_c": lambda p: p["B"] ** (1 / p["alpha_D"]),
        },
    )
)


def _steps(N: Array, S: Array, A: Array, B: Array, alpha_N: Array, alpha_S: Array) -> Value:
    n, dn = decay(N, alpha_N)
    s, ds = decay(S, alpha_S)
    return A * n + B * s, (n, s, A * dn, B * ds)


KAPLAN_STEPS = register(
    Law(
        name="kaplan_steps",
        formula=r"L = (N_c/N)^{\alpha_N} + (S_c/S_{min})^{\alpha_S}",
        variables=("N", "S"),
        parameters=(
            SCALE,
            Parameter("B", "B", transform="log", linear=True),
            _exponent("alpha_N", r"\alpha_N"),
            _exponent("alpha_S", r"\alpha_S"),
        ),
        evaluate=_steps,
        source=_SOURCE + ", eq. 1.6; S_min by 'critical_batch.minimum_steps'",
        exponent="alpha_N",
        more_exponents=("alpha_S",),
        derived={
            "N_c": lambda p: p["A"] ** (1 / p["alpha_N"]),
            "S_c": lambda p: p["B"] ** (1 / p["alpha_S"]),
        },
    )
)


def _critical_batch(L: Array, B_star: Array, alpha_B: Array) -> Value:
    power = np.exp(-np.log(L) / alpha_B)
    return B_star * power, (power, B_star * power * np.log(L) / alpha_B**2)


CRITICAL_BATCH = register(
    Law(
        name="critical_batch",
        formula=r"B_{crit} = B_* L^{-1/\alpha_B}",
        variables=("L",),
        parameters=(
            Parameter("B_star", "B_*", transform="log", linear=True),
            Parameter("alpha_B", r"\alpha_B", start=(0.03, 2.0), lower=1e-2, upper=50.0),
        ),
        evaluate=_critical_batch,
        source=_SOURCE + ", eq. 1.4; McCandlish et al. 2018, arXiv:1812.06162",
        exponent="alpha_B",
    )
)
