"""Boards made up for the tests of the site: what real ones have, what they lack, and a hostile submission."""

from __future__ import annotations

from typing import Any

import numpy as np

from scisci.contracts.metrics import metric
from scisci.leaderboard.board import Board, Entry, Estimate, Exponent, RunPoint, Score
from scisci.leaderboard.submission import Submission

HOSTILE = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(2)>&<!--"
SPLITS = ("test", "ood_600K", "ood_1200K")
HARDER = {"test": 1.0, "ood_600K": 1.4, "ood_1200K": 2.1}
FAMILIES = ("equivariant", "invariant", "unconstrained", "learned symmetry", "baseline")
SIZES, DATA, COMPUTE = (3_000, 30_000, 300_000), (256, 1024, 4096), 1e15
NAMES = ("NequIP", "MACE", "PaiNN", "SchNet", "EGNN", "Transformer", "GIN", "eSEN", "Ponita", "PointNet", "MPNN", "TCN")


def submission(name: str, family: str, words: str = "All of it was made up.", **more: Any) -> Submission:
    """A submission with six runs that ended well and one that did not."""
    ladder = [(size, DATA[-1], 0) for size in SIZES] + [(SIZES[-1], data, 1) for data in DATA]
    runs = [_run(f"run-{i}", *of, splits=dict.fromkeys(SPLITS, 200)) for i, of in enumerate(ladder)]
    runs[0]["reported"] = {"test": {"force_mae": 42.5}}
    runs.append(_run("lost", SIZES[-1], DATA[-1], 2) | {"status": "diverged", "reason": f"NaN in step 7; {words}"})
    return Submission.model_validate(
        {
            "name": name,
            "family": family,
            "symmetry": {"rotation": "exact" if family == "equivariant" else "none", "permutation": "exact"},
            "summary": words,
            "authors": [{"name": f"Ada {name[:40]}", "affiliation": words}, {"name": "Emmy"}],
            "date": "2026-11-22",
            "licence": "MIT",
            "links": {"code": "https://example.org/code?a=1&b='2'", "paper": "https://example.org/paper"},
            "training_data": {"description": words, "contamination": "none known", "statement": words},
            "tuning": {"trials": 12, "selected_on": "val, force_mae", "description": words},
            "hardware": {"description": words, "device_hours": 3.25, "cost_usd": 1.5},
            "runs": runs,
        }
        | more
    )


def _run(name: str, params: int, data: int, seed: int, **more: Any) -> dict[str, Any]:
    return {
        "run": name,
        "dataset": "3bpa",
        "fingerprint": "0" * 64,
        "size": f"{params // 1000}k",
        "params": params,
        "params_body": params - 100,
        "data": data,
        "samples_seen": 8000,
        "flops": 6.0 * params * 8000 * 20,
        "seed": seed,
        "lr": 0.01,
        "seconds": 60.0 + params / 500,
        "device": "cpu",
        "shared": (False, True, None)[seed],
        **more,
    }


def board(count: int = 24, seed: int = 0, hostile: bool = True, **more: Any) -> Board:
    """A board of `count` entries, best first; the last is hostile, others lack a split, samples or intervals."""
    rng = np.random.default_rng(seed)
    found = [_entry(i, rng) for i in range(count - hostile)]
    if hostile:
        found.append(_entry(count - 1, rng, HOSTILE[:80], "baseline", words=HOSTILE, flags=(HOSTILE,)))
    entries = _ranked(found)
    empty = Board(
        name="3bpa",
        dataset="3bpa",
        title="3BPA",
        domain="atoms",
        horizon=None,
        metric=metric("force_mae"),
        splits=SPLITS,
        reference=entries[2].slug,
        compute=COMPUTE,
        entries=tuple(entries),
        points=tuple(point for entry in entries for point in _points(entry, rng)),
    )
    return Board(**(vars(empty) | more))


