"""Shape before law: does the loss fall with scale at all, is it flat, rising, U-shaped or broken?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from scisci.contracts.errors import UserError
from scisci.scaling.fitting import fit
from scisci.scaling.law import Array
from scisci.scaling.table import Points

LEVEL = 0.05
_BREAK_GAIN = 0.8  # a broken law must cut the held-out error to this share to be preferred
_BREAK_SIDE = 3  # distinct sizes needed on both sides of a break


@dataclass(frozen=True)
class Trend:
    """The shape of ln L against ln x, and which law its held-out points prefer.

    `shape` is "falls", "rises", "flat", "U-shaped" or "peaked". `slopes` are those of the fitted parabola at
    the smallest and largest x. `held_out` are rms log errors at the largest sizes by law. `law` is the law to
    fit ("" where the loss does not fall), `warnings` what to know first.
    """

    shape: str
    slopes: tuple[float, float]
    p_bend: float
    held_out: dict[str, float]
    law: str
    warnings: tuple[str, ...]


def trend(data: Points) -> Trend:
    """Test the shape on points of one variable, and compare laws on the largest sizes held out.

    U-shape: the parabola's slopes at both ends must differ in sign, each significantly (Lind and Mehlum
    2010); a significant bend alone is not enough.
    """
    if len(data.x) != 1:
        raise UserError("a trend is tested along one variable; choose one with --x N=COLUMN")
    sizes = np.unique(data.x[0])
    if len(sizes) < 3:
        raise UserError(f"a trend needs at least 3 distinct x, the table has {len(sizes)}; add sizes")
    slope, p_slope = _slope(data)
    ends, p_ends, p_bend = _bend(data)
    kind = _shape(slope, p_slope, ends, p_ends, p_bend)
    held = _held_out(data, sizes)
    warnings = _warnings(data, sizes, kind)
    law = ""
    if kind == "falls":
        plain = {name: error for name, error in held.items() if name != "bnsl_1"}
        law = min(plain, key=plain.__getitem__) if plain else "power"
        if "bnsl_1" in held and held["bnsl_1"] < _BREAK_GAIN * min(plain.values()):
            law = "bnsl_1"
    return Trend(kind, ends, p_bend, held, law, tuple(warnings))


def shape(data: Points) -> str:
    """The shape of ln L against ln x alone: "falls", "rises", "flat", "U-shaped" or "peaked"."""
    slope, p_slope = _slope(data)
    return _shape(slope, p_slope, *_bend(data))


def _slope(data: Points) -> tuple[float, float]:
    line = stats.linregress(np.log(data.x[0]), data.log_y)
    return float(line.slope), float(line.pvalue)


def _bend(data: Points) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Slopes of the parabola at both ends, their one-sided p-values (falling, rising), and that of the bend."""
    z = np.log(data.x[0])
    center = z.mean()
    design = np.stack([np.ones_like(z), z - center, (z - center) ** 2], 1)
    dof = len(z) - 3
    coefficient, *_ = np.linalg.lstsq(design, data.log_y, rcond=None)
    at = np.array([z.min(), z.max()]) - center
    slopes = coefficient[1] + 2 * coefficient[2] * at
    if dof < 1:
        return (float(slopes[0]), float(slopes[1])), (1.0, 1.0), 1.0
    residual = data.log_y - design @ coefficient
    variance = max(float(residual @ residual) / dof, 1e-30)
    unit = np.linalg.inv(design.T @ design)
    contrast: Array = np.stack([np.zeros(2), np.ones(2), 2 * at], 1)
    t = slopes / np.sqrt(variance * np.einsum("kp,pq,kq->k", contrast, unit, contrast))
    bend = coefficient[2] / np.sqrt(variance * unit[2, 2])
    p_ends = float(stats.t.sf(abs(t[0]), dof)), float(stats.t.sf(abs(t[1]), dof))
    return (float(slopes[0]), float(slopes[1])), p_ends, float(2 * stats.t.sf(abs(bend), dof))


def _shape(slope: float, p_slope: float, ends: tuple[float, float], p_ends: tuple[float, float], p_bend: float) -> str:
    if p_bend < LEVEL and max(p_ends) < LEVEL and ends[0] * ends[1] < 0:
        return "U-shaped" if ends[0] < 0 else "peaked"
    if p_slope >= LEVEL:
        return "flat"
    return "falls" if slope < 0 else "rises"


def _held_out(data: Points, sizes: Array) -> dict[str, float]:
    """rms log error at the largest fifth of the sizes of every law the rest can carry."""
    count = max(1, len(sizes) // 5)
    held = data.x[0] >= sizes[-count]
    result = {}
    for name in ("power", "power_offset", "bnsl_1"):
        try:
            small = fit(name, data.take(~held), delta=np.inf)
        except UserError:  # too few sizes remain for this law: it is not a candidate
            continue
        if name == "bnsl_1":
            at = small.parameters["d1"]
            if min((sizes[:-count] < at).sum(), (sizes[:-count] > at).sum()) < _BREAK_SIDE:
                continue
        error = np.log(small.predict(data.x[0][held])) - data.log_y[held]
        if np.isfinite(error).all():
            result[name] = float(np.sqrt(np.mean(error**2)))
    return result


def _warnings(data: Points, sizes: Array, shape: str) -> list[str]:
    warnings = []
    if shape != "falls":
        warnings.append(f"the loss is {shape} with scale, so no power law describes an improvement")
    if len(sizes) >= 6:
        middle = sizes[len(sizes) // 2]
        halves = [fit("power", data.take(part), delta=np.inf) for part in (data.x[0] < middle, data.x[0] >= middle)]
        (a, b), (ia, ib) = [h.parameters["alpha"] for h in halves], [h.intervals["alpha"] for h in halves]
        if ia[0] > ib[1] or ib[0] > ia[1]:
            warnings.append(
                f"the exponent changes from {a:.2g} below {middle:.3g} to {b:.2g} above: two laws may cross there"
            )
    if len(np.unique(data.y)) < 0.5 * len(np.unique(data.x[0])):
        warnings.append(f"{data.metric} takes few distinct values; a discontinuous metric can fake a break")
    return warnings
