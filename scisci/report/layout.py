"""What the page shows, in reading order: sections of figures with their captions, and of tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import altair as alt
import pandas as pd

from scisci.report import chartdata, charts, tables
from scisci.report.cells import Table
from scisci.report.study import AXES, Study
from scisci.report.wording import capital, formula

SECTIONS = {"params": "Parameters", "data": "Training data", "flops": "Training compute"}


@dataclass(frozen=True)
class Figure:
    """A chart with its title and caption; `key` names its file when it is exported."""

    key: str
    title: str
    caption: str
    chart: alt.FacetChart
    subtitle: str = ""  # drawn into exported images, which have no caption

    def spec(self) -> dict[str, Any]:
        """The Vega-Lite specification, with title and caption as its description for screen readers."""
        described: dict[str, Any] = self.chart.properties(description=f"{self.title}. {self.caption}").to_dict()
        return described


@dataclass(frozen=True)
class Section:
    """A part of the page: figures first, then tables."""

    key: str
    title: str
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def sections(study: Study) -> list[Section]:
    """All parts of the page that the study has something for."""
    parts = [
        *(Section(axis, SECTIONS[axis], scaling(study, axis), [tables.exponents(study, axis)]) for axis in AXES),
        Section(
            "differences",
            "Differences",
            [],
            [tables.against_identity(study), tables.between_architectures(study)],
        ),
        Section("shift", "ID and OOD", [*shift(study), *severity(study)]),
        Section("symmetry", "Symmetry", symmetry(study), [tables.symmetry(study)]),
        Section("best", "Best errors", [], [tables.best(study)]),
        Section("not-finished", "Unfinished runs", [], [tables.not_finished(study)]),
    ]
    filled = [
        Section(part.key, part.title, part.figures, [table for table in part.tables if table.rows]) for part in parts
    ]
    return [part for part in filled if part.figures or part.tables]


def figures(study: Study) -> list[Figure]:
    """Every chart of the study, the single-image overview first where there are fits."""
    return [*overview(study), *(figure for part in sections(study) for figure in part.figures)]


def overview(study: Study) -> list[Figure]:
    """The study in one picture, along the axis with the most identified exponents; none without curves."""
    axes = [axis for axis in AXES if not chartdata.fit_curves(study, axis).empty]
    if not axes:
        return []
    axis = min(axes, key=lambda a: sum(fit.rank for fit in chartdata.headline_fits(study, a)))
    title = f"{capital(study.metric.label)} against {AXES[axis]}, in and out of distribution"
    words = f"Numbers: exponents of the law {_law(study, axis)} with 95 % intervals. Bars: 95 %, {study.error_kind}."
    return [Figure("overview", title, f"{words} {_held(study, axis)}", charts.overview(study, axis), words)]


def scaling(study: Study, axis: str) -> list[Figure]:
    """Error along one axis, where the runs have a value on it; which runs and which law its curves are of."""
    points = chartdata.run_points(study, axis)
    if points.empty:
        return []
    axes = "Both axes are" if study.logarithmic else f"The axis of {AXES[axis]} is"
    caption = (
        f"{axes} logarithmic. A mark is a run; bars are 95 % intervals of its error, {study.error_kind}, cut where "
        "they leave the panel."
    )
    if study.law(axis):
        caption += (
            f" Curves: the law {_law(study, axis)} with its 95 % band, fitted to the solid marks. "
            f"{_held(study, axis)} Faint marks are the other runs."
        )
    title = f"{capital(study.metric.label)} against {AXES[axis]}"
    figure = charts.loss_against(study, axis)
    return [Figure(f"error-{axis}", title, caption + _drawn(study, points), figure)]


def shift(study: Study) -> list[Figure]:
    """OOD against ID error, where a split is shifted."""
    if not any(split.ood for split in study.splits):
        return []
    alike = "logarithmic and the same" if study.logarithmic else "the same"
    caption = (
        f"A mark is a run with its 95 % intervals, {study.error_kind}; both axes are {alike}. On the dashed line the "
        "error is as low out of distribution as in it; runs on one line share one relation between the two."
    )
    title = f"{capital(study.metric.label)} out of distribution against in distribution"
    caption += _drawn(study, chartdata.paired_errors(study))
    return [Figure("ood-id", title, caption, charts.ood_against_id(study))]


def severity(study: Study) -> list[Figure]:
    """Error against severity, where shifts come in severities."""
    if chartdata.severity_errors(study).empty:
        return []
    caption = (
        f"Bold: each architecture's run of lowest error on {chartdata.choosing_split(study)}, with its 95 % "
        f"interval {study.error_kind}. Faint: every other run."
    )
    title = f"{capital(study.metric.label)} as the shift grows"
    caption += _drawn(study, chartdata.severity_errors(study))
    return [Figure("severity", title, caption, charts.severity(study))]


def symmetry(study: Study) -> list[Figure]:
    """Symmetry errors, where the runs measured them."""
    rows, _ = chartdata.symmetry_errors(study)
    if rows.empty:
        return []
    caption = (
        f"Relative error of predictions under random symmetry operations, on {study.identity.label}, "
        "logarithmic. A mark is a run, the bar their median."
    )
    if len(chartdata.rounding_units(rows)):
        caption += " Dashed: the rounding unit of float32, 1.2e-7, or float64, 2.2e-16."
    if rows.exact.any():
        caption += " Hollow marks at 0 are errors of exactly zero, which a logarithmic axis cannot place."
    return [Figure("symmetry", "Symmetry error by group", caption, charts.symmetry(study))]


def rates(study: Study) -> list[Figure]:
    """Error against learning rate, where models were trained at several."""
    if chartdata.rate_errors(study).empty:
        return []
    caption = (
        f"On {study.identity.label}. A mark is a run, the line goes through the means over seeds, a ring is around the "
        "lowest; a rate at which a run did not end well has no mean."
    )
    title = f"{capital(study.metric.label)} against learning rate"
    return [Figure("rates", title, caption, charts.rates(study))]


def _drawn(study: Study, rows: pd.DataFrame) -> str:
    """How many runs a chart draws, where not all that finished."""
    drawn, finished = rows.run.nunique(), study.scores.run.nunique()
    return f" {drawn:,} of {finished:,} finished runs are drawn." if drawn < finished else ""


def _law(study: Study, axis: str) -> str:
    law = study.law(axis)
    fit = next(fit for fit in study.fits_of(axis) if fit.law == law)
    return f"“{fit.law.replace('_', ' ')}”, {formula(fit.equation)},"


def _held(study: Study, axis: str) -> str:
    """What the fits drawn along an axis hold fixed, as a sentence."""
    words = dict.fromkeys(tables.held_fixed(fit) for fit in chartdata.headline_fits(study, axis))
    return f"{capital(tables.HELD[axis])}: {'; '.join(words)}."
