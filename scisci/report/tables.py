"""One function per table of the page, each from a study alone."""

from __future__ import annotations

import math

import pandas as pd

from scisci.contracts.metrics import SYMMETRY_GROUPS
from scisci.report import chartdata
from scisci.report.cells import Cell, Table, number
from scisci.report.fits import Bound, Difference, Fit
from scisci.report.study import AXES, Study
from scisci.report.wording import capital, listed, series_name, short, significant, unsigned_zeros, with_error

MOST_ROWS = 200
HELD = {"params": "held fixed", "data": "held fixed", "flops": "runs"}


def exponents(study: Study, axis: str) -> Table:
    """Exponents along one axis with 95 % intervals, ID beside OOD, every law: an architecture and law a row.

    A fit that is not identified shows its verdict and, in a note, the reason; never a number.
    """
    table = Table(
        f"exponents-{axis}",
        f"Exponent of {study.metric.label} against {AXES[axis]}: estimate [95 % interval]. "
        "A larger exponent is a faster fall.",
        ["architecture", "law", HELD[axis], "points", *(split.label for split in study.splits)],
        [],
    )
    fits = {(fit.series, fit.law, fit.split): fit for fit in study.fits_of(axis)}
    laws = list(dict.fromkeys(law for _, law, _ in fits))
    for series in study.series:
        for law in laws:
            mine = [fits[key] for split in study.splits if (key := (series, law, split.name)) in fits]
            if not mine:
                continue
            row = [series_cell(study, series), Cell(law.replace("_", " ")), Cell(held_fixed(mine[0]))]
            counts = sorted({fit.n for fit in mine})
            fewest, most = counts[0], counts[-1]
            row.append(number(str(fewest), fewest) if fewest == most else number(f"{fewest}–{most}", fewest, most=most))
            row += [_fit_cell(table, fits.get((series, law, split.name))) for split in study.splits]
            table.rows.append(row)
    if table.rows:
        table.fold(HELD[axis], f"{capital(HELD[axis])}:")
    return table


def _fit_cell(table: Table, fit: Fit | None) -> Cell:
    if fit is None:
        return number("–", None)
    verdict = fit.audit.verdict
    estimate = fit.parameters.get(fit.exponent or "")
    order = estimate.value if estimate and verdict != "not identified" else None
    notes = tuple(sorted(table.note(remark) for remark in fit.remarks))
    more = {} if order is None or estimate is None else _ends(estimate.ci95)
    return Cell(fit.text, order, numeric=True, verdict=verdict, notes=notes, more=more)


def _ends(ci95: tuple[Bound, Bound] | None) -> dict[str, float]:
    """The ends of an interval; one that does not exist is infinitely far away."""
    if ci95 is None:
        return {}
    low, high = ci95
    return {"low": -math.inf if low is None else low, "high": math.inf if high is None else high}


def held_fixed(fit: Fit) -> str:
    """What is held constant along a fit's axis, or which runs it is of, in words."""
    fixed = fit.fixed
    if "frontier" in fixed:
        return f"compute frontier, chosen on {fixed['frontier'] or 'no split'}"
    words = [f"size {fixed['size']}"] if "size" in fixed else []
    if "params" in fixed:
        words.append(f"{short(float(fixed['params'] or 0))} parameters")
    if "data" in fixed:
        words.append(f"{float(fixed['data'] or 0):,.0f} samples")
    return ", ".join(words) or "nothing"


def against_identity(study: Study) -> Table:
    """Exponent differences OOD minus ID of each architecture, a column for each shifted split."""
    shifted = [split for split in study.splits if split.ood]
    table = _difference_table(
        "ood-id",
        "Exponent out of distribution minus exponent in distribution [95 % interval], same runs. "
        "Negative: scale helps less out of distribution. Bold: the interval leaves zero out.",
        ["architecture"],
        [split.label for split in shifted],
    )
    shown: list[Difference] = []
    for axis in AXES:
        for series in study.series:
            found = {
                split.name: difference
                for split in shifted
                for difference in _differences(study.headline(axis, series, split.name), "ood-id")
            }
            if found:
                cells = [_difference_cell(found.get(split.name)) for split in shifted]
                table.rows.append([series_cell(study, series), *_where(study, axis), *cells])
                shown += found.values()
    return _finish(table, shown)


def between_architectures(study: Study) -> Table:
    """Exponent differences between architectures, every pair once, a column for each split."""
    table = _difference_table(
        "architectures",
        "Exponent of the first architecture minus that of the second [95 % interval]. "
        "Positive: the first falls faster. Bold: the interval leaves zero out.",
        ["architectures"],
        [split.label for split in study.splits],
    )
    shown: list[Difference] = []
    for axis in AXES:
        for position, first in enumerate(study.series):
            for second in study.series[position + 1 :]:
                found = {
                    split.name: difference
                    for split in study.splits
                    for difference in pair(study, axis, first, second, split.name)
                }
                if found:
                    cells = [_difference_cell(found.get(split.name)) for split in study.splits]
                    table.rows.append([Cell(f"{first} − {second}"), *_where(study, axis), *cells])
                    shown += found.values()
    return _finish(table, shown)


