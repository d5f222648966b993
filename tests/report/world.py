"""A synthetic study with a known law: L(N, D) = E + A N^-alpha + B D^-beta per architecture and split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from scisci.contracts.metrics import SYMMETRY_GROUPS
from scisci.contracts.results import rows
from scisci.contracts.run import (
    EvaluationSpec,
    MetricValue,
    OptimizationSpec,
    RunResult,
    RunSpec,
    SplitResult,
)

# architecture: (E, A, alpha, B, beta) of the force error in meV/Å, and FLOPs per parameter and sample
LAWS = {
    "nequip": (6.0, 1500.0, 0.32, 900.0, 0.42, 60.0),
    "mpnn": (12.0, 1900.0, 0.27, 1500.0, 0.36, 12.0),
    "transformer": (15.0, 1600.0, 0.24, 1900.0, 0.31, 8.0),
}
PARAMS = {
    "nequip": (4_600, 31_000, 190_000, 1_050_000),
    "mpnn": (3_200, 24_000, 170_000, 1_200_000),
    "transformer": (3_900, 44_000, 260_000, 980_000),
}
SIZES = ("xs", "s", "m", "l")
DATA = (64, 512, 4_096, 16_384)
# split: (severity, factor on the whole error, factor on the exponents)
SPLITS = {
    "test": (300.0, 1.0, 1.0),
    "ood_600K": (600.0, 1.7, 0.92),
    "ood_1200K": (1200.0, 3.1, 0.8),
    "ood_molecule": (None, 2.6, 0.55),
    "ood_size": (None, 1.9, 0.7),
}
EXACT = {"nequip": {"rotation", "reflection", "translation", "permutation"}}


def true_error(architecture: str, params: float, data: float, split: str) -> float:
    """The law itself, without noise."""
    e, a, alpha, b, beta, _ = LAWS[architecture]
    _, level, slope = SPLITS[split]
    return level * (e + a * params ** (-alpha * slope) + b * data ** (-beta * slope))


def spec(architecture: str, size: int, data: int, seed: int, study: str = "demo") -> RunSpec:
    return RunSpec(
        study=study,
        dataset="xtb-molecules",
        fingerprint="f" * 64,
        architecture=architecture,
        size=SIZES[size],
        data=data,
        seed=seed,
        optimization=OptimizationSpec(steps=800, learning_rate=3e-3),
        evaluation=EvaluationSpec(splits=tuple(SPLITS)),
        code_version="0.1.0",
    )


def _symmetry(architecture: str, rng: np.random.Generator) -> dict[str, MetricValue]:
    values = {}
    for group in SYMMETRY_GROUPS:
        exact = group in ("translation", "permutation") or group in EXACT.get(architecture, ())
        for quantity in ("energy", "forces"):
            level = 4e-7 if exact else 0.03 if architecture == "mpnn" else 0.08
            value = float(level * rng.lognormal(0, 0.5))
            if group == "permutation" and architecture == "mpnn":
                value = 0.0
            values[f"symmetry_{group}_{quantity}"] = MetricValue(value=value, n=64)
    return values


def _finished(run: RunSpec, size: int, rng: np.random.Generator) -> RunResult:
    params = PARAMS[run.architecture][size]
    splits = {}
    for name, (severity, level, _) in SPLITS.items():
        force = true_error(run.architecture, params, run.data, name) * float(rng.lognormal(0, 0.02))
        metrics = {
            "force_mae": MetricValue(value=force, se=0.008 * force, se_groups=0.02 * force * level, n=2048),
            "energy_mae": MetricValue(value=force / 14, se=0.01 * force / 14, se_groups=0.03 * force / 14, n=2048),
            "force_cosine": MetricValue(value=1 - force / 3000, se=1e-3, n=2048),
        }
        splits[name] = SplitResult(severity=severity, metrics=metrics | _symmetry(run.architecture, rng))
    return RunResult(
        run=run.run,
        status="ok",
        domain="atoms",
        params=params,
        params_body=params - 500,
        flops_per_sample=LAWS[run.architecture][5] * params * 18,
        samples_seen=12_800,
        unique_samples=run.data,
        learning_rate=3e-3,
        seconds=12.0,
        peak_memory=420.0,
        device="cpu",
        splits=splits,
    )


def _ended(run: RunSpec, status: str, reason: str) -> RunResult:
    return RunResult.model_validate(
        {
            "run": run.run,
            "status": status,
            "reason": reason,
            "domain": "atoms",
            "device": "cpu",
            "seconds": 3.0,
        }
    )


def table_rows(seeds: int = 1) -> Iterator[dict[str, Any]]:
    """The rows of the whole study: two of its runs did not end well."""
    rng = np.random.default_rng(7)
    for architecture in LAWS:
        for size in range(4):
            for data in DATA:
                for seed in range(seeds):
                    run = spec(architecture, size, data, seed)
                    if (architecture, size, data) == ("transformer", 3, 64):
                        yield from rows(run, _ended(run, "diverged", "loss is NaN at step 212"))
                    elif (architecture, size, data) == ("nequip", 3, 512):
                        yield from rows(run, _ended(run, "failed", "killed by signal 9"))
                    else:
                        yield from rows(run, _finished(run, size, rng))