def _entry(i: int, rng: np.random.Generator, name: str = "", family: str = "", words: str = "", **more: Any) -> Entry:
    family = family or FAMILIES[i % len(FAMILIES)]
    name = name or NAMES[i % len(NAMES)] + (f" {i // len(NAMES) + 1}" if i >= len(NAMES) else "")
    level, scores = 30 * float(np.exp(rng.normal(0, 0.4))), {}
    for split in SPLITS[: 2 if i % 11 == 5 else 3]:
        value = level * HARDER[split] * float(np.exp(rng.normal(0, 0.08)))
        half = None if i % 13 == 7 else value * float(rng.uniform(0.02, 0.12))
        error = Estimate(value) if half is None else Estimate(value, value - half, value + half)
        gap = None if split == "test" else Estimate(value / level, 0.9 * value / level, 1.1 * value / level)
        sealed = Estimate(1.02 * value, value, 1.04 * value) if i % 4 == 0 else None
        scores[split] = Score(split, error, value / 900, None, 100 if i % 9 == 4 else 200, gap, sealed)
    overall = Estimate(level / 500, level / 530, level / 470) if len(scores) == len(SPLITS) else None
    params = SIZES[i % 3]
    return Entry(
        slug=f"model-{i:04d}",
        submission=submission(name, family, words or "All of it was made up."),
        status=("self-reported", "recomputed", "recomputed", "reproduced")[i % 4],
        size=f"{params // 1000}k",
        data=DATA[-1],
        seeds=1 + i % 3,
        chosen_by="validation error",
        params=params,
        params_body=params - 100,
        flops=None if i % 10 == 9 else 6.0 * params * 8000 * 20 * float(np.exp(rng.normal(0, 0.3))),
        seconds=60.0 + params / 500,
        peak_memory=None if i % 5 == 4 else 400.0,
        device="cpu",
        shared=(False, True, None)[i % 3],
        scores=scores,
        overall=overall,
        rank=None,
        runs_ok=6,
        runs=7,
        symmetry={"symmetry_rotation_forces": 1e-6},
        exponents=tuple(_exponent(axis, split, i, rng) for axis in ("params", "data", "flops") for split in scores),
        **({"flags": ("predictions on test equal the labels",) if i % 8 == 3 else ()} | more),
    )


def _exponent(axis: Any, split: str, i: int, rng: np.random.Generator) -> Exponent:
    if i % 6 == 5:
        return Exponent(axis, split, None, "not identified", "three points in one decade do not tell a slope")
    value = 0.25 - 0.05 * (split != "test") + float(rng.normal(0, 0.02))
    forecast = Estimate(12.0, 9.0, 16.0) if axis == "flops" else None
    verdict = "weak" if i % 6 == 4 else "identified"
    against = ("slope", "offset", "none", "undecided")[i % 4]
    estimate = Estimate(value, value - 0.03, value + 0.03)
    more = {"held_out": 0.04, "forecast": forecast, "against_reference": against}
    return Exponent(axis, split, estimate, verdict, fixed="30k", **more)


def _ranked(entries: list[Entry]) -> list[Entry]:
    """Ranks by counting, one pair at a time."""
    ends = lambda e: (e.value if e.low is None else e.low, e.value if e.high is None else e.high)
    rank = lambda mine, all_of_them: 1 + sum(ends(other)[1] < ends(mine)[0] for other in all_of_them)
    complete = [e for e in entries if e.overall and all(s.samples == 200 for s in e.scores.values())]
    done = []
    for entry in entries:
        scores = {}
        for split, score in entry.scores.items():
            others = [e.scores[split].error for e in entries if split in e.scores and e.scores[split].samples == 200]
            full = score.samples == 200
            scores[split] = Score(**(vars(score) | {"rank": rank(score.error, others) if full else None}))
        own = rank(entry.overall, [e.overall for e in complete]) if entry in complete else None
        done.append(Entry(**(vars(entry) | {"scores": scores, "rank": own})))
    best_first = lambda e: (e.rank is None, e.overall.value if e.overall else float("inf"), e.slug)
    return sorted(done, key=best_first)


def _points(entry: Entry, rng: np.random.Generator) -> list[RunPoint]:
    points = []
    for run in entry.submission.runs:
        if run.status != "ok":
            continue
        gain = (run.params / SIZES[-1]) ** -0.2 * (run.data / DATA[-1]) ** -0.15
        for split, score in entry.scores.items():
            value = score.error.value * gain * float(np.exp(rng.normal(0, 0.05)))
            error = Estimate(value, 0.95 * value, 1.05 * value)
            of = (run.size, run.params, run.data, run.flops)
            points.append(RunPoint(entry.slug, f"{entry.slug}/{run.run}", split, *of, error))
    return points
