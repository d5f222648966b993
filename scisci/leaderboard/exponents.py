"""What fitted lines say: an error at the board's compute, and whether a model differs from another in slope or offset.

A power law is a straight line in ln x and ln y, so both follow in closed form from a few numbers of each fit: a board
of thousands is built without fitting anything again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scipy.special import stdtrit

from scisci.leaderboard.board import Estimate, Exponent
from scisci.report.wording import short, significant
from scisci.scaling.clusters import LEVEL
from scisci.scaling.forecasting import REACH
from scisci.scaling.records import interval_text

Verdict = Literal["slope", "offset", "none", "undecided", "is the reference"]
AXES = {"params": "parameters", "data": "training samples", "flops": "training FLOPs"}


@dataclass(frozen=True)
class Line:
    """Least squares of ln y on ln x over n runs: ln y = mean_log_y - alpha (ln x - mean_log_x).

    `variance` is that of a run about the line, with `dof` degrees of freedom, `sxx` the sum of squares of ln x about
    its mean, `x_min` and `x_max` the range that was fitted.
    """

    n: int
    dof: float
    variance: float
    alpha: float
    mean_log_x: float
    mean_log_y: float
    sxx: float
    x_min: float
    x_max: float

    def at(self, log_x: float) -> tuple[float, float]:
        """ln y on the line, and the variance of that mean."""
        beyond = log_x - self.mean_log_x
        return self.mean_log_y - self.alpha * beyond, self.variance * (1 / self.n + beyond**2 / self.sxx)


def forecast(line: Line, compute: float) -> Estimate | str:
    """The error of one further run at `compute`, with Student's 95 % interval, or why there is none."""
    beyond = max(compute / line.x_max, line.x_min / compute)
    if beyond > REACH:
        return f"{short(compute)} FLOPs lie {beyond:.3g} times beyond the runs; a forecast reaches {REACH:g} times"
    mean, variance = line.at(math.log(compute))
    half = _quantile(line.dof) * math.sqrt(variance + line.variance)
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def against(axis: str, own: Line, other: Line, name: str) -> tuple[Verdict, str]:
    """Whether a model differs from the reference `name` in slope, or else in level, with the words that say so.

    Slope: the 95 % interval of the difference of exponents excludes 0 (Welch's t, as the models share no runs). Else
    offset: that of the difference of both lines at the geometric middle of the common range excludes 0. Each line is
    taken with its own exponent there, so the level assumes nothing about the slopes. That both models are scored on the
    same samples is not used, which leaves the intervals rather too wide.
    """
    low, high = max(own.x_min, other.x_min), min(own.x_max, other.x_max)
    if low >= high:
        return "undecided", f"the runs share no range of {AXES[axis]} with those of {name}"
    slope = _welch(own.alpha - other.alpha, (own.variance / own.sxx, own.dof), (other.variance / other.sxx, other.dof))
    words = f"exponent {own.alpha:.2f} against {other.alpha:.2f}, difference {interval_text(*slope)}"
    if _excludes_zero(slope):
        return "slope", f"{'steeper' if slope[0] > 0 else 'shallower'} than {name}: {words}"
    middle = math.log(low) / 2 + math.log(high) / 2
    (own_mean, own_variance), (other_mean, other_variance) = own.at(middle), other.at(middle)
    level = _welch(own_mean - other_mean, (own_variance, own.dof), (other_variance, other.dof))
    ratio, *ends = (significant(math.exp(end)) for end in level)
    words = f"{ratio} [{', '.join(ends)}] times its error at {short(math.exp(middle))} {AXES[axis]}; {words}"
    if _excludes_zero(level):
        return "offset", f"{'less' if level[0] < 0 else 'more'} error than {name} at a slope not told apart: {words}"
    return "none", f"not told apart from {name}: {words}"


def _welch(value: float, one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float, float]:
    """`value` with the t interval of a difference of two estimates, each given by its variance and its dof."""
    total = one[0] + other[0]
    dof = total**2 / (one[0] ** 2 / one[1] + other[0] ** 2 / other[1]) if total > 0 else one[1]
    half = _quantile(dof) * math.sqrt(total)
    return value, value - half, value + half


def _quantile(dof: float) -> float:
    return float(stdtrit(dof, 0.5 + LEVEL / 2))


def _excludes_zero(interval: tuple[float, float, float]) -> bool:
    return interval[1] > 0 or interval[2] < 0


def exponents(
    records: Iterable[Mapping[str, Any]],
    compute: float | None,
    reference: str | None,
    of_reference: Mapping[tuple[str, str], Mapping[str, Any]],
    is_reference: bool = False,
) -> tuple[Exponent, ...]:
    """The exponents that a board shows, from the records of one entry (scisci.leaderboard.analysis).

    `of_reference` are the reference's records by (axis, split); `compute` are the FLOPs to forecast at.
    """
    return tuple(
        _exponent(record, compute, reference, of_reference.get((record["axis"], record["split"])), is_reference)
        for record in records
    )


def _exponent(
    record: Mapping[str, Any],
    compute: float | None,
    reference: str | None,
    of_reference: Mapping[str, Any] | None,
    is_reference: bool,
) -> Exponent:
    line = None if record["line"] is None else Line(**record["line"])
    forecasted: Estimate | str = ""
    if record["axis"] == "flops" and compute is not None:
        forecasted = "the exponent is not identified" if line is None else forecast(line, compute)
    verdict: tuple[Verdict, str] = "undecided", "no reference was chosen"
    if is_reference:
        verdict = "is the reference", ""
    elif reference is not None and line is None:
        verdict = "undecided", "the exponent is not identified"
    elif reference is not None and (of_reference is None or of_reference["line"] is None):
        verdict = "undecided", f"the exponent of {reference} is not identified"
    elif reference is not None and line is not None and of_reference is not None:
        verdict = against(record["axis"], line, Line(**of_reference["line"]), reference)
    return Exponent(
        axis=record["axis"],
        split=record["split"],
        estimate=None if record["exponent"] is None else Estimate(**record["exponent"]),
        verdict=record["verdict"],
        reason=record["reason"],
        fixed=record["fixed"],
        held_out=record["held_out"],
        forecast=forecasted if isinstance(forecasted, Estimate) else None,
        forecast_reason=forecasted if isinstance(forecasted, str) else "",
        against_reference=verdict[0],
        against_reference_words=verdict[1],
    )