def pair(study: Study, axis: str, first: str, second: str, split: str) -> list[Difference]:
    """The difference between two series on one split: none or one."""
    found = _differences(study.headline(axis, first, split), "architecture")
    return [d for d in found if series_name(d.to.get("architecture", ""), d.to.get("treatment")) == second]


def _differences(fit: Fit | None, kind: str) -> list[Difference]:
    return [] if fit is None else [d for d in fit.differences if d.kind == kind]


def _difference_table(key: str, caption: str, first: list[str], last: list[str]) -> Table:
    return Table(key, caption, [*first, "against", "law", *last], [])


def _where(study: Study, axis: str) -> list[Cell]:
    return [Cell(AXES[axis]), Cell((study.law(axis) or "").replace("_", " "))]


def _difference_cell(difference: Difference | None) -> Cell:
    if difference is None:
        return number("–", None)
    known = difference.ci95 is not None
    verdict, order = (None, difference.value) if known else ("not identified", None)
    hint = difference.method if known else ""
    more = _ends(difference.ci95)
    return Cell(
        unsigned_zeros(difference.text),
        order,
        numeric=True,
        verdict=verdict,
        strong=difference.decided,
        hint=hint,
        more=more,
    )


def _finish(table: Table, found: list[Difference]) -> Table:
    """Say in the caption what all rows share: the law, and the kinds of intervals."""
    if table.rows:
        table.fold("law", "Law:")
        kinds = interval_kinds(found)
        table.caption += f" Intervals: {listed(kinds)}." if kinds else ""
    return table


def interval_kinds(found: list[Difference]) -> list[str]:
    """How the intervals of differences were made, each kind once, without their degrees of freedom."""
    return list(dict.fromkeys(d.method.split(",")[0] for d in found if d.ci95 is not None and d.method))


def best(study: Study) -> Table:
    """Each architecture's run of lowest ID error, and its error with 95 % interval on every split."""
    table = Table(
        "best",
        f"{capital(study.metric.title)} of each architecture's best run, ± half its 95 % interval {study.error_kind}. "
        f"The run is chosen on {chartdata.choosing_split(study)}, never on a shifted split.",
        ["architecture", "size", "parameters", "samples", "FLOPs", *study.labels.values()],
        [],
        units=dict.fromkeys(study.labels.values(), study.metric.unit),
    )
    scores = study.scores.set_index(["run", "split"])
    for run in chartdata.chosen_runs(study).itertuples():
        row = [series_cell(study, run.series), Cell(run.size)]
        row += [number(short(value), value) for value in (run.params, run.data, run.flops)]
        for split in study.splits:
            if (run.run, split.name) in scores.index:
                found = scores.loc[(run.run, split.name)]
                ends = {} if pd.isna(found.error) else {"low": float(found.low), "high": float(found.high)}
                row.append(number(with_error(found.value, found.error), found.value, **ends))
            else:
                row.append(number("–", None))
        table.rows.append(row)
    return table


def symmetry(study: Study) -> Table:
    """Median and highest over runs of each symmetry error, in distribution."""
    rows, _ = chartdata.symmetry_errors(study)
    groups = [group for group in SYMMETRY_GROUPS if group in set(rows.group)]
    table = Table(
        "symmetry",
        f"Relative symmetry error on {study.identity.label}: median over runs (highest).",
        ["architecture", "prediction", "runs", *groups],
        [],
    )
    for (series, quantity), mine in rows.groupby(["series", "panel"]):
        cells = [_median_cell(mine[mine.group == group].value) for group in groups]
        table.rows.append(
            [
                series_cell(study, series),
                Cell(quantity),
                number(str(mine.run.nunique()), mine.run.nunique()),
                *cells,
            ]
        )
    return table


def _median_cell(values: pd.Series) -> Cell:
    if values.empty:
        return number("–", None)
    middle, highest = float(values.median()), float(values.max())
    return number(f"{significant(middle, 2)} ({significant(highest, 2)})", middle, highest=highest)


def not_finished(study: Study) -> Table:
    """Runs that diverged or failed, with their reason; a reader sees the first `MOST_ROWS` of them."""
    runs = study.runs[study.runs.status != "ok"].sort_values(["series", "size", "data", "seed"])
    count = f"the first {MOST_ROWS} of {len(runs)}" if len(runs) > MOST_ROWS else f"{len(runs)}"
    table = Table(
        "not-finished",
        f"Runs that did not end well ({count}); none of them is in a fit.",
        ["architecture", "size", "samples", "seed", "outcome", "reason", "run"],
        [],
        most=MOST_ROWS,
    )
    for run in runs.itertuples():
        reason = "no reason recorded" if pd.isna(run.reason) else run.reason
        table.rows.append(
            [
                series_cell(study, run.series),
                Cell(run.size),
                number(f"{run.data:,}", run.data),
                number(str(run.seed), run.seed),
                Cell(run.status.replace("_", " "), verdict="not identified"),
                Cell(reason),
                Cell(run.run),
            ]
        )
    return table


def series_cell(study: Study, series: str) -> Cell:
    return Cell(series, series=study.series.index(series))
