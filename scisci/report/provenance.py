"""Where a page comes from: the commands that make it again, and what its table and fits are."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

import scisci
from scisci.contracts.results import TABLE_VERSION
from scisci.report.study import Study
from scisci.report.wording import duration, listed, merged, sharing


@dataclass(frozen=True)
class Provenance:
    """`commands` as a shell takes them; `facts` are pairs of a term and its description."""

    commands: list[str]
    facts: list[tuple[str, str]]


def provenance(study: Study, table: Path, fits: Path | None, out: Path, form: str = "html") -> Provenance:
    """How `out` came from `table` and `fits` (None: fitted while it was made)."""
    runs = study.runs
    fits_name = fits or table.with_name("fits.json")
    metric = study.metric.name
    commands = [
        f"scisci sweep run STUDY.yaml --out {_quoted(table.parent)}",
        f"scisci scale study {_quoted(table)} --y {metric} --json {_quoted(fits_name)}",
        f"scisci report {_quoted(table)} --fits {_quoted(fits_name)} --metric {metric} "
        f"{'' if form == 'html' else f'--format {form} '}--out {_quoted(out)}",
    ]
    ends = [f"{count:,} {end.replace('_', ' ')}" for end, count in runs.status.value_counts().items()]
    said = sharing(study.shared)
    facts = {
        "study": listed(sorted(runs.study.dropna().unique())),
        "data set": listed(sorted(runs.dataset.dropna().unique())),
        "domain": listed(sorted(runs.domain.dropna().unique())),
        "runs": f"{len(runs):,} ({listed(ends)})",
        "seeds": listed([str(seed) for seed in sorted(runs.seed.dropna().unique())]),
        "devices": listed(sorted(runs.device.dropna().unique())),
        "time over all runs": duration(float(runs.seconds.sum())) + (f" (no measure of speed: {said})" if said else ""),
        "peak memory of a run": "" if runs.peak_memory.isna().all() else f"{runs.peak_memory.max():,.0f} MiB",
        "metric": f"{study.metric.title}: {study.metric.description}",
        "intervals": "; ".join(merged(fit.interval.words for fit in study.fits if fit.interval and fit.interval.words)),
        "table": f"{table.name}, version {TABLE_VERSION}, sha256 {_sha256(table)}",
        "fits": f"{fits.name}, sha256 {_sha256(fits)}" if fits else "made with this page",
        "software": f"scisci {scisci.__version__}",
    }
    return Provenance(commands, [(term, words) for term, words in facts.items() if words])


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
