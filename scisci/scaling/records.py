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
      "parameters": {"E": {"value": 31.2, "ci95": [null, 44.0]},
                     "alpha": {"value": 0.31, "ci95": [0.25, 0.37]}, ...},
      "derived": {NAME: {"value": .., "ci95": [lo, hi]}},
      "interval": {"method": "profile-t", "level": 0.95, "dof": 5, "words": "one sentence for the reader"},
      "objective": 0.00123, "loss": "log least squares",
      "audit": {"verdict": "identified" | "weak" | "not identified",
                "reasons": ["one sentence each"],
                "gradient_norm": 1e-12, "starts_converged": 0.97, "condition": 31.0,
                "correlation": {"alpha,A": 0.99}, "at_bounds": ["E"], "optimum": {"E": 0.0, ...}, ...},
      "holdout": null,
      "exponent": "alpha",                    the parameter that is the law's headline exponent
      "text": "0.31 [0.25, 0.37]",            the exponent as it may be printed; "not identified" where
                                              it is not: print this, never parameters[..] on its own
      "curve": {"x": [..], "value": [..], "lo": [..], "hi": [..]},   pointwise 95 % band of the curve over
                                              the fitted range; null for laws of more than one variable
      "differences": [                        study and compare only: this exponent minus another's
        {"kind": "ood-id" | "architecture",
         "to": {"architecture": "nequip", "treatment": "none", "split": "test"},
         "parameter": "alpha", "value": -0.04, "ci95": [-0.09, 0.01], "method": "paired t",
         "verdict": "..", "text": "-0.04 [-0.09, 0.01]"}],
      "warnings": ["one sentence each"]
    }

A study that cannot fit a group (too few runs, one size) still writes its entry: verdict "not identified",
the reason in words, `parameters` empty, `curve` null. Where the verdict is "not identified", every
`value` and `ci95` in `parameters` is null; the optimum stays readable under `audit.optimum`. An interval
end that does not exist (the data do not bound the parameter on that side) is null.
"""

from __future__ import annotations

SCHEMA_VERSION = 1
