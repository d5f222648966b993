"""How loss out of distribution follows loss in distribution, and who lies above that line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from scisci.contracts.errors import UserError
from scisci.scaling.clusters import quantile
from scisci.scaling.law import Array
from scisci.scaling.table import Table, is_results, read_table, select_metric


@dataclass(frozen=True)
class Line:
    """The line f(OOD) = intercept + slope * f(ID) over runs, f the logarithm or the logit.

    `slope` comes with its 95 % interval. `p_shared` is the F test that all groups share the line. `effective`
    maps a group to its effective robustness: the mean of f over its runs above (worse loss) or below the line
    fitted to all others, with its 95 % interval (Taori et al. 2020).
    """

    split: str
    runs: int
    slope: float
    low: float
    high: float
    p_shared: float
    effective: dict[str, tuple[float, float, float]]
    scale: str


def robustness(
    source: object, y: str, by: Sequence[str] = ("architecture",), scale: str = "log", where: str | None = None
) -> list[Line]:
    """One line per OOD split of a results table, each run a point.

    `scale` "logit" is for accuracies between 0 and 1. The noise of the ID score flattens a fitted slope a
    little; with losses spread over far more than their noise this is negligible.
    """
    table = read_table(source)
    if not is_results(table):
        raise UserError("robustness needs a results table with splits (see 'scisci sweep collect')")
    if scale not in ("log", "logit"):
        raise UserError(f"the scale {scale!r} is unknown; choose log or logit")
    table = select_metric(table, y).where(where)
    inside = _by_run(table, "test", scale, y)
    if not inside:
        raise UserError("no run was evaluated on 'test', so there is no loss in distribution to compare with")
    keys = list(zip(*(table.column(name).astype(str) for name in by), strict=True))
    group = dict(zip(table.column("run").astype(str), (", ".join(key) for key in keys), strict=True))
    splits = sorted({str(s) for s in table.column("split") if str(s).startswith("ood_")})
    if not splits:
        raise UserError("no run was evaluated on an 'ood_' split; evaluate the runs on one first")
    lines = []
    for split in splits:
        outside = _by_run(table, split, scale, y)
        runs = [run for run in inside if run in outside]
        names = np.array([group[run] for run in runs])
        pairs = np.array([(inside[run], outside[run]) for run in runs]).reshape(-1, 2)
        lines.append(_line(split, pairs[:, 0], pairs[:, 1], names, scale))
    return lines


def _by_run(table: Table, split: str, scale: str, y: str) -> dict[str, float]:
    rows = table.rows(table.column("split").astype(str) == split)
    values = rows.numbers("value")
    top = 1.0 if scale == "logit" else np.inf
    if not ((values > 0) & (values < top)).all():
        raise UserError(f"{y} on {split!r} leaves the range of the {scale} scale; choose the other with --scale")
    f = np.log(values / (1 - values)) if scale == "logit" else np.log(values)
    return dict(zip(rows.column("run").astype(str).tolist(), f.tolist(), strict=True))


def _line(split: str, x: Array, y: Array, names: np.ndarray, scale: str) -> Line:
    if len(x) < 4 or np.ptp(x) == 0:
        raise UserError(f"{len(x)} runs with both scores on {split!r} are too few for a line; add runs")
    line = stats.linregress(x, y)
    half = float(quantile(len(x) - 2)) * float(line.stderr)
    groups = np.unique(names)
    effective = {}
    for name in groups:
        own, rest = names == name, names != name
        if rest.sum() >= 3 and np.ptp(x[rest]) > 0:
            effective[str(name)] = _effective(x, y, own, rest)
    return Line(
        split,
        len(x),
        float(line.slope),
        float(line.slope) - half,
        float(line.slope) + half,
        _shared(x, y, names),
        effective,
        scale,
    )


def _effective(x: Array, y: Array, own: np.ndarray, rest: np.ndarray) -> tuple[float, float, float]:
    """Mean distance of a group's runs to the line of the others, with a Welch interval."""
    line = stats.linregress(x[rest], y[rest])
    residual = y[rest] - line.intercept - line.slope * x[rest]
    dof_line = int(rest.sum()) - 2
    variance = float(residual @ residual) / dof_line
    center = x[own].mean()
    of_line = variance * (1 / rest.sum() + (center - x[rest].mean()) ** 2 / ((x[rest] - x[rest].mean()) ** 2).sum())
    gaps = y[own] - line.intercept - line.slope * x[own]
    count = int(own.sum())
    of_group = float(gaps.var(ddof=1)) / count if count > 1 else variance
    dof_group = count - 1 if count > 1 else dof_line
    total = of_line + of_group
    dof = total**2 / max(of_line**2 / dof_line + of_group**2 / dof_group, 1e-300)
    half = float(quantile(dof)) * float(np.sqrt(total))
    return float(gaps.mean()), float(gaps.mean()) - half, float(gaps.mean()) + half


def _shared(x: Array, y: Array, names: np.ndarray) -> float:
    """p-value of the F test of one line against one line a group; NaN where a group is too small."""
    groups = np.unique(names)
    if len(groups) < 2 or any((names == g).sum() < 3 or np.ptp(x[names == g]) == 0 for g in groups):
        return float("nan")
    one = stats.linregress(x, y)
    shared = float(((y - one.intercept - one.slope * x) ** 2).sum())
    separate = 0.0
    for g in groups:
        line = stats.linregress(x[names == g], y[names == g])
        separate += float(((y[names == g] - line.intercept - line.slope * x[names == g]) ** 2).sum())
    extra, dof = 2 * (len(groups) - 1), len(x) - 2 * len(groups)
    return float(stats.f.sf(((shared - separate) / extra) / max(separate / dof, 1e-300), extra, dof))
