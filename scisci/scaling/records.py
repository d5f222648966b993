"""The JSON of fits: what `scisci scale fit` and `scisci scale study` write and the report reads.

The file is a JSON list; every entry is one fit:

    {
      "schema_version": 1,
      "law": "power_offset",                  name in the registry of laws
      "formula": "L = E + A N^{-\\alpha}",     LaTeX, with the law's own variable names
      "axis": "params",                       study only: "params" | "data" | "flops"; null otherwise
      "x": {"N": "params"},                   law variable -> column
      "metric": "force_mae",                  or the name of the y column of a generic table
      "unit": "meV/Å",                        of y; "" where unknown
      "group": {"architecture": "nequip", "treatment": "none", "split": "ood_600K"},
      "fixed": {"data": 1024},                what is held constant along the axis; {} where nothing is.
                                              On the axis "flops": {"frontier": "test"}, the split whose
                                              cell means chose the runs of the compute frontier
      "n": 8,                                 points fitted
      "clusters": 8,                          runs fitted (equal to n where every row is a run)
      "left_out": {"diverged": 1},            rows not fitted, by reason; {} where none
      "points": {"x": [..], "y": [..], "se": [..|null], "run": [..]},   study only; null otherwise
      "parameters": {"E": {"value": 31.2, "ci95": [0.0, 44.0]},
                     "alpha": {"value": 0.31, "ci95": [0.25, 0.37], "ci95_bootstrap": [0.26, 0.36]}, ...},
                                              ci95_bootstrap: percentiles over runs, fit and compare only
      "derived": {NAME: {"value": .., "ci95": [lo, hi]}},
      "interval": {"method": "profile-t", "level": 0.95, "dof": 5, "words": "one sentence for the reader"},
      "objective": 0.00123, "loss": "log least squares",
      "audit": {"verdict": "identified" | "weak" | "not identified",
                "reasons": ["one sentence each"],
                "gradient_norm": 1e-12, "starts_converged": 0.97, "condition": 31.0,
                "correlation": {"alpha,A": 0.99}, "at_bounds": ["E"], "optimum": {"E": 0.0, ...},
                "starts_unmoved": 0,          starts an optimiser would have returned as they were
                "sensitivity": {"0.001": 0.30, "0.01": 0.31, "inf": 0.31}},   exponent by Huber delta
      "holdout": null,                        or {"rule": "N>1e8", "n": 4, "error": rms log error, "bias": ..,
                                              "drift": [{"largest", "value", "low", "high"}, ..],
                                              "leave_one_size_out": {"exponent": [lo, hi], "error": ..}}
      "exponent": "alpha",                    the parameter that is the law's headline exponent
      "text": "0.31 [0.25, 0.37]",            the exponent as it may be printed; "not identified" where
                                              it is not: print this, never parameters[..] on its own
      "curve": {"x": [..], "value": [..], "lo": [..], "hi": [..]},   pointwise 95 % band of the curve over
                                              the fitted range; null for laws of more than one variable
      "differences": [                        study and compare only: this exponent minus another's
        {"kind": "ood-id" | "architecture",
         "to": {"architecture": "nequip", "treatment": "none", "split": "test"},
         "parameter": "alpha", "value": -0.04, "ci95": [-0.09, 0.01], "method": "paired t by run, 7 ...",
         "ci95_bootstrap": [-0.08, 0.0],      paired bootstrap over runs, compare only; null otherwise
         "verdict": "..", "text": "-0.04 [-0.09, 0.01]"}],
      "warnings": ["one sentence each"]
    }

A study that cannot fit a group (too few runs, one size) still writes its entry: verdict "not identified",
the reason in words, `parameters` empty, `curve` null. Where the verdict is "not identified", every
`value` and `ci95` in `parameters` is null; the optimum stays readable under `audit.optimum`. An interval
end that does not exist (the data do not bound the parameter on that side) is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scisci.contracts.errors import UserError
from scisci.contracts.files import write_text
from scisci.scaling.comparison import Difference
from scisci.scaling.fitted import Fit
from scisci.scaling.sanity import metric_warnings
from scisci.scaling.validation import sensitivity, sensitivity_warning

SCHEMA_VERSION = 1


def number(value: float) -> float | None:
    """A float for JSON: NaN and infinities, which mean that no such number exists, become null."""
    return float(value) if math.isfinite(value) else None


def interval_text(value: float, low: float, high: float) -> str:
    """ "0.31 [0.25, 0.37]" with the decimals the interval's width deserves."""
    half = (high - low) / 2
    decimals = 2 if not math.isfinite(half) or half <= 0 else min(max(math.ceil(-math.log10(half)) + 1, 2), 5)
    ends = [f"{end:.{decimals}f}" if math.isfinite(end) else "open" for end in (low, high)]
    return f"{value:.{decimals}f} [{ends[0]}, {ends[1]}]"


