"""What the page says at its top: sentences made from the table and the fits alone, none of them typed in."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from scisci.report import chartdata, tables
from scisci.report.fits import Difference
from scisci.report.study import AXES, Study
from scisci.report.wording import NORMAL_95, counted, ends_in_words, listed, significant, with_error


@dataclass(frozen=True)
class Finding:
    """One thing the page says: what it is about, and the sentences."""

    topic: str
    text: str


def findings(study: Study) -> list[Finding]:
    """The page's findings, in reading order; one that the data cannot support is not there."""
    said = [
        ("Runs", runs(study)),
        ("Best runs", lowest_errors(study)),
        *((f"Against {AXES[axis]}", exponents(study, axis)) for axis in AXES),
        ("More scale, more error", rising_errors(study)),
        ("Symmetry", symmetry(study)),
    ]
    return [Finding(topic, text) for topic, text in said if text]


def runs(study: Study) -> str:
    """How many runs there are, of what, and how they ended."""
    data = listed(sorted(study.frame.dataset.dropna().unique()))
    ends = ends_in_words(Counter(study.runs.status))
    return f"{counted(len(study.runs), 'run')} of {listed(list(study.series))} on {data}; {ends}."


def lowest_errors(study: Study) -> str:
    """Which architecture's best run (chosen in distribution) has the lowest error on each split."""
    scores = study.scores
    scores = scores[scores.run.isin(chartdata.chosen_runs(study).run)]
    lowest: dict[str, list[str]] = {}
    for split in study.splits:
        rows = scores[scores.split == split.name]
        if len(rows):
            first = rows.loc[rows.value.idxmin()]
            lowest.setdefault(first.series, []).append(f"{with_error(first.value, first.error)} ({split.label})")
    parts = [f"{series} with {listed(errors)}" for series, errors in lowest.items()]
    return f"Lowest {study.metric.title}, with 95 % intervals {study.error_kind}: {'; '.join(parts)}." if parts else ""


def exponents(study: Study, axis: str) -> str:
    """The ID exponents along an axis, which differ between architectures, and what becomes of them OOD."""
    fits = [study.headline(axis, series, study.identity.name) for series in study.series]
    shown = [fit for fit in fits if fit is not None]
    if not shown:
        return ""
    words = listed([f"{fit.series} {fit.text}" for fit in shown])
    law = shown[0].law.replace("_", " ")
    first = f"ID exponents (law “{law}”, 95 % intervals): {words}."
    return " ".join(text for text in (first, _architectures_apart(study, axis), _shifted(study, axis)) if text)


def _architectures_apart(study: Study, axis: str) -> str:
    """Pairs of architectures whose ID exponents differ by more than their interval."""
    split = study.identity.name
    found = [
        (first, second, difference)
        for position, first in enumerate(study.series)
        for second in study.series[position + 1 :]
        for difference in tables.pair(study, axis, first, second, split)
        if difference.ci95 is not None
    ]
    steeper = [(a, b) if (d.value or 0) > 0 else (b, a) for a, b, d in found if d.decided]
    if not found:
        return ""
    if not steeper:
        pairs = "The pair" if len(found) == 1 else f"None of {len(found)} pairs"
        return f"{pairs} of architectures is {'not ' if len(found) == 1 else ''}told apart by its exponents."
    words = listed([f"{fast} has a larger exponent than {slow}" for fast, slow in steeper])
    return f"Told apart, {len(steeper)} of {counted(len(found), 'pair')}: {words}."


def _shifted(study: Study, axis: str) -> str:
    """How many OOD exponents are below or above their ID exponent by more than their intervals."""
    fits = [study.headline(axis, series, split.name) for series in study.series for split in study.splits if split.ood]
    found: list[Difference] = [
        d for fit in fits if fit is not None for d in fit.differences if d.kind == "ood-id" and d.ci95 is not None
    ]
    if not found:
        return ""
    smaller = sum(d.decided and (d.value or 0) < 0 for d in found)
    larger = sum(d.decided and (d.value or 0) > 0 for d in found)
    return (
        f"OOD minus ID: {smaller} of {counted(len(found), 'exponent')} below zero, {larger} above, "
        f"{len(found) - smaller - larger} not told apart."
    )


def rising_errors(study: Study) -> str:
    """Where the error at the upper end of a fit's range exceeds that at its lower end, beyond both errors."""
    rising = []
    for axis in AXES:
        for series in study.series:
            for split in study.splits:
                ends = _ends(study, axis, series, split.name)
                if ends and ends[1][0] - ends[0][0] > NORMAL_95 * math.hypot(ends[0][1], ends[1][1]):
                    values = f"{significant(ends[0][0])} → {significant(ends[1][0])}"
                    rising.append(f"{series} on {split.label} against {AXES[axis]} ({values})")
    return f"{listed(rising)}." if rising else ""


def _ends(study: Study, axis: str, series: str, split: str) -> list[tuple[float, float]] | None:
    """Mean error and its standard error at the two ends of a fit's range; None where there is no range."""
    fit = study.headline(axis, series, split)
    scores = study.scores
    rows = scores[(scores.split == split) & scores.run.isin(fit.runs if fit else [])]
    if rows[axis].nunique() < 2:
        return None
    ends = (rows[rows[axis] == bound] for bound in (rows[axis].min(), rows[axis].max()))
    # runs share their test samples, so averaging them does not make the error smaller
    return [(float(end.value.mean()), float(end.error.fillna(0.0).mean())) for end in ends]


def symmetry(study: Study) -> str:
    """Median rotation error of each architecture's forces, or of energies where there are no forces."""
    rows, _ = chartdata.symmetry_errors(study)
    rows = rows[rows.group == "rotation"]
    for quantity in ("forces", "energy"):
        medians = rows[rows.panel == quantity].groupby("series").value.median()
        if len(medians):
            words = listed([f"{series} {significant(value, 2)}" for series, value in medians.items()])
            return f"Relative rotation error of predicted {quantity}, median over runs: {words}."
    return ""
