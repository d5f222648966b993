"""The laws that ship, each with its formula and source."""

from __future__ import annotations

import numpy as np

from scisci.scaling.law import Law, Parameter, register

_OFFSET = Parameter("E", "E", lower=0.0, linear=True)
_SCALE = Parameter("A", "A", transform="log", linear=True)

POWER = register(
    Law(
        name="power",
        formula=r"L = A N^{-\alpha}",
        variables=("N",),
        # the exponent may be negative: an error out of distribution can grow with scale
        parameters=(_SCALE, Parameter("alpha", r"\alpha", start=(-1.0, 2.0), lower=-20.0, upper=20.0)),
        value=lambda N, A, alpha: A * N**-alpha,
        gradient=lambda N, A, alpha: (N**-alpha, -A * N**-alpha * np.log(N)),
        source="Hestness et al. 2017, arXiv:1712.00409; Kaplan et al. 2020, arXiv:2001.08361, eq. 1.1",
        exponent="alpha",
    )
)

POWER_OFFSET = register(
    Law(
        name="power_offset",
        formula=r"L = E + A N^{-\alpha}",
        variables=("N",),
        parameters=(
            _OFFSET,
            _SCALE,
            Parameter("alpha", r"\alpha", start=(0.02, 4.0), lower=1e-3, upper=20.0),
        ),
        value=lambda N, E, A, alpha: E + A * N**-alpha,
        gradient=lambda N, E, A, alpha: (np.ones_like(E * N), N**-alpha, -A * N**-alpha * np.log(N)),
        source="Henighan et al. 2020, arXiv:2010.14701, eq. 1.1",
        exponent="alpha",
    )
)
