"""The rows behind the charts: plain data frames, made from a study alone."""

from __future__ import annotations

import math

import pandas as pd

from scisci.contracts.metrics import SYMMETRY_GROUPS
from scisci.report.fits import Fit
from scisci.report.study import Study

MAX_RUNS = 1_000
ROUNDING = {"float32": 1.1920929e-07, "float64": 2.220446e-16}
_RUN_COLUMNS = ["series", "run", "size", "params", "data", "flops", "seed"]
_CURVE_COLUMNS = ["kind", "panel", "series", "x", "y", "low", "high", "exponent", "verdict", "law"]


def drawable(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that the axis of errors can hold, with intervals that it can: a logarithmic one has no zero."""
    if not study.logarithmic:
        return rows
    rows = rows[rows.value > 0]
    return rows.assign(low=rows.low.clip(lower=rows.value / 100))


def headline_fits(study: Study, axis: str) -> list[Fit]:
    """The fit shown for each series and split along `axis`, where there is one."""
    fits = (study.headline(axis, series, split.name) for series in study.series for split in study.splits)
    return [fit for fit in fits if fit is not None]


def run_points(study: Study, axis: str) -> pd.DataFrame:
    """A row per finished run and split: `x` along the axis, `y` with its 95 % interval `low` to `high`.

    `used` marks the runs of the fits shown; where an axis has no fits, all are. Values that a log axis cannot
    hold (zero or below) are left out, and so are runs beyond `MAX_RUNS` (see `thinned`).
    """
    rows = drawable(study, study.scores)
    rows = rows.assign(x=rows[axis], y=rows.value, kind="run", panel=rows.split.map(study.labels))
    rows = rows[rows.x > 0]
    fits = headline_fits(study, axis)
    pairs = {(run, fit.split) for fit in fits for run in fit.runs}
    rows["used"] = [not pairs or pair in pairs for pair in zip(rows.run, rows.split, strict=True)]
    rows = thinned(rows)
    return rows[[*_RUN_COLUMNS, "kind", "panel", "split", "x", "y", "low", "high", "used"]]


def thinned(rows: pd.DataFrame, limit: int = MAX_RUNS) -> pd.DataFrame:
    """Rows of at most `limit` runs `used` and as many others: of more than that, every k-th run in order."""
    kept: set[str] = set()
    for runs in (rows.run[rows.used].unique(), rows.run[~rows.used].unique()):
        kept.update(runs[:: max(1, math.ceil(len(runs) / limit))])
    return rows[rows.run.isin(kept)]


def fit_curves(study: Study, axis: str) -> pd.DataFrame:
    """The fitted curves along `axis`: `y` with its 95 % band, and the exponent as it may be printed."""
    rows = [
        {
            "kind": "curve",
            "panel": study.labels[fit.split],
            "series": fit.series,
            "x": x,
            "y": value,
            "low": low,
            "high": high,
            "exponent": fit.text,
            "verdict": fit.audit.verdict,
            "law": fit.law,
        }
        for fit in headline_fits(study, axis)
        if fit.curve is not None
        for x, value, low, high in zip(fit.curve.x, fit.curve.value, fit.curve.lo, fit.curve.hi, strict=True)
        if value is not None and (value > 0 or not study.logarithmic)
    ]
    return pd.DataFrame(rows, columns=_CURVE_COLUMNS)


def exponent_words(study: Study, axis: str) -> pd.DataFrame:
    """What each panel of the overview says of its exponents: a short line per series and split."""
    rows = [
        {
            "kind": "words",
            "panel": study.labels[fit.split],
            "series": fit.series,
            "words": f"{fit.series} {fit.text}",
        }
        for fit in headline_fits(study, axis)
    ]
    return pd.DataFrame(rows, columns=["kind", "panel", "series", "words"])


def paired_errors(study: Study) -> pd.DataFrame:
    """A row per run and shifted split: its ID error (`x`, `x_low`, `x_high`) and its OOD error (`y`, ...)."""
    scores = drawable(study, study.scores)
    inside = scores[scores.split == study.identity.name].set_index("run")[["value", "low", "high"]]
    outside = scores[scores.split.isin([split.name for split in study.splits if split.ood])]
    inside = inside.rename(columns={"value": "x", "low": "x_low", "high": "x_high"})
    rows = outside.rename(columns={"value": "y"}).join(inside, on="run", how="inner")
    rows = thinned(rows.assign(kind="run", used=False, panel=rows.split.map(study.labels)))
    return rows[[*_RUN_COLUMNS, "kind", "panel", "split", "x", "x_low", "x_high", "y", "low", "high"]]


def severity_errors(study: Study) -> pd.DataFrame:
    """A row per run and level of every shift that has a measured severity, the ID split first in each.

    `panel` is the kind of shift, `label` the split; `used` marks each series' run chosen in distribution.
    """
    families: dict[str, list[str]] = {}
    for split in study.splits:
        if split.ood and split.severity is not None:
            families.setdefault(split.family, [study.identity.name]).append(split.name)
    rows = drawable(study, study.scores).assign(
        kind="run",
        y=lambda d: d.value,
        label=lambda d: d.split.map(study.labels),
        used=lambda d: d.run.isin(chosen_runs(study).run),
    )
    panels = [rows[rows.split.isin(names)].assign(panel=_levels(study, names[1:])) for names in families.values()]
    columns = [*_RUN_COLUMNS, "kind", "panel", "split", "severity", "label", "y", "low", "high", "used"]
    return thinned(pd.concat(panels))[columns] if panels else pd.DataFrame(columns=columns)


def _levels(study: Study, names: list[str]) -> str:
    """How a kind of shift is called, from its levels."""
    first = study.labels[names[0]]
    return first if len(names) == 1 else f"{first} … {names[-1].removeprefix('ood_')}"


def choosing_split(study: Study) -> str:
    """The split that chooses a series' best run: `val` where the table has it, else the ID split shown."""
    return "val" if (study.frame.split == "val").any() else study.identity.name


def chosen_runs(study: Study) -> pd.DataFrame:
    """Each series' run of lowest error on `choosing_split`; a shifted split never chooses."""
    frame = study.frame
    rows = frame[(frame.status == "ok") & (frame.metric == study.metric.name) & frame.value.notna()]
    rows = rows[rows.split == choosing_split(study)]
    return rows.loc[rows.groupby("series").value.idxmin()].sort_values("series")


def rate_errors(study: Study) -> pd.DataFrame:
    """Errors on the ID split against learning rates `x`, of models trained at several: a panel per size.

    A row per run, and a row of kind "mean" per rate at which as many seeds ended well as at any; `best` marks the
    lowest of these.
    """
    cell = ["study", "series", "size", "data"]
    rows = drawable(study, study.scores[study.scores.split == study.identity.name])
    rows = rows[rows.groupby(cell).lr.transform("nunique") > 1]
    amounts = rows.data.map(lambda n: f", {n:,.0f} samples") if rows.data.nunique() > 1 else ""
    rows = rows.assign(kind="run", panel=rows["size"] + amounts, x=rows.lr, y=rows.value).sort_values("params")
    means = rows.groupby([*cell, "panel", "x"], as_index=False, sort=False).agg(y=("y", "mean"), seeds=("y", "size"))
    means = means[means.seeds == means.groupby(cell).seeds.transform("max")]
    means = means.assign(kind="mean", best=means.y == means.groupby(cell).y.transform("min"))
    return pd.concat([rows, means])[[*_RUN_COLUMNS, "kind", "panel", "x", "y", "best"]]


def symmetry_errors(study: Study) -> tuple[pd.DataFrame, float]:
    """A row per run, symmetry group and predicted quantity on the ID split, and the axis floor.

    An error of exactly zero has no place on a log axis: it is drawn at `floor`, a decade below the smallest
    error there is, and flagged `exact`. `panel` is the predicted quantity: energy or forces, with "float64" where
    it was computed in that instead of the precision of the run.
    """
    frame = study.frame
    rows = frame[(frame.status == "ok") & (frame.split == study.identity.name)]
    rows = rows[rows.metric.fillna("").str.startswith("symmetry_") & rows.value.notna()]
    parts = rows.metric.str.split("_", n=2, expand=True).reindex(columns=range(3), fill_value="")
    positive = rows.value[rows.value > 0]
    floor = 10.0 ** (math.floor(math.log10(positive.min())) - 1) if len(positive) else 1e-8
    rows = rows.assign(
        kind="run",
        group=parts[1],
        panel=parts[2].str.replace("_", ", "),
        x=rows.value.clip(lower=floor),
        exact=rows.value == 0,
        used=False,
    )
    rows = thinned(rows[rows.group.isin(SYMMETRY_GROUPS)])
    return rows[[*_RUN_COLUMNS, "kind", "panel", "metric", "group", "value", "x", "exact"]], floor


def symmetry_medians(rows: pd.DataFrame) -> pd.DataFrame:
    """The median over runs of `symmetry_errors`' rows, per series, group and quantity."""
    medians = rows.groupby(["panel", "series", "group"], as_index=False).x.median()
    return medians.assign(kind="median")


def rounding_units(rows: pd.DataFrame) -> pd.DataFrame:
    """The rounding unit of each panel of `symmetry_errors`, where it lies among the errors drawn."""
    units = [
        {"kind": "precision", "panel": panel, "x": ROUNDING["float64" if "float64" in panel else "float32"]}
        for panel in rows.panel.unique()
    ]
    return pd.DataFrame([unit for unit in units if rows.x.min() / 10 < unit["x"] < rows.x.max()])
