"""Every exponent of a results table: by architecture and split, along parameters, data and compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scisci.contracts.errors import UserError
from scisci.contracts.metrics import metric as find_metric
from scisci.scaling.clusters import Scale
from scisci.scaling.comparison import difference
from scisci.scaling.fitted import Fit
from scisci.scaling.fitting import fit
from scisci.scaling.law import Law
from scisci.scaling.law import law as find_law
from scisci.scaling.records import difference_record, fit_record, number, refused_record
from scisci.scaling.table import Points, Table, is_results, points, read_table, select_metric

AXES = ("params", "data", "flops")
SELECTION_SPLITS = (
    "val",
    "test",
)  # where the frontier is chosen: the first that the table has, never an OOD one
_POOL_BELOW = 4  # own degrees of freedom below which the scale is pooled over the slices beside


@dataclass(frozen=True)
class Entry:
    """One fit of a study, or why there is none; `slices` are its fits at the other fixed levels."""

    law: Law
    axis: str
    group: dict[str, Any]
    fixed: dict[str, Any]
    table: Table
    fit: Fit | None
    reason: str = ""
    slices: dict[Any, Fit] = field(default_factory=dict)


def study(
    source: Any, y: str, laws: Sequence[str] = ("power", "power_offset"), where: str | None = None
) -> list[Entry]:
    """Fit each law for every architecture, treatment, split (test and ood_*) and axis.

    Along "params" the data amount is fixed at the largest with three sizes, along "data" the size likewise.
    With few runs a slice, the residual scale is pooled over the slices at the other levels of what is fixed.
    Along "flops" the runs are those of the compute frontier, chosen cell by cell (size x data x samples
    seen, mean over seeds) on the validation split, or on `test` where there is none, and the same on every split.
    """
    table = read_table(source)
    if not is_results(table):
        raise UserError("a study needs a results table (see 'scisci sweep collect'); for others use 'scisci scale fit'")
    table = select_metric(table, y).where(where)
    datasets = sorted(set(table.column("dataset").astype(str)))
    if len(datasets) > 1:
        raise UserError(f"the table mixes the data sets {', '.join(datasets)}; pick one with --where dataset==NAME")
    entries = []
    for group, runs in table.groups(("architecture", "treatment")):
        for law_name in laws:
            law = find_law(law_name)
            if len(law.variables) != 1:
                raise UserError(f"a study takes laws of one variable, not {law_name!r}; fit it with 'scisci scale fit'")
            for axis in AXES:
                for split, rows in _evaluated(runs):
                    entries.append(_entry(law, axis, group | {"split": split}, runs, rows, y))
    if not entries:
        raise UserError("the table has no rows on 'test' or an 'ood_' split; evaluate the runs on them first")
    return entries


def _evaluated(runs: Table) -> list[tuple[str, Table]]:
    """The splits that carry exponents: test, then out of distribution in the order of the table."""
    splits = [(str(group["split"]), rows) for group, rows in runs.groups(("split",))]
    wanted = [(split, rows) for split, rows in splits if split == "test" or split.startswith("ood_")]
    return sorted(wanted, key=lambda item: item[0] != "test")


def _entry(law: Law, axis: str, group: dict[str, Any], runs: Table, rows: Table, y: str) -> Entry:
    if axis == "flops":
        return _frontier_entry(law, group, runs, rows, y)
    constant = "data" if axis == "params" else "params"
    levels = np.unique(rows.numbers(constant)[np.isfinite(rows.numbers(constant))])[::-1]
    if not len(levels):
        nothing = rows.rows(np.zeros(len(rows), bool))
        return Entry(law, axis, group, {}, nothing, None, f"the runs do not say their {constant}, which is held fixed")
    slices = {float(level): rows.rows(rows.numbers(constant) == level) for level in levels}
    chosen = next((v for v, part in slices.items() if len(np.unique(part.numbers(axis))) >= 3), float(levels[0]))
    fixed: dict[str, Any] = {constant: int(chosen)}
    if constant == "params":
        fixed["size"] = str(slices[chosen].column("size")[0])
    try:
        main = fit(law, _points(law, slices[chosen], axis, y), delta=np.inf)
    except UserError as error:  # recorded with the entry: a slice too small to fit is an outcome
        return Entry(law, axis, group, fixed, slices[chosen], None, str(error))
    others = {}
    if main.scale.dof < _POOL_BELOW:
        others = _beside(law, {level: part for level, part in slices.items() if level != chosen}, axis, y)
        main = fit(law, main.points, delta=np.inf, scale=_pooled([main, *others.values()]))
    return Entry(law, axis, group, fixed, slices[chosen], main, slices=others)


def _beside(law: Law, slices: dict[float, Table], axis: str, y: str) -> dict[float, Fit]:
    """Fits of the slices at the other fixed levels; those too small for the law lend no scale."""
    fits = {}
    for level, part in slices.items():
        try:
            fits[level] = fit(law, _points(law, part, axis, y), delta=np.inf)
        except UserError:  # `pooled_over` in the interval's words counts those that could
            continue
    return fits


def _points(law: Law, rows: Table, axis: str, y: str) -> Points:
    return points(rows, {law.variables[0]: axis}, y)


def _pooled(fits: Sequence[Fit]) -> Scale:
    usable = [each for each in fits if len(each.points) > len(each.law.names)]
    dof = sum(len(each.points) - len(each.law.names) for each in usable)
    total = sum(float((each.weight * each.residuals**2).sum()) for each in usable)
    return Scale(total / dof if dof else float("nan"), dof, max(len(usable), 1))


def _frontier_entry(law: Law, group: dict[str, Any], runs: Table, rows: Table, y: str) -> Entry:
    split = next((name for name in SELECTION_SPLITS if (runs.column("split") == name).any()), None)
    fixed = {"frontier": split}
    try:
        if split is None:
            raise UserError(
                "neither 'val' nor 'test' was evaluated, and a frontier is never chosen out of distribution"
            )
        chosen = frontier_runs(runs.rows(runs.column("split") == split), y)
        part = rows.rows(np.isin(rows.column("run").astype(str), list(chosen)))
        return Entry(law, "flops", group, fixed, part, fit(law, _points(law, part, "flops", y), delta=np.inf))
    except UserError as error:
        return Entry(law, "flops", group, fixed, rows.rows(np.zeros(len(rows), bool)), None, str(error))


def frontier_runs(rows: Table, y: str) -> set[str]:
    """Runs of the cells (size x data x samples seen) that no cheaper or equal cell beats in mean loss over seeds."""
    checked = points(rows, {"C": "flops"}, y, one_curve=False)
    seen = np.nan_to_num(rows.numbers("samples_seen")) if "samples_seen" in rows.columns else np.zeros(len(rows))
    cells: dict[tuple[Any, ...], list[int]] = {}
    columns = (rows.column("size"), rows.column("data"), seen)
    for i, cell in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        cells.setdefault(cell, []).append(i)
    log_x, log_y = np.log(checked.x[0]), checked.log_y
    means = [(float(log_x[i].mean()), float(log_y[i].mean()), i) for i in cells.values()]
    best = np.inf
    runs: set[str] = set()
    for _, loss, members in sorted(means):
        if loss < best:
            best = loss
            runs |= {str(run) for run in rows.column("run")[members]}
    return runs


def study_records(entries: Sequence[Entry], y: str) -> list[dict[str, Any]]:
    """The JSON entries of a study, with exponent differences OOD against ID and between architectures."""
    known = find_metric(y)
    records = []
    for entry in entries:
        more: dict[str, Any] = {
            "axis": entry.axis,
            "metric": y,
            "unit": known.unit,
            "group": entry.group,
            "fixed": entry.fixed,
            "left_out": entry.table.left_out,
            "x": {entry.law.variables[0]: entry.axis},
            "points": _point_lists(entry),
            "differences": _differences(entry, entries),
        }
        if entry.fit is None:
            law = entry.law
            records.append(refused_record(law.name, law.formula, law.exponent, entry.reason, **more))
        else:
            records.append(fit_record(entry.fit, more.pop("group"), **more))
    return records


def _point_lists(entry: Entry) -> dict[str, list[Any]]:
    rows = entry.table
    return {
        "x": [number(value) for value in rows.numbers(entry.axis)],
        "y": [number(value) for value in rows.numbers("value")],
        "se": [number(value) for value in rows.numbers("se")],
        "run": [str(run) for run in rows.column("run")],
    }


def _differences(entry: Entry, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    result = []
    for other in entries:
        if other is entry or (other.law.name, other.axis) != (entry.law.name, entry.axis):
            continue
        model = ("architecture", "treatment")
        same_model = all(entry.group[key] == other.group[key] for key in model)
        if same_model and other.group["split"] == "test":
            kind = "ood-id"
        elif not same_model and entry.group["split"] == other.group["split"]:
            kind = "architecture"
        else:
            continue
        if entry.fit is None or other.fit is None:
            continue
        siblings = [
            (a, other.slices[level])
            for level, a in entry.slices.items()
            if kind == "ood-id" and level in other.slices and entry.fit.scale.pooled_over > 1
        ]
        found = difference(entry.fit, other.fit, siblings)
        result.append(difference_record(found, kind, other.group))
    return result
