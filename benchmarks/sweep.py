"""What a sweep costs beyond its trainings, and whether killed workers and drivers change its results.

Cost: 200 tiny runs by two workers, from the command to the table, against half the time that the same runs take one
after the other in one warm process, half of them before the sweep and half after it. Two cores without other work are
needed for that. Chaos: 60 runs during which workers and drivers are killed at random; the table must equal that of an
undisturbed sweep, row by row.

Run: python -m benchmarks.sweep [--runs 200] [--steps 40 100 200] [--chaos-runs 60] [--kills 12] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from scisci.contracts.run import RunSpec
from scisci.sweep.attempt import EXECUTE
from scisci.sweep.planning import make_plan
from scisci.sweep.records import Records
from scisci.sweep.study import load_study
from scisci.tasks.run import execute
from scisci.tasks.threads import use_threads
from tests.sweep.chaos import chaos, same_tables

WORKERS = 2


def main() -> None:
    """Print the ratio with its parts, then the outcome of the chaos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("runs", 200), ("chaos-runs", 60), ("kills", 12), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[40], help="of each run; costs are told for each number"
    )
    asked = parser.parse_args()
    use_threads(1)
    print(f"load of the machine at the start: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as scratch:
        for steps in asked.steps if asked.runs else ():
            cost(Path(scratch), asked.runs, steps)
        if asked.chaos_runs:
            disturbed(Path(scratch), asked.chaos_runs, asked.steps[0], asked.kills, random.Random(asked.seed))


def study_file(folder: Path, runs: int, steps: int) -> Path:
    """A study of one small model and that many seeds."""
    path = folder / f"tiny-{runs}.yaml"
    content = {
        "study": f"tiny-{runs}",
        "dataset": "xtb-molecules",
        "architectures": {"mpnn": {"sizes": ["3k"], "learning_rate": 0.02}},
        "data": [256],
        "seeds": list(range(runs)),
        "optimization": {"steps": steps, "validations": 1},
        "evaluation": {
            "splits": ["val", "test"],
            "max_samples": 64,
            "max_validation_samples": 64,
            "symmetry_samples": 0,
        },
    }
    path.write_text(yaml.safe_dump(content))
    return path


def bare_seconds(specs: list[RunSpec]) -> float:
    """Seconds of runs one after the other in this process, once it is warm."""
    _seconds(specs[0])
    return sum(map(_seconds, specs))


def _seconds(spec: RunSpec) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        execute(spec, Path(folder))
        return time.perf_counter() - started


def cost(scratch: Path, runs: int, steps: int) -> None:
    """Time a sweep, and its bare runs in part before and in part after it, as the machine's pace may drift."""
    study = study_file(scratch, runs, steps)
    specs = [spec for _, spec in make_plan(load_study(study)).specs()]
    before = bare_seconds(specs[::2])
    folder = scratch / f"cost-{steps}"
    command = [sys.executable, "-m", "scisci.cli", "sweep", "run", str(study), "--out", str(folder)]
    began, started = time.time(), time.perf_counter()
    subprocess.run([*command, "--workers", str(WORKERS)], check=True, stdout=subprocess.DEVNULL)
    total = time.perf_counter() - started
    after = bare_seconds(specs[1::2])
    bare = before + after
    records = Records(folder)
    results = {run: records.result(run) for run in records.recorded()}
    seconds = {run: result.seconds for run, result in results.items() if result and result.status == "ok"}
    assert len(seconds) == runs, "not every run ended well"
    stamps = {run: (records.stamp(run) or 0) / 1e9 for run in seconds}
    first = min(stamps[run] - seconds[run] for run in seconds) - began
    idle = total - first - sum(seconds.values()) / WORKERS
    print(f"{runs} runs of mpnn 3k, {steps} steps each, {WORKERS} workers of one thread")
    pace = f"{bare / runs:.3f} s a run, half of them before ({before:.1f} s) and half after ({after:.1f} s)"
    print(f"bare, one after the other            {bare:8.1f} s   {pace}")
    print(f"sweep, from the command to the table {total:8.1f} s   {total / (bare / WORKERS):.3f} of bare / {WORKERS}")
    print(f"  until the first run began          {first:8.1f} s")
    beside = sum(seconds.values())
    print(f"  in runs                            {beside / WORKERS:8.1f} s   {beside / bare:.3f} of bare, side by side")
    print(f"  between runs and after the last    {idle:8.1f} s")


def disturbed(scratch: Path, runs: int, steps: int, kills: int, rng: random.Random) -> None:
    """Compare a sweep whose processes are killed at random with one whose are not."""
    plan = make_plan(load_study(study_file(scratch, runs, steps)))
    folders = [scratch / name for name in ("disturbed", "undisturbed")]
    victims = rng.choices(("worker", "driver"), (2, 1), k=kills)
    started = time.perf_counter()
    chaos(plan, folders[0], victims, scratch / "log", rng, EXECUTE)
    seconds = time.perf_counter() - started
    chaos(plan, folders[1], [], scratch / "log", rng, EXECUTE)
    killed = ", ".join(f"{victims.count(name)} {name}s" for name in ("worker", "driver"))
    verdict = "equal" if same_tables(folders) else "NOT EQUAL"
    print(f"{runs} runs with {killed} killed, in {seconds:.0f} s: tables {verdict}")


if __name__ == "__main__":
    main()
