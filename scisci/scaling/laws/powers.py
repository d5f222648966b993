"""Sums of powers: the plain power law, with offset, variance-limited, and Chinchilla's."""

from __future__ import annotations

import numpy as np

from scisci.scaling.law import Array, Law, Parameter, Value, register

OFFSET = Parameter("E", "E", lower=0.0, linear=True)
SCALE = Parameter("A", "A", transform="log", linear=True)


def decay(x: Array, exponent: Array) -> tuple[Array, Array]:
    """x^-exponent and its derivative by the exponent."""
    log_x = np.log(x)
    decay = np.exp(-exponent * log_x)
    return decay, -decay * log_x


def _power(N: Array, A: Array, alpha: Array) -> Value:
    n, dn = decay(N, alpha)
    return A * n, (n, A * dn)


POWER = register(
    Law(
        name="power",
        formula=r"L = A N^{-\alpha}",
        variables=("N",),
        # the exponent may be negative: an error out of distribution can grow with scale
        parameters=(SCALE, Parameter("alpha", r"\alpha", start=(-1.0, 2.0), lower=-20.0, upper=20.0)),
        evaluate=_power,
        log_linear=True,
        source="Hestness et al. 2017, arXiv:1712.00409; Kaplan et al. 2020, arXiv:2001.08361, eq. 1.1",
        exponent="alpha",
    )
)


def _power_offset(N: Array, E: Array, A: Array, alpha: Array) -> Value:
    n, dn = decay(N, alpha)
    return E + A * n, (np.ones(1), n, A * dn)


POWER_OFFSET = register(
    Law(
        name="power_offset",
        formula=r"L = E + A N^{-\alpha}",
        variables=("N",),
        parameters=(
            OFFSET,
            SCALE,
            Parameter("alpha", r"\alpha", start=(0.02, 4.0), lower=1e-3, upper=20.0),
        ),
        evaluate=_power_offset,
        source="Henighan et al. 2020, arXiv:2010.14701, eq. 1.1",
        exponent="alpha",
    )
)


def _variance_limited(N: Array, E: Array, A: Array) -> Value:
    return E + A / N, (np.ones(1), 1.0 / N)


VARIANCE_LIMITED = register(
    Law(
        name="variance_limited",
        formula=r"L = E + A N^{-1}",
        variables=("N",),
        parameters=(OFFSET, SCALE),
        evaluate=_variance_limited,
        source="Bahri et al. 2021, arXiv:2102.06701: far beyond the other resource the exponent is 1",
        exponent="A",
    )
)


def _chinchilla(N: Array, D: Array, E: Array, A: Array, B: Array, alpha: Array, beta: Array) -> Value:
    n, dn = decay(N, alpha)
    d, dd = decay(D, beta)
    return E + A * n + B * d, (np.ones(1), n, d, A * dn, B * dd)


CHINCHILLA = register(
    Law(
        name="chinchilla",
        formula=r"L = E + A N^{-\alpha} + B D^{-\beta}",
        variables=("N", "D"),
        parameters=(
            OFFSET,
            SCALE,
            Parameter("B", "B", transform="log", linear=True),
            Parameter("alpha", r"\alpha", start=(0.02, 2.0), lower=1e-3, upper=20.0),
            Parameter("beta", r"\beta", start=(0.02, 2.0), lower=1e-3, upper=20.0),
        ),
        evaluate=_chinchilla,
        source="Hoffmann et al. 2022, arXiv:2203.15556, approach 3; Besiroglu et al. 2024, arXiv:2404.10102",
        exponent="alpha",
        more_exponents=("beta",),
        derived={
            # N_opt ~ C^a and the loss falls as C^-c along the optimum, with C proportional to N D
            "a": lambda p: p["beta"] / (p["alpha"] + p["beta"]),
            "c": lambda p: p["alpha"] * p["beta"] / (p["alpha"] + p["beta"]),
        },
    )
)
