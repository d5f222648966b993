"""The verdict on a fit: may its exponent be quoted, and if not, why, in words."""

from __future__ import annotations

import numpy as np
from scipy import stats

from scisci.scaling.clusters import quantile
from scisci.scaling.fitted import Fit

# An uncertainty beyond the exponent itself is weak. It is compared without the part of Student's quantile that
# pays for not knowing the scatter: with that part a fit of few runs passes where its scatter came out small by
# luck, and intervals picked so cover less than 95 %. For the same reason the limits are no stricter.
WEAK_RELATIVE = 1.0
WEAK_ALWAYS = 2.0  # a half-width beyond this many times the exponent is weak, however few the runs
WEAK_ABSOLUTE = 0.1  # below this no uncertainty is weak, so that a flat trend can be identified as flat
BEND_LEVEL = 0.01  # significance at which a bend in log-log is reported


def judge(fit: Fit, distinct: int) -> tuple[str, list[str]]:
    """Verdict `identified`, `weak` or `not identified`, with its reasons and remarks."""
    fatal = _fatal(fit, distinct)
    if fatal:
        return "not identified", fatal
    weak = _weak(fit)
    return ("weak" if weak else "identified"), weak + _remarks(fit)


def _fatal(fit: Fit, distinct: int) -> list[str]:
    law = fit.law
    p = len(law.names)
    if distinct <= p:
        return [f"{distinct} distinct x for {p} parameters: the curve meets the means, nothing tests its form"]
    if fit.scale.dof < 1:
        return [f"{len(fit.points)} points for {p} parameters leave no degree of freedom for the scatter"]
    reasons = []
    for name in law.exponents:
        ends = zip(("below", "above"), fit.intervals[name], strict=True)
        open_sides = [side for side, end in ends if np.isnan(end)]
        if open_sides:
            reasons.append(f"the data do not bound {name} from {' or '.join(open_sides)} at the 95 % level")
        elif name in fit.audit.at_bounds:
            reasons.append(f"{name} stopped at the bound of its search range")
    return reasons


def _weak(fit: Fit) -> list[str]:
    reasons = []
    known_scatter = float(stats.norm.ppf(0.5 + fit.interval.level / 2) / quantile(fit.interval.dof))
    for name in fit.law.exponents:
        low, high = fit.intervals[name]
        half, size = 0.5 * (high - low), abs(fit.parameters[name])
        if half * known_scatter > max(WEAK_RELATIVE * size, WEAK_ABSOLUTE):
            reasons.append(f"{name} is uncertain by more than its own size")
        elif half > max(WEAK_ALWAYS * size, WEAK_ABSOLUTE):
            reasons.append(f"the 95 % interval of {name} is too wide, for want of runs to tell the scatter")
    bend = bend_test(fit) if fit.law.log_linear else None
    if bend is not None and bend < BEND_LEVEL:
        reasons.append(f"the points bend in log-log (p < {BEND_LEVEL:g}), so {fit.law.exponent} depends on the range")
    return reasons


def _remarks(fit: Fit) -> list[str]:
    remarks = []
    offset = next((parameter for parameter in fit.law.parameters if parameter.linear and parameter.lower == 0), None)
    if offset is not None and fit.intervals[offset.name][0] == 0.0:
        remarks.append(f"{offset.name} = 0 is within its interval: a law without it describes the points as well")
    if fit.audit.starts_converged < 0.1:
        remarks.append(f"only {fit.audit.starts_converged:.0%} of the starts reached the optimum")
    if fit.audit.starts_unmoved:
        remarks.append(f"{fit.audit.starts_unmoved} starts did not move and were discarded")
    return remarks


def bend_test(fit: Fit) -> float | None:
    """p-value of a quadratic term in ln x beside a power law (F test); None with too few points.

    The residual scale is this fit's own, since a pooled one would carry the bend of the others.
    """
    log_x = np.log(fit.points.x[0])
    if len(np.unique(log_x)) < 3 or len(log_x) < 4:
        return None
    z = (log_x - log_x.mean()) / log_x.std()
    root = np.sqrt(fit.weight)
    design = np.stack([np.ones_like(z), z, z**2], 1) * root[:, None]
    target = fit.points.log_y * root
    sums = []
    for columns in (2, 3):
        coefficient = np.linalg.lstsq(design[:, :columns], target, rcond=None)[0]
        sums.append(float(((target - design[:, :columns] @ coefficient) ** 2).sum()))
    dof = len(z) - 3
    if sums[1] <= 1e-24 * float(target @ target):
        return None
    return float(stats.f.sf((sums[0] - sums[1]) / (sums[1] / dof), 1, dof))
