"""Laws of training: whole loss curves under a learning-rate schedule, and repeated data."""

from __future__ import annotations

import numpy as np

from scisci.scaling.law import Array, Law, Parameter, Value, register
from scisci.scaling.laws.powers import SCALE, decay


def annealing_areas(learning_rate: Array, memory: float = 0.999) -> tuple[Array, Array]:
    """S1 and S2 after every step of a schedule [steps], the variables of the law "annealing".

    S1 is the cumulative sum of the learning rate; S2 that of its annealing momentum m_i = memory m_(i-1) +
    (lr_(i-1) - lr_i) (Tissue et al. 2024, eq. 1). Drop the first steps of a curve (warm-up and transient)
    before fitting: keeping a thousand moves A many times over.
    """
    rate = np.asarray(learning_rate, float)
    momentum = np.zeros_like(rate)
    for i in range(1, len(rate)):
        momentum[i] = memory * momentum[i - 1] + rate[i - 1] - rate[i]
    return np.cumsum(rate), np.cumsum(momentum)


def _annealing(S1: Array, S2: Array, L0: Array, A: Array, C: Array, alpha: Array) -> Value:
    s, ds = decay(S1, alpha)
    return L0 + A * s - C * S2, (np.ones(1), s, -S2, A * ds)


ANNEALING = register(
    Law(
        name="annealing",
        formula=r"L = L_0 + A S_1^{-\alpha} - C S_2",
        variables=("S1", "S2"),
        parameters=(
            Parameter("L0", "L_0", lower=0.0, linear=True),
            SCALE,
            Parameter("C", "C", lower=0.0, linear=True),
            Parameter("alpha", r"\alpha", start=(0.05, 3.0), lower=1e-3, upper=20.0),
        ),
        evaluate=_annealing,
        zero_allowed=("S2",),
        source="Tissue et al. 2024, arXiv:2408.11029, eq. 1; S1 and S2 by 'annealing_areas'",
        exponent="alpha",
    )
)

_EPOCHS = 64  # beyond, a further repetition changes nothing: its utility has halved away or its step is small


def _repetition(U: Array, D: Array, A: Array, d: Array, b: Array, tau: Array) -> Value:
    """(A n_1^-b + d) prod_j (n_j / n_(j-1))^(-b 0.5^(j/tau)) with n_j the samples seen after repetition j."""
    seen = np.minimum(U, D)
    n, dn = decay(seen, b)
    log_gain: Array = np.zeros(1)
    by_tau: Array = np.zeros(1)
    for j in range(1, _EPOCHS):
        before, after = np.minimum(j * U, D), np.minimum((j + 1) * U, D)
        if (after <= before).all():
            break
        gain = np.log(after / before)
        utility = np.exp(-np.log(2.0) * j / tau)
        log_gain = log_gain + gain * utility
        by_tau = by_tau + gain * utility * np.log(2.0) * j / tau**2
    factor = np.exp(-b * log_gain)
    base = A * n + d
    value = base * factor
    return value, (n * factor, np.ones(1) * factor, (A * dn - base * log_gain) * factor, -b * value * by_tau)


REPETITION = register(
    Law(
        name="repetition",
        formula=r"L = (A n_1^{-b} + d) \prod_j (n_j/n_{j-1})^{-b\,2^{-j/\tau}}",
        variables=("U", "D"),
        parameters=(
            SCALE,
            Parameter("d", "d", lower=0.0, linear=True),
            Parameter("b", "b", start=(0.02, 1.5), lower=1e-3, upper=20.0),
            Parameter("tau", r"\tau", transform="log", start=(0.3, 50.0), lower=1e-2, upper=1e4),
        ),
        evaluate=_repetition,
        source="Goyal et al. 2024, arXiv:2404.07177, eqs. 4-6 (utility b halves every tau repetitions)",
        exponent="b",
    )
)
