"""Fits of the synthetic study in the layout of `scisci.scaling.records`, with the truth as their curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from . import world

REASON = "the interval of alpha reaches zero: the points do not show that the error falls at all."


def verdict_of(architecture: str, split: str, axis: str) -> str:
    if (architecture, split, axis) == ("transformer", "ood_molecule", "params"):
        return "not identified"
    return "weak" if split == "ood_size" else "identified"


def entry(frame: pd.DataFrame, architecture: str, split: str, axis: str) -> dict[str, Any]:
    """A fit of one architecture on one split along `axis`, the other scale held at its largest value."""
    held = {"params": "data", "data": "size"}.get(axis)
    rows = frame[(frame.architecture == architecture) & (frame.split == split) & (frame.metric == "force_mae")]
    fixed: dict[str, Any] = {"frontier": "test"}
    if held:
        value = 16_384 if held == "data" else "m"
        fixed, rows = {held: value}, rows[rows[held] == value]
    rows = rows.sort_values(axis)
    slope, intercept = np.polyfit(np.log(rows[axis]), np.log(rows.value), 1)
    x = np.geomspace(rows[axis].min(), rows[axis].max(), 25)
    y = np.exp(intercept + slope * np.log(x))
    verdict = verdict_of(architecture, split, axis)
    known = verdict != "not identified"
    interval = [-slope - 0.03, -slope + 0.04]
    text = f"{-slope:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]" if known else "not identified"
    return {
        "schema_version": 1,
        "law": "power",
        "formula": "L = A N^{-\\alpha}",
        "axis": axis,
        "x": {"N": axis},
        "metric": "force_mae",
        "unit": "meV/Å",
        "group": {"architecture": architecture, "treatment": "none", "split": split},
        "fixed": fixed,
        "n": len(rows),
        "clusters": len(rows),
        "left_out": {"diverged": 1} if architecture == "transformer" else {},
        "points": {
            "x": rows[axis].tolist(),
            "y": rows.value.tolist(),
            "se": rows.se.tolist(),
            "run": rows.run.tolist(),
        },
        "parameters": {
            "A": {"value": float(np.exp(intercept)) if known else None, "ci95": [None, None]},
            "alpha": {"value": float(-slope) if known else None, "ci95": interval if known else [None, None]},
        },
        "derived": {},
        "interval": {
            "method": "profile-t",
            "level": 0.95,
            "dof": len(rows) - 2,
            "words": "Profile intervals.",
        },
        "objective": 0.001,
        "loss": "log least squares",
        "audit": {
            "verdict": verdict,
            "reasons": [] if verdict == "identified" else [REASON],
            "optimum": {"alpha": 0.123456},
        },
        "holdout": None,
        "exponent": "alpha",
        "text": text,
        "curve": {
            "x": x.tolist(),
            "value": y.tolist(),
            "lo": (y * 0.93).tolist(),
            "hi": (y * 1.07).tolist(),
        },
        "differences": differences(architecture, split) if known and axis != "flops" else [],
        "warnings": [],
    }


STEEPNESS = {"mpnn": 0.0, "nequip": 0.06, "transformer": -0.02}


def differences(architecture: str, split: str) -> list[dict[str, Any]]:
    """To the same architecture in distribution, and to every other architecture, in both directions."""
    group = {"architecture": architecture, "treatment": "none", "split": "test"}
    found = [] if split == "test" else [difference("ood-id", group, -0.08, "paired t by run, 6 dof")]
    for other in world.LAWS:
        if other != architecture:
            value = STEEPNESS[architecture] - STEEPNESS[other]
            to = group | {"architecture": other, "split": split}
            found.append(difference("architecture", to, value, "Welch t, 4.2 degrees of freedom"))
    return found


def difference(kind: str, to: dict[str, str], value: float, method: str) -> dict[str, Any]:
    low, high = value - 0.04, value + 0.04
    return {
        "kind": kind,
        "to": to,
        "parameter": "alpha",
        "value": value,
        "ci95": [low, high],
        "method": method,
        "verdict": "steeper" if low > 0 else "shallower" if high < 0 else "no difference detected",
        "text": f"{value:.2f} [{low:.2f}, {high:.2f}]",
    }


def entries(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        entry(frame, architecture, split, axis)
        for axis in ("params", "data", "flops")
        for architecture in world.LAWS
        for split in world.SPLITS
    ]
