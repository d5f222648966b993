"""Farseer's law: at every N a power law in D whose three constants are stretched exponentials of N."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from scisci.contracts.errors import UserError
from scisci.scaling.law import Array, Law, Parameter, Value, register
from scisci.scaling.laws.powers import POWER_OFFSET
from scisci.scaling.solve import solve

_POWERS = np.concatenate([np.linspace(-0.6, -0.03, 12), np.linspace(0.03, 0.6, 12)])


def _farseer(
    N: Array,
    D: Array,
    a1: Array,
    b1: Array,
    a: Array,
    a2: Array,
    b2: Array,
    b: Array,
    a3: Array,
    b3: Array,
    g: Array,
) -> Value:
    log_n, log_d = np.log(N), np.log(D)
    na, nb, ng = np.exp(a * log_n), np.exp(b * log_n), np.exp(g * log_n)
    exponent = np.exp(a1 * na + b1)
    floor = np.exp(a3 * ng + b3)
    reducible = np.exp(a2 * nb + b2 - exponent * log_d)
    bend = -reducible * exponent * log_d
    return floor + reducible, (
        bend * na,
        bend,
        bend * a1 * na * log_n,
        reducible * nb,
        reducible,
        reducible * a2 * nb * log_n,
        floor * ng,
        floor,
        floor * a3 * ng * log_n,
    )


def _starts(x: Sequence[Array], log_y: Array) -> Array:
    """Fit a power law with offset in D at every N, then each constant's stretched exponential over N."""
    n, d = x
    constants = []
    for size in np.unique(n):
        at = n == size
        if len(np.unique(d[at])) < 3:
            continue
        least, nearest = np.exp(log_y[at].min()), np.log(d[at].min())
        begin = np.array([[0.5 * least, np.log(5.0) + e * nearest, e] for e in (0.2, 0.4, 0.8)])
        found = solve(POWER_OFFSET, (d[at],), log_y[at], begin, max_steps=60)
        floor, log_scale, exponent = found.internal[found.best()]
        constants.append((size, np.log(exponent), log_scale, np.log(max(floor, 1e-3 * least))))
    if len(constants) < 3:
        raise UserError("the law 'farseer' needs three sizes N with three data amounts D each; add runs")
    size, *targets = np.array(constants).T
    choices = []
    for target in targets:
        fits = []
        for power in _POWERS:
            design = np.stack([size**power, np.ones_like(size)], 1)
            coefficient, *_ = np.linalg.lstsq(design, target, rcond=None)
            fits.append((float(((design @ coefficient - target) ** 2).sum()), *coefficient, power))
        fits.sort()
        choices.append([fits[0][1:], fits[len(fits) // 8][1:], fits[len(fits) // 3][1:]])
    return np.array([sum(parts, ()) for parts in product(*choices)])


def _plain(name: str, latex: str) -> Parameter:
    return Parameter(name, latex)


def _stretch(name: str) -> Parameter:
    return Parameter(name, name if name != "g" else r"\gamma", lower=-3.0, upper=3.0)


FARSEER = register(
    Law(
        name="farseer",
        formula=r"L = e^{a_3 N^\gamma + b_3} + e^{a_2 N^b + b_2} D^{-e^{a_1 N^a + b_1}}",
        variables=("N", "D"),
        parameters=(
            _plain("a1", "a_1"),
            _plain("b1", "b_1"),
            _stretch("a"),
            _plain("a2", "a_2"),
            _plain("b2", "b_2"),
            _stretch("b"),
            _plain("a3", "a_3"),
            _plain("b3", "b_3"),
            _stretch("g"),
        ),
        evaluate=_farseer,
        starts=_starts,
        source="Li et al. 2025 (Farseer), arXiv:2506.10972, eq. 5",
        exponent="a",
    )
)
