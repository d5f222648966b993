"""What a fitted law says about a scale not yet run, with two kinds of interval and a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scisci.contracts.errors import UserError
from scisci.scaling.clusters import quantile
from scisci.scaling.fitted import Fit
from scisci.scaling.resampling import Bootstrap

REACH = 100.0  # how far beyond the data, as a factor in each variable, a loss may be forecast


@dataclass(frozen=True)
class Forecast:
    """Predicted loss with the 95 % interval of the curve and of one further run.

    `beyond` is the largest factor by which the point lies outside the fitted range (1 inside).
    """

    at: Mapping[str, float]
    value: float
    curve: tuple[float, float]
    run: tuple[float, float]
    beyond: float
    words: str


def forecast(fit: Fit, at: Mapping[str, float], *, refits: Bootstrap | None = None, reach: float = REACH) -> Forecast:
    """The loss at `at` (variable -> value). The interval assumes that the law holds there.

    It is the delta method in ln L with Student's t, or with `refits` the percentiles of the bootstrap.
    Errors: `UserError` beyond `reach`, and outside the fitted range where the law is not identified.
    """
    if set(at) != set(fit.law.variables):
        wanted = ",".join(f"{name}=..." for name in fit.law.variables)
        raise UserError(f"the law {fit.law.name!r} is forecast at {wanted}, not at {', '.join(at) or 'nothing'}")
    x = [np.array([float(at[name])]) for name in fit.law.variables]
    if any(not np.isfinite(v[0]) or v[0] <= 0 for v in x):
        raise UserError("a forecast needs positive, finite scales; check --at")
    beyond = max(
        max(float(v[0] / seen.max()), float(seen.min() / v[0]), 1.0)
        for v, seen in zip(x, fit.points.x, strict=True)
        if seen.min() > 0
    )
    if beyond > reach:
        raise UserError(f"the point lies {beyond:.3g} times beyond the data; a forecast reaches {reach:g} times")
    if beyond > 1 and not fit.identified:
        raise UserError(f"the fit is not identified ({fit.audit.reasons[0]}), so it forecasts nothing beyond its data")
    log_value, jacobian = fit.law.log_predict(x, fit.internal)
    scatter = float(np.sqrt(fit.scale.variance))
    t = float(quantile(fit.scale.dof))
    if refits is None:
        half = float(fit.spread.half_width(jacobian)[0])
        low, high = float(log_value[0]) - half, float(log_value[0]) + half
        words = "delta method in ln L with Student's t"
    else:
        logs = np.log(fit.law.predict(x, fit.law.internal(refits.parameters)))[:, 0]
        low, high = np.quantile(logs[np.isfinite(logs)], [0.025, 0.975]).tolist()
        words = f"percentiles of {len(logs)} bootstrap refits"
    further_low = float(log_value[0]) - np.hypot(float(log_value[0]) - low, t * scatter)
    further_high = float(log_value[0]) + np.hypot(high - float(log_value[0]), t * scatter)
    return Forecast(
        dict(at),
        float(np.exp(log_value[0])),
        (float(np.exp(low)), float(np.exp(high))),
        (float(np.exp(further_low)), float(np.exp(further_high))),
        beyond,
        words,
    )
