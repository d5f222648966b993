"""Synthetic scores of a leaderboard: as many submissions as wanted, with the shape of real ones and known laws.

Every submission has 8 runs on each of two data sets (four sizes, four amounts of data, two seeds of the largest) and
errors that follow power laws with noise. The laws are fitted once for each of a few prototypes; a submission is one
of them times a factor of its own, which moves its lines and leaves its exponents. Some submissions lack what real ones
lack: a run diverged, a split was left out, fewer samples were predicted, overlap with the test data is possible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scisci.contracts.results import RESULTS_SCHEMA
from scisci.leaderboard.analysis import analyse
from scisci.leaderboard.scores import Scored
from scisci.leaderboard.submission import Submission


@dataclass(frozen=True)
class World:
    """One data set: its splits with the factor by which errors grow on them, and metrics with their scale."""

    dataset: str
    domain: str
    splits: Mapping[str, float]
    errors: Mapping[str, float]
    """metric → error of a trivial predictor in distribution"""
    shares: tuple[str, ...] = ()
    """metrics that are better when higher"""


WORLDS = (
    World(
        "xtb-molecules",
        "atoms",
        {"val": 1.0, "test": 1.0, "ood_600K": 1.3, "ood_1200K": 1.9, "ood_molecule": 2.6, "ood_size": 2.2},
        {"force_mae": 900.0, "energy_mae": 60.0, "stress_mae": 20.0},
        ("force_cosine",),
    ),
    World(
        "science-series",
        "series",
        {"val": 1.0, "test": 1.1, "ood_station": 1.2, "ood_source": 1.7, "ood_frequency": 1.4},
        {
            "series_wql": 0.3,
            "series_mase": 1.6,
            "series_smape": 0.4,
            "series_mse": 0.9,
            "series_wql_relative": 1.0,
            "series_mase_relative": 1.0,
            "series_nll": 1.3,
        },
    ),
)
# name, family, what it claims of rotations, exponent along parameters; data and noise vary by prototype
PROTOTYPES = (
    ("NequIP", "equivariant", "exact", 0.26),
    ("MACE", "equivariant", "exact", 0.24),
    ("PaiNN", "equivariant", "exact", 0.20),
    ("SchNet", "invariant", "exact", 0.14),
    ("Transformer", "unconstrained", "none", 0.12),
    ("Patch encoder", "learned symmetry", "learned", 0.16),
)
VARIANTS = ("", "wide", "deep", "augmented", "short cutoff", "long cutoff", "EMA", "float64", "distilled", "tuned")
SEVERITIES = {"val": 300.0, "test": 300.0, "ood_600K": 600.0, "ood_1200K": 1200.0}
SIZES, DATA, SAMPLES, SEALED = (3_000, 10_000, 30_000, 100_000), (64, 256, 1024, 4096), 512, 256
RUNS = (*((n, 4096, 0) for n in SIZES), *((100_000, d, 0) for d in DATA[:3]), (100_000, 4096, 1))


def synthetic(count: int, seed: int = 0) -> Iterator[Scored]:
    """`count` submissions, the same ones for the same seed; every tenth has a sealed table too."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        yield _scored(i, i % len(PROTOTYPES), float(np.exp(0.3 * rng.normal())), float(np.exp(0.02 * rng.normal())))