def exponent_text(fit: Fit) -> str:
    """The exponent as it may be printed: with its interval, marked where weak, or not at all."""
    if not fit.identified:
        return "not identified"
    name = fit.law.exponent
    text = interval_text(fit.parameters[name], *fit.intervals[name])
    return text if fit.audit.verdict == "identified" else f"{text} (weak)"


def fit_record(fit: Fit, group: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The JSON entry of one fit; `more` overrides or adds fields of the layout above."""
    shown = fit.identified
    by_delta = sensitivity(fit)
    record = _empty(fit.law.name, fit.law.formula, fit.law.exponent) | {
        "x": dict(zip(fit.law.variables, fit.points.columns, strict=False)),
        "metric": fit.points.metric,
        "unit": fit.points.unit,
        "group": dict(group),
        "n": len(fit.points),
        "clusters": len(fit.points.runs),
        "left_out": dict(fit.points.left_out),
        "parameters": {
            name: {
                "value": number(value) if shown else None,
                "ci95": [number(end) for end in fit.intervals[name]] if shown else None,
            }
            for name, value in fit.parameters.items()
        },
        "derived": {
            name: {"value": number(value), "ci95": [number(low), number(high)]} if shown else None
            for name, (value, low, high) in fit.derived.items()
        },
        "interval": None
        if fit.interval.method == "none"
        else {
            "method": fit.interval.method,
            "level": fit.interval.level,
            "dof": round(fit.interval.dof, 2),
            "words": fit.interval.words,
        },
        "objective": fit.objective,
        "loss": fit.loss,
        "audit": {
            "verdict": fit.audit.verdict,
            "reasons": list(fit.audit.reasons),
            "gradient_norm": number(fit.audit.gradient_norm),
            "starts_converged": fit.audit.starts_converged,
            "starts_unmoved": fit.audit.starts_unmoved,
            "condition": number(fit.audit.condition),
            "correlation": {pair: number(value) for pair, value in fit.audit.correlation.items()},
            "at_bounds": list(fit.audit.at_bounds),
            "optimum": {name: number(value) for name, value in fit.parameters.items()},
            "sensitivity": {delta: number(value) for delta, value in by_delta.items()},
        },
        "text": exponent_text(fit),
        "curve": fit.curve(),
        "warnings": [*metric_warnings(fit), *sensitivity_warning(fit, by_delta)],
    }
    return record | more


def refused_record(law: str, formula: str, exponent: str, reason: str, **more: Any) -> dict[str, Any]:
    """The JSON entry of a group that could not be fitted, with the reason."""
    record = _empty(law, formula, exponent)
    record["audit"] = {"verdict": "not identified", "reasons": [reason]}
    return record | more


def _empty(law: str, formula: str, exponent: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "law": law,
        "formula": formula,
        "axis": None,
        "x": {},
        "metric": "",
        "unit": "",
        "group": {},
        "fixed": {},
        "n": 0,
        "clusters": 0,
        "left_out": {},
        "points": None,
        "parameters": {},
        "derived": {},
        "interval": None,
        "objective": None,
        "loss": None,
        "audit": {},
        "holdout": None,
        "exponent": exponent,
        "text": "not identified",
        "curve": None,
        "differences": [],
        "warnings": [],
    }


def difference_record(
    result: Difference, kind: str, to: Mapping[str, Any], resampled: tuple[float, float] | None = None
) -> dict[str, Any]:
    """The JSON of one exponent difference; `resampled` is its paired bootstrap interval, beside the quoted one."""
    known = result.verdict != "not identified"
    return {
        "kind": kind,
        "to": dict(to),
        "parameter": result.parameter,
        "value": number(result.value),
        "ci95": [number(result.low), number(result.high)] if known else None,
        "ci95_bootstrap": [number(end) for end in resampled] if known and resampled else None,
        "method": result.method,
        "verdict": result.verdict,
        "text": interval_text(result.value, result.low, result.high) if known else "not identified",
    }


def write_records(path: Path | str, records: Sequence[Mapping[str, Any]]) -> None:
    """Write the list of fits as JSON, atomically; a NaN in it is a bug."""
    write_text(path, json.dumps(list(records), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_records(path: Path | str) -> list[dict[str, Any]]:
    """Read a list of fits; a file of another kind or a newer version is a `UserError`."""
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there are no fits at {path}; write them with 'scisci scale study'") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON; write it with 'scisci scale study'") from error
    if not isinstance(records, list) or any(not isinstance(r, dict) or "law" not in r for r in records):
        raise UserError(f"{path} is not a list of fits; write it with 'scisci scale study'")
    newer = [r for r in records if r.get("schema_version", 0) > SCHEMA_VERSION]
    if newer:
        raise UserError(f"{path} was written by a newer version of scisci; update this one")
    return records
