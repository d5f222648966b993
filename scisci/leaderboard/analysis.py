"""From a submission's recomputed errors to its scaling: a power law along every axis on every split, as records.

A record says nothing of other submissions nor of the board, so scores stay a function of the submission alone. It
holds the fitted line in the few numbers that any later comparison or forecast needs (scisci.leaderboard.exponents):

    {
      "dataset": "xtb-molecules", "metric": "force_mae", "treatment": "none",
      "axis": "params" | "data" | "flops", "split": "test",
      "fixed": "data 4,096",                  what is held constant along the axis, or how the frontier was chosen
      "verdict": "identified" | "weak" | "not identified",
      "reason": "one sentence; another",      why not, or what to mind
      "exponent": {"value": 0.31, "low": 0.25, "high": 0.37} | null,
      "held_out": 0.04 | null,                rms of ln predicted - ln observed at the largest scale, unseen by the fit
      "line": {..} | null                     scisci.leaderboard.exponents.Line
    }
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scisci.contracts.errors import UserError
from scisci.leaderboard.config import headlines
from scisci.leaderboard.exponents import Line
from scisci.scaling.fitted import Fit
from scisci.scaling.studies import Entry, study
from scisci.scaling.table import Table, read_table
from scisci.scaling.validation import extrapolation


def analyse(table: pa.Table) -> list[dict[str, Any]]:
    """Records of every ranked metric of a submission's results table, by data set, treatment, axis and split."""
    return [
        {"dataset": dataset, "metric": metric, **_record(entry)}
        for dataset, metric, rows in _parts(table)
        for entry in study(rows, metric, laws=("power",))
    ]


def _parts(table: pa.Table) -> Iterator[tuple[str, str, Table]]:
    """Rows of each data set and ranked metric that were scored on a split that carries exponents."""
    scored = pc.or_(pc.equal(table["split"], "test"), pc.starts_with(table["split"], "ood_"))
    domains = dict(zip(table["dataset"].to_pylist(), table["domain"].to_pylist(), strict=True))
    for dataset, domain in sorted(domains.items()):
        for metric in headlines(domain):
            mine = pc.and_(pc.equal(table["dataset"], dataset), pc.equal(table["metric"], metric))
            if pc.any(pc.and_(mine, scored)).as_py():
                yield dataset, metric, read_table(table.filter(mine))


def _record(entry: Entry) -> dict[str, Any]:
    fit = entry.fit
    known = fit is not None and fit.identified
    return {
        "treatment": entry.group["treatment"],
        "axis": entry.axis,
        "split": entry.group["split"],
        "fixed": _fixed(entry),
        "verdict": "not identified" if fit is None else fit.audit.verdict,
        "reason": entry.reason if fit is None else "; ".join(fit.audit.reasons),
        "exponent": _exponent(fit) if fit is not None and known else None,
        "held_out": None if fit is None else _held_out(fit),
        "line": asdict(line_of(fit)) if fit is not None and known else None,
    }


def _fixed(entry: Entry) -> str:
    if entry.axis == "flops":
        chosen_on = entry.fixed["frontier"]
        return "compute frontier" + (f", chosen on {chosen_on}" if chosen_on else "")
    if entry.axis == "params":
        return f"{entry.fixed['data']:,} training samples"
    return f"size {entry.fixed['size']}"


def _exponent(fit: Fit) -> dict[str, float]:
    low, high = fit.intervals[fit.law.exponent]
    return {"value": fit.parameters[fit.law.exponent], "low": low, "high": high}


def _held_out(fit: Fit) -> float | None:
    """How far the law without the largest scale misses it; None where too few scales remain to fit."""
    x = fit.points.x[0]
    try:
        errors = extrapolation(fit.law, fit.points, x == x.max(), np.inf)
    except UserError:
        return None
    return float(np.sqrt(np.mean(errors**2)))


def line_of(fit: Fit) -> Line:
    """The line that a power law, fitted by log least squares to one row a run, is in ln x and ln y."""
    log_x, log_y = np.log(fit.points.x[0]), fit.points.log_y
    return Line(
        n=len(log_x),
        dof=float(fit.scale.dof),
        variance=fit.scale.variance,
        alpha=fit.parameters["alpha"],
        mean_log_x=float(log_x.mean()),
        mean_log_y=float(log_y.mean()),
        sxx=float(((log_x - log_x.mean()) ** 2).sum()),
        x_min=float(fit.points.x[0].min()),
        x_max=float(fit.points.x[0].max()),
    )
