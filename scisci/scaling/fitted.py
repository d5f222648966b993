"""What a fit is: the law at its optimum with intervals and audit, what it predicts and how uncertain that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scisci.scaling.clusters import Scale, Spread
from scisci.scaling.intervals import Interval, robust_spread, spread_of
from scisci.scaling.law import Array, Law
from scisci.scaling.table import Points


@dataclass(frozen=True)
class Audit:
    """How far a fit can be trusted; `verdict` and `reasons` are for reading, the rest for checking."""

    verdict: str
    reasons: tuple[str, ...]
    gradient_norm: float
    starts_converged: float
    starts_unmoved: int
    condition: float
    correlation: Mapping[str, float]
    at_bounds: tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """A fitted law. `internal` [p] are the optimised parameters, `weight` [n] those of the points.

    `delta` is Huber's threshold on log residuals, inf for log least squares. `intervals` holds the 95 %
    interval of every parameter in natural units, an end that does not exist as NaN.
    """

    law: Law
    points: Points
    delta: float
    weight: Array
    internal: Array
    objective: float
    scale: Scale
    intervals: Mapping[str, tuple[float, float]]
    interval: Interval
    audit: Audit
    derived: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, float]:
        """The optimum in natural units, whatever the verdict."""
        return dict(zip(self.law.names, self.law.natural(self.internal).tolist(), strict=True))

    @property
    def residuals(self) -> Array:
        """ln fitted - ln observed [n]."""
        return np.log(self.law.predict(self.points.x, self.internal)) - self.points.log_y

    @property
    def identified(self) -> bool:
        """Whether the exponent may be quoted at all (verdict `identified` or `weak`)."""
        return self.audit.verdict != "not identified"

    @property
    def loss(self) -> str:
        """The objective in words."""
        if np.isinf(self.delta):
            return "log least squares"
        return f"sum of Huber (delta {self.delta:g}) of log residuals"

    @property
    def spread(self) -> Spread:
        """How uncertain linear combinations of the internal parameters are."""
        if np.isfinite(self.delta):
            return robust_spread(self.law, self.points, self.weight, self.internal, self.delta)
        return spread_of(self.law, self.points, self.weight, self.internal, self.scale)

    def predict(self, *x: Any) -> Array:
        """Fitted loss at the law's variables."""
        return self.law.predict([np.atleast_1d(np.asarray(v, float)) for v in x], self.internal)

    def to_frame(self) -> Any:
        """Parameters and derived quantities with their intervals as a pandas frame; NaN where not identified."""
        import pandas as pd

        rows = {name: (value, *self.intervals[name]) for name, value in self.parameters.items()} | dict(self.derived)
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
        return frame if self.identified else frame * np.nan

    def plot(self) -> Any:
        """An Altair chart of points, curve and band."""
        from scisci.scaling.plotting import plot

        return plot(self)

    def curve(self, count: int = 64) -> dict[str, list[float]] | None:
        """Fitted curve over the range of the data with its pointwise 95 % band; None for several variables.

        It is the band of the mean curve, by the delta method in ln L with the degrees of freedom of the data.
        """
        if len(self.points.x) != 1:
            return None
        x = np.geomspace(self.points.x[0].min(), self.points.x[0].max(), count)
        log_value, jacobian = self.law.log_predict([x], self.internal)
        half = self.spread.half_width(jacobian)
        with np.errstate(over="ignore"):
            band = np.exp(log_value - half), np.exp(log_value + half)
        if not np.isfinite(band).all():
            return None
        return {
            "x": x.tolist(),
            "value": np.exp(log_value).tolist(),
            "lo": band[0].tolist(),
            "hi": band[1].tolist(),
        }
