"""A study as the report shows it: a results table and its fits, read once and put in order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from scisci.contracts.errors import UserError, unknown_name
from scisci.contracts.metrics import METRICS, Metric, metric
from scisci.contracts.results import read_results
from scisci.report.fits import Fit
from scisci.report.wording import NORMAL_95, series_name

AXES = {"params": "parameters", "data": "training samples", "flops": "training FLOPs"}


@dataclass(frozen=True)
class Split:
    """One split: `family` groups the splits that shift the same thing by different severities."""

    name: str
    severity: float | None

    @property
    def ood(self) -> bool:
        return self.name.startswith("ood_")

    @property
    def label(self) -> str:
        """As headings show it: "ID · test", "OOD · 600K"."""
        return f"{'OOD' if self.ood else 'ID'} · {self.words}"

    @property
    def words(self) -> str:
        """As sentences that say whether it is shifted call it: "test", "600K"."""
        return self.name.removeprefix("ood_").replace("_", " ") if self.ood else self.name

    @property
    def family(self) -> str:
        return re.sub(r"[\d.]+", "", self.name)


@dataclass(frozen=True)
class Study:
    """All a page is made from.

    `frame` has the table's columns plus `series` (the architecture, with its treatment where it has one),
    `error` (its standard error: over groups where the table has that, else over samples), `low` and `high`
    (95 % interval of `value`, ± 1.96 `error`). `splits` come in reading order, in distribution first; `series`
    is the fixed order that gives every architecture its colour and its mark.
    """

    frame: pd.DataFrame
    metric: Metric
    splits: tuple[Split, ...]
    series: tuple[str, ...]
    fits: tuple[Fit, ...]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per run, whatever became of it."""
        return self.frame.drop_duplicates("run")

    @property
    def shared(self) -> list[bool | None]:
        """Of each finished run, whether other processes used its device; None where that is not known."""
        return [None if pd.isna(value) else bool(value) for value in self.runs.shared[self.runs.status == "ok"]]

    @property
    def identity(self) -> Split:
        """The in-distribution split that the shifted ones are held against: `test` where there is one."""
        inside = [split for split in self.splits if not split.ood]
        return next((split for split in inside if split.name == "test"), inside[0])

    @property
    def logarithmic(self) -> bool:
        """Whether axes of the error are logarithmic: a metric without a natural zero may be negative."""
        return self.metric.natural_zero

    @property
    def labels(self) -> dict[str, str]:
        """Heading of each split, by its name."""
        return {split.name: split.label for split in self.splits}

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Rows of finished runs for the study's metric, on the splits shown."""
        rows = self.frame[(self.frame.status == "ok") & (self.frame.metric == self.metric.name)]
        return rows[rows.split.isin(self.labels) & np.isfinite(rows.value)]

    @cached_property
    def error_kind(self) -> str:
        """What the intervals of values are over: frames of one molecule are no independent samples, groups are."""
        scores = self.scores
        grouped = scores.se_groups.notna()
        alone = scores.se.notna() & ~grouped
        if grouped.any() and alone.any():
            return "over groups where the table has them, else over samples"
        return "over groups" if grouped.any() else "over samples"

    def fits_of(self, axis: str) -> list[Fit]:
        return [fit for fit in self.fits if fit.axis == axis]

    def law(self, axis: str) -> str | None:
        """The law that the charts of an axis draw for every group alike: the one best identified over all.

        Exponents of different laws cannot be compared, so no chart mixes them; the tables show all.
        """
        ranks: dict[str, int] = {}
        for fit in self.fits_of(axis):
            ranks[fit.law] = ranks.get(fit.law, 0) + fit.rank
        return min(ranks, key=lambda name: ranks[name], default=None)

    def headline(self, axis: str, series: str, split: str) -> Fit | None:
        """The fit that the charts draw for one series on one split."""
        law = self.law(axis)
        mine = (fit for fit in self.fits_of(axis) if fit.law == law)
        return next((fit for fit in mine if fit.series == series and fit.split == split), None)