def _name(i: int) -> str:
    base, variant = PROTOTYPES[i % len(PROTOTYPES)][0], VARIANTS[i // len(PROTOTYPES) % len(VARIANTS)]
    series = i // (len(PROTOTYPES) * len(VARIANTS))
    return " ".join(word for word in (base, variant, f"v{series + 1}" if series else "") if word)


def _scored(i: int, prototype: int, factor: float, overfit: float) -> Scored:
    slug = _name(i).lower().replace(" ", "-")
    lost = "diverged" if i % 17 == 5 else ""
    left_out = "ood_size" if i % 31 == 7 else ""
    samples = SAMPLES // 2 if i % 23 == 11 else SAMPLES
    table = _own(_table(prototype), slug, factor, lost, left_out, samples)
    sealed = None
    if i % 10 == 0:
        sealed = _own(_table(prototype), slug, factor * overfit, lost, left_out, SEALED)
        sealed = sealed.filter(pc.not_equal(sealed["split"], "val"))
    contamination = "possible" if i % 29 == 3 else "none known"
    return Scored(
        slug=slug,
        submission=_submission(i, prototype, lost, left_out, samples, contamination),
        table=table,
        digest=hashlib.sha256(slug.encode()).hexdigest(),
        scoring_version=1,
        flags=("its authors call overlap with test data possible",) if contamination == "possible" else (),
        analysis=tuple(_moved(record, factor, left_out) for record in _analysis(prototype)),
        trivial=_trivial(samples),
        sealed_table=sealed,
    )


@cache
def _table(prototype: int) -> pa.Table:
    rng = np.random.default_rng([7, prototype])
    by_params, by_data = PROTOTYPES[prototype][3], 0.15 + 0.02 * prototype
    rows: list[dict[str, Any]] = []
    for world in WORLDS:
        for k, (params, data, seed) in enumerate(RUNS):
            gain = (params / SIZES[0]) ** -by_params * (data / DATA[0]) ** -by_data * np.exp(0.03 * rng.normal())
            run = {
                "run": f"{world.dataset}-{k}",
                "study": "leaderboard",
                "domain": world.domain,
                "dataset": world.dataset,
                "treatment": "none",
                "size": f"{params // 1000}k",
                "params": params,
                "params_body": params - 500,
                "data": data,
                "samples_seen": 8000,
                "flops": 6.0 * params * 8000 * 20,
                "seed": seed,
                "lr": 0.01,
                "status": "ok",
                "seconds": 60.0 + params / 500,
                "peak_memory": 400.0,
                "device": "cpu",
                "n": SAMPLES,
            }
            for split, harder in world.splits.items():
                shifted = gain ** (1.0 if harder <= 1.1 else 0.8) * harder * np.exp(0.02 * rng.normal())
                errors = {metric: 0.5 * scale * shifted for metric, scale in world.errors.items()}
                for metric, value in (errors | dict.fromkeys(world.shares, 1 - 0.3 * shifted)).items():
                    of_split = {"split": split, "severity": SEVERITIES.get(split), "metric": metric, "value": value}
                    rows.append(run | of_split | {"se": 0.01 * abs(value), "se_groups": 0.03 * abs(value)})
    return pa.Table.from_pylist(rows, RESULTS_SCHEMA)


@cache
def _analysis(prototype: int) -> list[dict[str, Any]]:
    return analyse(_table(prototype))


def _moved(record: Mapping[str, Any], factor: float, left_out: str) -> dict[str, Any]:
    """A prototype's record for errors `factor` times as large."""
    if record["split"] == left_out:
        gone = {"verdict": "not identified", "reason": "there are no predictions for this split"}
        return {**record, **gone, "exponent": None, "held_out": None, "line": None}
    line = record["line"] and {**record["line"], "mean_log_y": record["line"]["mean_log_y"] + float(np.log(factor))}
    return {**record, "line": line}


def _own(table: pa.Table, slug: str, factor: float, lost: str, left_out: str, samples: int) -> pa.Table:
    """A prototype's table as that of a submission."""
    if left_out:
        table = table.filter(pc.not_equal(table["split"], left_out))
    errors = pc.not_equal(table["metric"], "force_cosine")
    columns = {name: table[name] for name in table.column_names}
    for name in ("value", "se", "se_groups"):
        columns[name] = pc.if_else(errors, pc.multiply(table[name], factor), table[name])
    for name in ("se", "se_groups"):
        columns[name] = pc.multiply(columns[name], (SAMPLES / samples) ** 0.5)
    columns["n"] = pa.array(np.full(len(table), samples))
    columns["architecture"] = pa.array([slug]).take(pa.array(np.zeros(len(table), int)))
    columns["run"] = pc.binary_join_element_wise(slug, table["run"], "/")
    whole = pa.table(columns, RESULTS_SCHEMA)
    if not lost:
        return whole
    last = f"{slug}/{WORLDS[0].dataset}-{len(RUNS) - 1}"
    gone = whole.filter(pc.equal(whole["run"], last)).slice(0, 1).to_pylist()[0]
    nothing = dict.fromkeys(("split", "metric", "value", "se", "se_groups", "n"))
    end = pa.Table.from_pylist([gone | nothing | {"status": lost, "reason": "the loss is NaN"}], RESULTS_SCHEMA)
    return pa.concat_tables([whole.filter(pc.not_equal(whole["run"], last)), end])


def _trivial(samples: int) -> dict[tuple[str, str, int], dict[str, float]]:
    return {
        (world.dataset, split, samples): {metric: scale * harder for metric, scale in world.errors.items()}
        for world in WORLDS
        for split, harder in world.splits.items()
    }


def _submission(i: int, prototype: int, lost: str, left_out: str, samples: int, contamination: str) -> Submission:
    _, family, claim, _ = PROTOTYPES[prototype]
    runs = []
    for world in WORLDS:
        splits = {split: samples for split in world.splits if split != left_out}
        for k, (params, data, seed) in enumerate(RUNS):
            ended = not (lost and world is WORLDS[0] and k == len(RUNS) - 1)
            error = {"symmetry_rotation_forces": 1e-6 if claim == "exact" else 0.05}
            outcome = {"splits": splits, "reported": {"test": error} if world.domain == "atoms" else {}}
            runs.append(
                {
                    "run": f"{world.dataset}-{k}",
                    "dataset": world.dataset,
                    "fingerprint": hashlib.sha256(world.dataset.encode()).hexdigest(),
                    "size": f"{params // 1000}k",
                    "params": params,
                    "params_body": params - 500,
                    "data": data,
                    "samples_seen": 8000,
                    "flops": 6.0 * params * 8000 * 20,
                    "seed": seed,
                    "lr": 0.01,
                    "seconds": 60.0 + params / 500,
                    "peak_memory": 400.0,
                    "device": "cpu",
                    **(outcome if ended else {"status": lost, "reason": "the loss is NaN"}),
                }
            )
    return Submission.model_validate(
        {
            "name": _name(i),
            "family": family,
            "symmetry": {"rotation": claim, "translation": "exact", "permutation": "exact"},
            "summary": f"{_name(i)}, made up to measure how pages grow with the number of submissions.",
            "authors": [{"name": f"Author {i % 97}", "affiliation": f"Laboratory {i % 13}"}],
            "date": f"2026-{i % 12 + 1:02d}-{i % 28 + 1:02d}",
            "licence": "MIT",
            "links": {"code": f"https://example.org/{i}"},
            "training_data": {
                "description": "the training splits alone",
                "contamination": contamination,
                "statement": "no other data were used",
            },
            "tuning": {"trials": i % 40, "selected_on": "val, force_mae"},
            "hardware": {"description": "one CPU core", "device_hours": 0.5 + i % 7},
            "runs": runs,
        }
    )
