"""Does a fit hold where it was not fitted? Hold-out of the largest scales, drift with range, leave one size out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scisci.contracts.errors import UserError, unknown_name
from scisci.scaling.fitted import Fit
from scisci.scaling.fitting import fit
from scisci.scaling.law import Law
from scisci.scaling.solve import solve
from scisci.scaling.table import Points

_CONDITION = re.compile(r"^\s*(\w+)\s*(>=|>)\s*([-+.\deE]+)\s*$")
_DRIFT_STEPS = 6


@dataclass(frozen=True)
class Holdout:
    """A fit without the largest scales and how it predicts them.

    `error` is the rms of ln predicted - ln observed over the `n` held-out points, `bias` its mean.
    A small error alone does not validate an exponent: `drift` gives it as the range grows, as (largest x of
    the first variable, exponent, low, high), and `left_out` the lowest and highest exponent and the rms error
    when each size in turn is left out (NaN where too few remain).
    """

    rule: str
    n: int
    error: float
    bias: float
    drift: tuple[tuple[float, float, float, float], ...]
    left_out: tuple[float, float, float]

    def record(self) -> dict[str, Any]:
        """As it stands in the JSON of a fit."""
        keys = ("largest", "value", "low", "high")
        drift = [{k: _plain(v) for k, v in zip(keys, step, strict=True)} for step in self.drift]
        low, high, error = map(_plain, self.left_out)
        return {
            "rule": self.rule,
            "n": self.n,
            "error": self.error,
            "bias": self.bias,
            "drift": drift,
            "leave_one_size_out": {"exponent": [low, high], "error": error},
        }


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def holdout(law: Law, data: Points, rule: str, delta: float) -> Holdout:
    """Fit without the points that `rule` names ("N>1e8", or a share such as "0.2" of the largest sizes)."""
    held = held_out(law, data, rule)
    error = extrapolation(law, data, held, delta)
    return Holdout(
        rule,
        int(held.sum()),
        float(np.sqrt(np.mean(error**2))),
        float(error.mean()),
        tuple(_drift(law, data, delta)),
        _leave_one_size_out(law, data, delta),
    )


def extrapolation(law: Law, data: Points, held: np.ndarray, delta: float) -> np.ndarray:
    """ln predicted - ln observed of the points where `held` [n] is true, by the law fitted without them."""
    small = fit(law, data.take(~held), delta=delta)
    return np.log(small.predict(*(values[held] for values in data.x))) - data.log_y[held]


def held_out(law: Law, data: Points, rule: str) -> np.ndarray:
    """Which points [n] the rule holds out; a rule that leaves too few is a `UserError`."""
    match = _CONDITION.match(rule)
    if match:
        name, operator, bound = match.groups()
        if name not in law.variables:
            raise unknown_name(f"variable of the law {law.name!r}", name, law.variables)
        values = data.x[law.variables.index(name)]
        held = values >= float(bound) if operator == ">=" else values > float(bound)
    else:
        try:
            share = float(rule)
        except ValueError:
            raise UserError(f"cannot read the hold-out {rule!r}; write it as N>1e8 or as a share, 0.2") from None
        if not 0 < share < 1:
            raise UserError(f"the hold-out share is {share:g}; it must lie between 0 and 1")
        sizes = np.unique(data.x[0])
        count = max(1, round(share * len(sizes)))
        held = data.x[0] >= sizes[-count]
    if not held.any() or held.all():
        raise UserError(f"the hold-out {rule!r} holds out {int(held.sum())} of {len(held)} points; choose another")
    return held


def _drift(law: Law, data: Points, delta: float) -> list[tuple[float, float, float, float]]:
    sizes = np.unique(data.x[0])
    steps = []
    for k in range(max(len(sizes) - _DRIFT_STEPS, 0), len(sizes)):
        try:
            part = fit(law, data.take(data.x[0] <= sizes[k]), delta=delta)
        except UserError:  # too few sizes yet: the drift starts further up
            continue
        if part.identified:
            steps.append((float(sizes[k]), part.parameters[law.exponent], *part.intervals[law.exponent]))
    return steps


def _leave_one_size_out(law: Law, data: Points, delta: float) -> tuple[float, float, float]:
    exponents, errors = [], []
    for size in np.unique(data.x[0]):
        out = data.x[0] == size
        try:
            part = fit(law, data.take(~out), delta=delta)
        except UserError:  # too few sizes remain without this one: nothing to report
            return np.nan, np.nan, np.nan
        exponents.append(part.parameters[law.exponent])
        errors.append(np.log(part.predict(*(values[out] for values in data.x))) - data.log_y[out])
    rms = float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))
    return min(exponents), max(exponents), rms


def sensitivity(found: Fit) -> dict[str, float]:
    """The headline exponent refitted with other thresholds of the robust loss, by delta."""
    data, index = found.points, found.law.index(found.law.exponent)
    result = {}
    for delta in (1e-3, 1e-2, np.inf):
        again = solve(found.law, data.x, data.log_y, found.internal[None], weight=found.weight, delta=delta)
        result[f"{delta:g}"] = float(found.law.natural(again.internal)[0, index])
    return result


def sensitivity_warning(found: Fit, exponents: Mapping[str, float]) -> list[str]:
    """What to know where the exponent depends on the threshold more than its interval says."""
    name = found.law.exponent
    low, high = found.intervals[name]
    outside = [delta for delta, value in exponents.items() if value < low or value > high]
    if not (found.identified and outside):
        return []
    return [f"{name} leaves its interval with delta {' and '.join(outside)}: outliers or a wrong form decide it"]
