"""Time and memory of looking over sweeps of 10³ to 10⁵ recorded runs, every reading in a process of its own.

The records are synthetic, in the form of real ones: a spec, and a result with 6 splits of 19 metrics each, which are
those of `xtb-molecules` with symmetry errors in both precisions; every fiftieth run diverged. `plan` names all planned
runs, `survey` is what `sweep run` finds out before its first run, `status` and `collect` are the commands without their
output. The files lie in the system's cache; reading them from a disk comes on top.

Run: python -m benchmarks.records [--sizes 1000 10000 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.importing import resident
from scisci.contracts.run import MetricValue, RunResult, RunSpec, SplitResult
from scisci.sweep.collect import collect
from scisci.sweep.drive import survey
from scisci.sweep.plan import Plan
from scisci.sweep.records import Records
from scisci.sweep.standing import standing
from scisci.sweep.study import Study

ARCHITECTURES = ("mpnn", "painn", "egnn", "nequip", "transformer")
SIZES = ("3k", "10k", "30k", "100k", "300k")
DATA = (256, 512, 1024, 2048)
RUNS_PER_SEED = len(ARCHITECTURES) * len(SIZES) * len(DATA)
SPLITS = ("val", "test", "ood_600K", "ood_1200K", "ood_molecule", "ood_size")
METRICS = (
    "energy_mae",
    "force_mae",
    "force_cosine",
    *(
        f"symmetry_{group}_{output}{precision}"
        for precision in ("", "_float64")
        for group in ("rotation", "reflection", "translation", "permutation")
        for output in ("energy", "forces")
    ),
)
READINGS: dict[str, Callable[[Path], Any]] = {
    "plan": lambda folder: {spec.run for _, spec in Plan.read(folder).specs()},
    "survey": lambda folder: survey(Plan.read(folder), Records(folder)),
    "status": standing,
    "collect": collect,
}


def make_plan(runs: int) -> Plan:
    """A plan of about that many runs, as `sweep run` writes it."""
    study = {
        "study": f"synthetic-{runs}",
        "dataset": "xtb-molecules",
        "architectures": {name: {"sizes": SIZES, "learning_rate": 0.01} for name in ARCHITECTURES},
        "data": DATA,
        "seeds": list(range(runs // RUNS_PER_SEED)),
        "optimization": {"steps": 1000},
        "evaluation": {"splits": SPLITS, "max_samples": 256},
    }
    return Plan(study=Study.model_validate(study), domain="atoms", fingerprint="f" * 64, code_version="0" * 64)


def synthetic(spec: RunSpec, rng: np.random.Generator) -> RunResult:
    """What a real run of `spec` could have left."""
    diverged = bool(rng.random() < 0.02)
    values = rng.lognormal(size=(len(SPLITS), len(METRICS), 3)).tolist()
    splits = {
        split: SplitResult(
            severity=600.0 if split == "ood_600K" else None,
            metrics={
                name: MetricValue(value=value, se=se, se_groups=se_groups, n=256)
                for name, (value, se, se_groups) in zip(METRICS, of_split, strict=True)
            },
        )
        for split, of_split in zip(SPLITS, values, strict=True)
    }
    return RunResult(
        run=spec.run,
        status="diverged" if diverged else "ok",
        reason=f"the loss became nan at step {rng.integers(5)}" if diverged else None,
        domain="atoms",
        params=3217,
        params_body=3025,
        flops_per_sample=1.25e7,
        samples_seen=16_000,
        unique_samples=spec.data,
        epochs=16_000 / spec.data,
        learning_rate=spec.optimization.learning_rate,
        best_step=1000,
        seconds=float(rng.lognormal(3.0)),
        training_seconds=20.0,
        peak_memory=512.25,
        device="Intel(R) Xeon(R) Processor @ 2.10GHz",
        splits={} if diverged else splits,
        versions={"python": "3.11.7", "torch": "2.9.0", "lightning": "2.6.0", "torch_geometric": "2.7.0"},
    )


def record(folder: Path, runs: int) -> None:
    """A sweep's folder with every run recorded, each as `Records.commit` leaves it."""
    plan, records, rng = make_plan(runs), Records(folder), np.random.default_rng(0)
    plan.write(folder)
    records.prepare()
    for _, spec in plan.specs():
        result = synthetic(spec, rng)
        path = records.path(result.run)
        path.mkdir()
        for name, content in (("spec.json", spec), ("result.json", result)):
            (path / name).write_text(content.model_dump_json(indent=2) + "\n", encoding="utf-8")


def measure(reading: str, folder: str) -> None:
    """Do one reading in this process; print its seconds, those of work and the peak of memory in MiB as JSON."""
    started, worked = time.perf_counter(), time.process_time()
    READINGS[reading](Path(folder))
    seconds, work = time.perf_counter() - started, time.process_time() - worked
    print(json.dumps({"seconds": seconds, "work": work, "peak": resident("VmHWM")}))


def main() -> None:
    """Print a row per reading: what it took at each number of runs, and how work grows with that."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000], help="multiples of 100")
    sizes = parser.parse_args().sizes
    print(f"load of the machine at the start: {os.getloadavg()[0]:.1f}; in parentheses seconds of work on a CPU")
    found: dict[tuple[str, int], dict[str, float]] = {}
    for runs in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            record(Path(scratch), runs)
            for reading in READINGS:
                command = [sys.executable, "-m", "benchmarks.records", reading, scratch]
                text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[reading, runs] = json.loads(text)
    columns = "".join(f"{f'{runs:,d} runs':>28}" for runs in sizes)
    print(f"{'':8}{columns}   work grows as runs to the power")
    for reading in READINGS:
        several = [found[reading, runs] for runs in sizes]
        cells = "".join(f"{one['seconds']:9.2f} s ({one['work']:6.2f}) {one['peak']:4.0f} MiB" for one in several)
        pairs = zip(pairwise(several), pairwise(sizes), strict=True)
        powers = (log(b["work"] / a["work"]) / log(m / n) for (a, b), (n, m) in pairs)
        print(f"{reading:8}{cells}   {', '.join(f'{power:.2f}' for power in powers)}")


if __name__ == "__main__":
    measure(*sys.argv[1:]) if sys.argv[1:2] and sys.argv[1] in READINGS else main()
