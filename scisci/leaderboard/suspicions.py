"""What is suspicious in a submission without being wrong: a person looks at it, and nothing is refused for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import pyarrow as pa

from scisci.leaderboard.contents import Agreement
from scisci.leaderboard.findings import Finding
from scisci.leaderboard.submission import Submission

BOHR, HARTREE = 0.529177, 27.2114
# What predictions in a unit are to be multiplied by for eV, Å or km/s.
UNITS = {
    HARTREE: "Hartree instead of eV",
    HARTREE / 2: "Rydberg instead of eV",
    HARTREE / BOHR: "Hartree/bohr instead of eV/Å",
    HARTREE / 2 / BOHR: "Rydberg/bohr instead of eV/Å",
    1 / HARTREE: "eV converted from Hartree twice",
    BOHR / HARTREE: "eV/Å converted from Hartree/bohr twice",
    1 / 23.0605: "kcal/mol instead of eV",
    1 / 96.4853: "kJ/mol instead of eV",
    23.0605: "converted from kcal/mol twice",
    BOHR: "bohr instead of Å",
    1 / BOHR: "eV/bohr instead of eV/Å",
    1 / 160.2177: "GPa instead of eV/Å³",
    1 / 1602.177: "kbar instead of eV/Å³",
    1e-3: "a thousandth of the unit, such as meV or m/s",
    1e3: "a thousand times the unit",
    -1.0: "the other sign, as of a gradient",
}
# Units are wrong if a factor makes squared errors that much smaller, down to that share of the labels' squares; they
# have a name if the factor is that near to one, in its logarithm.
BETTER, LEFT, NEAR = 4.0, 0.25, 0.15
# Shares of values that equal labels to rounding: in forces none do by chance; total energies and counts may.
COPIED, COPIED_BY_CHANCE = 0.01, 0.5
CHANCE = ("energy", "mean")
IMPLAUSIBLE = 1e-4
REPORTED_TOLERANCE = 1e-3


def of_agreements(agreements: Mapping[str, Agreement]) -> Iterator[str]:
    """Wrong units and copied labels, a clause each."""
    for name, found in agreements.items():
        if not found.count:
            continue
        share = found.equal / found.count
        if share > (COPIED_BY_CHANCE if name in CHANCE else COPIED):
            yield f"{share:.0%} of the values of {name!r} equal their labels to rounding; were these copied?"
        elif name not in CHANCE and found.missed(1.0) < IMPLAUSIBLE**2 * found.labels:
            error = math.sqrt(found.missed(1.0) / found.labels)
            yield f"{name!r} differs from its labels by {error:.1g} of their size; were these copied?"
        else:
            yield from _units(name, found)


def _units(name: str, found: Agreement) -> Iterator[str]:
    if not found.predicted or not found.both:
        return
    # Of the sizes, since slopes are smaller by what is noise in the one or the other.
    factor = math.copysign(math.sqrt(found.labels / found.predicted), found.both)
    left = found.missed(found.both / found.predicted)
    if left * BETTER > found.missed(1.0) or left > LEFT * found.labels or 2 / 3 < factor < 3 / 2:
        return
    distances = {unit: abs(math.log(factor / unit)) for unit in UNITS if unit * factor > 0}
    named = [UNITS[unit] for unit in sorted(distances, key=distances.__getitem__) if distances[unit] < NEAR]
    yield (
        f"{name!r} fits its labels better when multiplied by {factor:.4g}; it looks like"
        f" {' or '.join(named[:2]) or 'units or a scale of its own'}"
    )


def of_reports(submission: Submission, slug: str, table: pa.Table) -> Iterator[Finding]:
    """Reported numbers that differ from the recomputed ones in `table`, by more than a thousandth."""
    columns = (table[name].to_pylist() for name in ("run", "split", "metric", "value"))
    found = {(run, split, metric): value for run, split, metric, value in zip(*columns, strict=True)}
    for run in submission.runs:
        for split, values in run.reported.items():
            for metric, told in values.items():
                value = found.get((f"{slug}/{run.run}", split, metric))
                if value is not None and not math.isclose(told, value, rel_tol=REPORTED_TOLERANCE, abs_tol=1e-12):
                    what = f"reports {metric} {told:.6g}, but its predictions give {value:.6g}"
                    yield Finding(f"{run.run}/{split}", what)


def of_disclosures(submission: Submission) -> Iterator[Finding]:
    """Contamination that the authors disclose."""
    data = submission.training_data
    if data.contamination != "none known":
        yield Finding("training_data", f"contamination of the test splits is {data.contamination}, as its authors say")
