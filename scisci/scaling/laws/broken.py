"""Smoothly broken power laws (Caballero et al. 2022)."""

from __future__ import annotations

import numpy as np

from scisci.scaling.law import Array, Law, Parameter, Value, register
from scisci.scaling.laws.powers import decay


def _broken(N: Array, a: Array, b: Array, c0: Array, *breaks: Array) -> Value:
    """y = a + b N^-c0 prod_i (1 + (N / d_i)^(1/f_i))^(-c_i f_i); `breaks` is c_1, d_1, f_1, c_2, ..."""
    n, dn = decay(N, c0)
    log_n = np.log(N)
    log_factor: Array = np.zeros(1)
    slopes: list[Array] = []
    for c, d, f in zip(breaks[::3], breaks[1::3], breaks[2::3], strict=True):
        t = (log_n - np.log(d)) / f
        soft = np.logaddexp(0.0, t) if not np.iscomplexobj(t) else np.log1p(np.exp(t))
        log_factor = log_factor - c * f * soft
        gate = 1.0 / (1.0 + np.exp(-t))
        slopes += [-f * soft, c * gate / d, -c * (soft - gate * t)]
    factor = np.exp(log_factor)
    curve = n * factor
    return a + b * curve, (np.ones(1), curve, b * dn * factor, *(b * curve * slope for slope in slopes))


def _law(breaks: int) -> Law:
    bends = []
    for i in range(1, breaks + 1):
        bends += [
            Parameter(f"c{i}", f"c_{i}", start=(-0.6, 0.6), lower=-20.0, upper=20.0),
            Parameter(f"d{i}", f"d_{i}", transform="log", start=(0.1, 0.9), start_within="N"),
            Parameter(f"f{i}", f"f_{i}", transform="log", start=(0.05, 1.0), lower=1e-3, upper=1e2),
        ]
    product = r" \prod_i (1 + (N/d_i)^{1/f_i})^{-c_i f_i}" if breaks else ""
    return Law(
        name=f"bnsl_{breaks}",
        formula=rf"L = a + b N^{{-c_0}}{product}" + (rf",\ i = 1..{breaks}" if breaks else ""),
        variables=("N",),
        parameters=(
            Parameter("a", "a", lower=0.0, linear=True),
            Parameter("b", "b", transform="log", linear=True),
            Parameter("c0", "c_0", start=(0.02, 1.5), lower=-20.0, upper=20.0),
            *bends,
        ),
        evaluate=_broken,
        source="Caballero et al. 2022, arXiv:2210.14891, eq. 1",
        exponent="c0",
        more_exponents=tuple(f"c{i}" for i in range(1, breaks + 1)),
    )


BROKEN = tuple(register(_law(breaks)) for breaks in range(3))
