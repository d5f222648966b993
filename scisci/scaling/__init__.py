"""Scaling laws: fit, check, compare and forecast them from any table. Imports nothing but the contracts."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# loaded on first use, so that `scisci scale --help` stays fast
_PUBLIC = {
    "Law": "law",
    "Parameter": "law",
    "register": "law",
    "Points": "table",
    "points": "table",
    "read_table": "table",
    "Fit": "fitted",
    "fit": "fitting",
    "Bootstrap": "resampling",
    "bootstrap": "resampling",
    "paired_bootstrap": "resampling",
    "Difference": "comparison",
    "difference": "comparison",
    "shared_exponent": "comparison",
    "crossover": "crossing",
    "forecast": "forecasting",
    "frontier": "frontier",
    "holdout": "validation",
    "trend": "trends",
    "robustness": "robustness",
    "intrinsic_dimension": "dimension",
    "annealing_areas": "laws.curves",
    "stepwise": "critical_batch",
    "Query": "groups",
    "fit_groups": "groups",
    "compare_groups": "groups",
    "study": "studies",
    "study_records": "studies",
    "read_records": "records",
    "write_records": "records",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
