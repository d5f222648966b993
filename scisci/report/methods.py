"""What a paper's methods section says of a study: one paragraph, from the table and its fits alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pandas as pd

import scisci
from scisci.report import chartdata, tables
from scisci.report.study import AXES, Split, Study
from scisci.report.theme import VERDICTS
from scisci.report.wording import counted, duration, ends_in_words, formula, listed, merged, sharing, significant

MOST_VALUES = 12  # of one thing that are listed; of more, their range
MOST_REASONS = 3


def methods(study: Study) -> str:
    """The paragraph, its formulas in plain text; what the table does not have is not said."""
    sentences = [
        _runs(study),
        _failures(study),
        _sizes(study),
        _values(study, "data", "number of training samples", "numbers of training samples", "{:,.0f}"),
        _values(study, "seed", "seed", "seeds", "{:.0f}"),
        _values(study, "lr", "learning rate", "learning rates", "{:g}"),
        _cost(study),
        _splits(study),
        _metric(study),
        *(_laws(study, axis) for axis in AXES),
        _intervals(study),
        _machine(study),
        _sharing(study),
        _missing(study),
        f"This report was made with scisci {scisci.__version__}.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def formulas(study: Study) -> dict[str, str]:
    """The LaTeX of every formula in the paragraph, by how the paragraph writes it."""
    return {formula(fit.equation): fit.equation for fit in study.fits}


def _runs(study: Study) -> str:
    runs = study.runs
    studies, data, domains = (sorted(runs[name].dropna().unique()) for name in ("study", "dataset", "domain"))
    place = f"In the {'study' if len(studies) == 1 else 'studies'} {listed(studies)}, " if studies else ""
    where = "".join(
        f" {words} {listed(names)}" for words, names in (("on the data set", data), ("of the domain", domains)) if names
    )
    made = "was" if len(runs) == 1 else "were"
    return f"{place}{counted(len(runs), 'run')} {made} made{where}; {ends_in_words(Counter(runs.status))}."


def _failures(study: Study) -> str:
    """Why runs did not end well: the reasons met most often."""
    reasons = study.runs[study.runs.status != "ok"].reason.fillna("no reason recorded").value_counts()
    if reasons.empty:
        return ""
    said = [f"{reason} ({counted(count, 'run')})" for reason, count in reasons.head(MOST_REASONS).items()]
    if rest := int(reasons.iloc[MOST_REASONS:].sum()):
        said.append(f"other reasons ({counted(rest, 'run')})")
    return f"Reasons for not finishing: {'; '.join(said)}; no fit has such a run in it."


def _sizes(study: Study) -> str:
    """Every architecture with its sizes and their parameter counts."""
    if not (study.runs["size"].fillna("").any() or study.runs.params.notna().any()):
        return f"Architectures: {listed(list(study.series))}."
    said = []
    for series in study.series:
        mine = study.runs[study.runs.series == series].sort_values(["params", "size"])
        sizes = []
        for size in mine["size"].dropna().unique():
            counts = mine.params[mine["size"] == size].dropna()
            sizes.append(" ".join([size, f"({_range(counts, '{:,.0f}'.format)})" if len(counts) else ""]).strip())
        said.append(f"{series} in {listed(sizes)}" if any(sizes) else series)
    return f"Architectures in their sizes (all parameters of each): {'; '.join(said)}."


def _values(study: Study, column: str, one: str, several: str, form: str) -> str:
    """The values that a column takes, architecture by architecture where they differ."""
    groups: dict[str, list[str]] = {}
    for series in study.series:
        values = study.runs.loc[study.runs.series == series, column].dropna().unique()
        words = [form.format(value) for value in sorted(values)]
        if len(words) > MOST_VALUES:
            words = [f"{words[0]} to {words[-1]} ({len(words)} values)"]
        groups.setdefault(listed(words), []).append(series)
    without = groups.pop("", [])
    if not groups:
        return ""
    apart = len(groups) > 1 or without
    said = [words + (f" for {listed(names)}" if apart else "") for words, names in groups.items()]
    said += [f"none is recorded for {listed(without)}"] if without else []
    name = f"{one} was" if study.runs[column].nunique() == 1 else f"{several} were"
    return f"The {name} {'; '.join(said)}."


def _cost(study: Study) -> str:
    done = study.runs[study.runs.status == "ok"]
    seen, flops = done.samples_seen.dropna(), done.flops.dropna()
    said = [f"saw {_number_of(seen, 'training sample')}, repeats counted"] if len(seen) else []
    said += [f"took {_range(flops, significant)} training FLOPs"] if len(flops) else []
    return f"A finished run {', and '.join(said)}." if said else ""


def _splits(study: Study) -> str:
    inside = [_split(study, split) for split in study.splits if not split.ood]
    shifted = [_split(study, split) for split in study.splits if split.ood]
    words = f"Errors were measured in distribution on {listed(inside)}"
    words += f", and out of distribution on {listed(shifted)}" if shifted else ""
    return f"{words}. The best run of an architecture is that of the lowest error on {chartdata.choosing_split(study)}."


def _split(study: Study, split: Split) -> str:
    counts = study.scores.n[study.scores.split == split.name].dropna()
    said = [] if split.severity is None else [f"severity {split.severity:.4g}"]
    if len(counts):
        said.append(_number_of(counts, "sample"))
    return f"{split.words} ({', '.join(said)})" if said else split.words


def _metric(study: Study) -> str:
    text = f"The error is the {study.metric.title}, {study.metric.description}."
    measured = study.scores.error.notna().any()
    return text + (f" Its 95 % intervals are ± 1.96 standard errors {study.error_kind}." if measured else "")


def _laws(study: Study, axis: str) -> str:
    fits = study.fits_of(axis)
    if not any(fit.loss for fit in fits):  # none, or none that could be made
        return ""
    laws = list(dict.fromkeys(f"“{fit.law.replace('_', ' ')}”, {formula(fit.equation)}," for fit in fits))
    kinds = listed(sorted({fit.loss for fit in fits if fit.loss}))
    held = "; ".join(dict.fromkeys(tables.held_fixed(fit) for fit in fits))
    ranks = Counter(fit.rank for fit in fits)
    counts = listed([f"{ranks[rank]} {verdict}" for rank, verdict in enumerate(VERDICTS) if ranks[rank]])
    return (
        f"Against {AXES[axis]}, the {'law' if len(laws) == 1 else 'laws'} {' and '.join(laws)} "
        f"{'was' if len(laws) == 1 else 'were'} fitted by {kinds} for each architecture and "
        f"split ({tables.HELD[axis]}: {held}); exponents: {counts}."
    )


def _intervals(study: Study) -> str:
    exponents = merged(fit.interval.words.rstrip(".") for fit in study.fits if fit.interval and fit.interval.words)
    differences = tables.interval_kinds([found for fit in study.fits for found in fit.differences])
    said = [f"95 % intervals of exponents: {'; '.join(exponents)}."] if exponents else []
    said += [f"95 % intervals of differences between exponents: {'; '.join(differences)}."] if differences else []
    return " ".join(said)


def _machine(study: Study) -> str:
    runs = study.runs
    devices, seconds, memory = runs.device.dropna().unique(), runs.seconds.dropna(), runs.peak_memory.dropna()
    said = [f"on {listed(sorted(devices))}"] if len(devices) else []
    said += [f"in {duration(float(seconds.sum()))} of run time in all"] if len(seconds) else []
    said += [f"with at most {memory.max():,.0f} MiB of memory in a run"] if len(memory) else []
    return f"The work was done {', '.join(said)}." if said else ""


def _sharing(study: Study) -> str:
    words = sharing(study.shared) if study.runs.seconds.notna().any() else ""
    return f"The time is no measure of speed: {words}." if words else ""


def _missing(study: Study) -> str:
    """What a reader would ask for and the table does not have."""
    done, scores = study.runs[study.runs.status == "ok"], study.scores
    seeds = done.groupby(["series", "size", "data"], dropna=False).seed.nunique()
    absent = {
        "errors out of distribution": not any(split.ood for split in study.splits),
        "standard errors": scores.error.isna().all(),
        "the spread between seeds": seeds.max() <= 1,
        "symmetry errors": not study.frame.metric.fillna("").str.startswith("symmetry_").any(),
        "parameter counts": done.params.isna().all(),
        "numbers of training samples": done.data.isna().all(),
        "learning rates": done.lr.isna().all(),
        "training FLOPs": done.flops.isna().all(),
        "peak memory": done.peak_memory.isna().all(),
        **{f"exponents against {AXES[axis]}": not any(fit.loss for fit in study.fits_of(axis)) for axis in AXES},
    }
    said = [words for words, gone in absent.items() if gone]
    measured = scores.run.nunique()
    if measured < len(done):
        said.append(f"the error of {counted(len(done) - measured, 'finished run')}")
    for split in study.splits:
        without = measured - scores.run[scores.split == split.name].nunique()
        said += (
            [f"the error on {split.words} of {counted(without, 'run')} with errors on other splits"] if without else []
        )
    return f"Not measured, or not in the table: {listed(said)}." if said else ""


def _number_of(counts: pd.Series, noun: str) -> str:
    return f"{_range(counts, '{:,.0f}'.format)} {noun}{'' if counts.max() == 1 else 's'}"


def _range(values: pd.Series, form: Callable[[float], str]) -> str:
    low, high = form(float(values.min())), form(float(values.max()))
    return low if low == high else f"{low} to {high}"