def read_table(path: Path | str, dataset: str | None = None) -> pd.DataFrame:
    """Read a results table for one data set, with the columns `series`, `error`, `low` and `high` added.

    A table of several data sets needs `dataset`; without it, or with an unknown one, it is a `UserError`.
    """
    frame = read_results(path).to_pandas()
    if frame.empty:
        raise UserError(f"{path} holds no runs; train some with 'scisci sweep run' and collect them again")
    known = sorted(frame.dataset.dropna().unique())
    if dataset is not None and dataset not in known:
        raise unknown_name("data set in the table", dataset, known)
    if dataset is None and len(known) > 1:
        some = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
        raise UserError(f"{path} holds several data sets ({some}); choose one with --dataset NAME")
    if dataset is not None:
        frame = frame[frame.dataset == dataset]
    error = frame.se_groups.fillna(frame.se)
    half = NORMAL_95 * error.fillna(0.0)
    names = [series_name(*pair) for pair in zip(frame.architecture, frame.treatment, strict=True)]
    return frame.assign(series=names, error=error, low=frame.value - half, high=frame.value + half)


def choose_metric(frame: pd.DataFrame, name: str | None) -> Metric:
    """The metric a page is about: `name`, or the first error of the registry that the table holds.

    Forces come first, and what has no natural zero last: its exponents hang on its unit.
    """
    held = set(frame.metric.dropna().unique())
    errors = [m for m in METRICS.values() if m.direction == "lower" and not m.name.startswith("symmetry_")]
    errors.sort(key=lambda m: (m.name != "force_mae", not m.natural_zero))
    usable = [m.name for m in errors if m.name in held]
    if name is None and not usable:
        raise UserError("the table holds no error metric of a finished run; see its column 'reason'")
    chosen = metric(name or usable[0])
    if chosen.name not in held:
        raise UserError(f"the table holds no {chosen.name}; choose one with --metric: {', '.join(usable)}")
    if chosen.name not in usable:
        raise UserError(
            f"{chosen.name} is not an error that falls with scale; choose with --metric: {', '.join(usable)}"
        )
    return chosen


def order_splits(frame: pd.DataFrame) -> tuple[Split, ...]:
    """The splits of a table in reading order: in distribution first, then by kind of shift and severity.

    `val` chose each run's checkpoint, so it is left out where a split that chose nothing is there to show.
    """
    rows = frame.dropna(subset=["split"]).drop_duplicates("split")
    severities = [None if pd.isna(value) else float(value) for value in rows.severity]
    splits = [Split(name, severity) for name, severity in zip(rows.split, severities, strict=True)]
    if any(not split.ood and split.name != "val" for split in splits):
        splits = [split for split in splits if split.name != "val"]
    if all(split.ood for split in splits):
        raise UserError("the table holds no in-distribution split; evaluate the split 'test' too")
    key = lambda s: (s.ood, s.severity is None, s.family, s.severity or 0.0, s.name)
    return tuple(sorted(splits, key=key))


def assemble(frame: pd.DataFrame, fits: Sequence[Fit], name: str | None = None) -> Study:
    """Bring a table and its fits together; fits of runs that the table lacks are a `UserError`."""
    chosen = choose_metric(frame, name)
    splits = order_splits(frame)
    mine = [fit for fit in fits if fit.metric == chosen.name]
    shown = {split.name for split in splits}
    runs = set(frame.run)
    if any(run not in runs for fit in mine for run in fit.runs):
        raise UserError("the fits are of other runs than the table's; write them again with 'scisci scale study'")
    if fits and not mine:
        raise UserError(
            f"the fits are of {', '.join(sorted({fit.metric for fit in fits}))}, not of {chosen.name}; "
            "fit it with 'scisci scale study' or choose with --metric"
        )
    placed = {(axis, series) for axis in AXES for series in frame.series[frame[axis] > 0]}
    # a split that only chooses has no say in the law, and a baseline without parameters no exponent along them
    kept = tuple(fit for fit in mine if fit.split in shown and (fit.axis, fit.series) in placed)
    return Study(frame, chosen, splits, tuple(sorted(frame.series.unique())), kept)
