"""Seconds of a training step, energy and autograd forces, side by side with the packages that defined the models.

Ethanol in batches of 16 on one thread, in float32. Every side is a process of its own, in its own environment
(`make bench-peers` builds those of the peers), and all are asked in turn for a few steps, so that other work on the
machine meets all alike. A side's time is the median over rounds; a ratio is the median of the rounds' ratios, with the
95 % interval of that median over resampled rounds. Times are of the processor, which is the clock's on an idle machine.

Ours has the peer's l_max and layers, and the number of channels that brings its parameters closest to the peer's.

Run: python -m benchmarks models, or python -m benchmarks.models [--only nequip] [--rounds 30] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scisci.models import registry

BATCH, STEPS = 16, 5
GROWTH_BATCHES, GROWTH_SIZES = (4, 16, 64), ("10k", "30k", "100k")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"), "1")
PYTHON = {"nequip": ".venv-peers/bin/python", "mace": ".venv-peers-mace/bin/python", "ours": sys.executable}


class Comparison(NamedTuple):
    """A peer's model with its known number of parameters, and ours that is matched to it."""

    peer: str
    parameters: int
    theirs: dict[str, Any]
    ours: dict[str, Any]
    compiles: bool


def _nequip(l_max: int, features: int, radial: int, parameters: int) -> Comparison:
    theirs = {"l_max": l_max, "num_layers": 3, "num_features": features, "radial_mlp_width": 64, "parity": False}
    ours = {"l_max": l_max, "layers": 3, "radial_hidden": radial, "self_connection": "bilinear"}
    return Comparison("nequip", parameters, theirs, ours, compiles=True)


def _mace(max_ell: int, l_max: int, hidden: str, radial: int, parameters: int) -> Comparison:
    theirs = {"max_ell": max_ell, "num_interactions": 2, "correlation": 3, "hidden_irreps": hidden}
    return Comparison(
        "mace",
        parameters,
        theirs,
        {"layers": 2, "l_max": l_max, "l_max_edge": max_ell, "radial_hidden": radial},
        compiles=False,
    )


COMPARISONS = (
    _nequip(1, 32, 64, 165_504),
    _nequip(2, 16, 64, 51_776),
    _nequip(2, 32, 84, 265_856),
    _mace(2, 1, "16x0e+16x1o", 68, 36_304),
    _mace(3, 2, "16x0e+16x1o+16x2e", 72, 57_184),
)


class Worker:
    """A process that makes training steps on request; see `_worker.py`."""

    def __init__(self, label: str, kind: str, settings: dict[str, Any]) -> None:
        self.label = label
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [PYTHON[kind], "-m", f"benchmarks._worker_{kind}", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | ONE_THREAD,
            cwd=Path(__file__).parent.parent,
        )
        start = time.perf_counter()
        self.about = self._answer()
        print(f"  {label}: ready after {time.perf_counter() - start:.0f} s", flush=True)

    def times(self, batch: int, steps: int = STEPS) -> dict[str, float]:
        """Median seconds of a few steps: of the processor (`cpu`) and of the clock (`wall`)."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"batch": batch, "steps": steps}) + "\n")
        self._process.stdin.flush()
        return {clock: float(np.median(seconds)) for clock, seconds in self._answer().items()}

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            sys.exit(f"{self.label} failed:\n{self._errors.read()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._errors.close()


def available(kind: str, compiled: bool, architecture: str) -> str | None:
    """Why a side cannot run here, or `None` if it can."""
    if kind != "ours":
        return None if Path(PYTHON[kind]).exists() else f"{PYTHON[kind]} is missing; `make bench-peers` builds it"
    if architecture not in registry.architectures("atoms"):
        return f"there is no architecture {architecture}"
    if compiled and find_spec("scisci.models.compiled") is None:
        return "compilation is not available"
    return None


def sides(comparison: Comparison) -> list[Worker]:
    """Started workers for both sides, eager and compiled, as far as they are available."""
    workers = []
    for kind in (comparison.peer, "ours"):
        for compiled in (False, True) if comparison.compiles or kind == "ours" else (False,):
            label = f"{kind if kind != 'ours' else 'scisci'} {'compiled' if compiled else 'eager'}"
            if reason := available(kind, compiled, comparison.peer):
                print(f"{label}: skipped, {reason}", flush=True)
                continue
            settings: dict[str, Any] = {"batches": [BATCH], "compiled": compiled}
            if kind == "ours":
                matching = {"architecture": comparison.peer, "parameters": comparison.parameters}
                settings |= matching | {"options": comparison.ours}
            else:
                settings["options"] = comparison.theirs
            workers.append(Worker(label, kind, settings))
    return workers


def interleaved(workers: Sequence[Worker], batches: Sequence[int], rounds: int) -> dict[str, np.ndarray]:
    """Seconds [worker, batch, round] per step by both clocks; the order changes from round to round."""
    rng = np.random.default_rng(0)
    seconds = {clock: np.empty((len(workers), len(batches), rounds)) for clock in ("cpu", "wall")}
    pairs = [(w, b) for w in range(len(workers)) for b in range(len(batches))]
    for r in range(rounds):
        for w, b in rng.permutation(pairs):
            for clock, value in workers[w].times(batches[b]).items():
                seconds[clock][w, b, r] = value
    return seconds


def ratio(slow: np.ndarray, fast: np.ndarray) -> tuple[float, float, float]:
    """Median of the rounds' ratios and its 95 % bootstrap interval."""
    ratios = slow / fast
    resampled = np.random.default_rng(0).choice(ratios, (4000, len(ratios)))
    low, high = np.quantile(np.median(resampled, axis=1), (0.025, 0.975))
    return float(np.median(ratios)), float(low), float(high)


def compare(comparison: Comparison, rounds: int) -> dict[str, Any] | None:
    """Time both sides, print the table and return it."""
    what = ", ".join(f"{key} {value}" for key, value in comparison.theirs.items())
    print(f"\n{comparison.peer}: {what}", flush=True)
    with contextlib.ExitStack() as stack:
        workers = sides(comparison)
        for worker in workers:
            stack.callback(worker.close)
        seconds = {clock: s[:, 0] for clock, s in interleaved(workers, [BATCH], rounds).items()}
    ours = [w for w, worker in enumerate(workers) if worker.label.startswith("scisci")]
    header = "".join(f"{f'against {workers[o].label}':>32}" for o in ours)
    print(f"{'':18}{'parameters':>12}{'cpu ms':>8}{'wall ms':>9}{header}")
    rows = []
    for w, worker in enumerate(workers):
        milliseconds = {clock: 1e3 * float(np.median(s[w])) for clock, s in seconds.items()}
        ratios = {workers[o].label: ratio(seconds["cpu"][w], seconds["cpu"][o]) for o in ours if o != w}
        cells = [f"{r:.2f} ({low:.2f} to {high:.2f})" for r, low, high in ratios.values()]
        cells.insert(ours.index(w), "1") if w in ours else None
        figures = f"{worker.about['parameters']:12,d}{milliseconds['cpu']:8.1f}{milliseconds['wall']:9.1f}"
        print(f"{worker.label:18}{figures}{''.join(f'{cell:>32}' for cell in cells)}", flush=True)
        rows.append({"side": worker.label, **worker.about, "milliseconds": milliseconds, "times slower than": ratios})
    for o in ours:
        if abs(workers[o].about["parameters"] / comparison.parameters - 1) > 0.1:
            print(f"{workers[o].label}: parameters differ by more than 10 %")
    return {"peer": comparison.peer, "options": comparison.theirs, "sides": rows}


def growth(rounds: int) -> list[dict[str, Any]]:
    """Print and return our step's time over batch sizes and model sizes, with the growth from the smallest batch."""
    print("\ngrowth of the nequip class (l_max 1), eager: cpu ms per step")
    with contextlib.ExitStack() as stack:
        workers = []
        for size in GROWTH_SIZES:
            settings = {"batches": GROWTH_BATCHES, "compiled": False, "architecture": "nequip"}
            workers.append(Worker(f"nequip {size}", "ours", settings | {"size": size, "options": {}}))
            stack.callback(workers[-1].close)
        milliseconds = 1e3 * np.median(interleaved(workers, GROWTH_BATCHES, rounds)["cpu"], axis=-1)
    header = "".join(f"{'batch ' + str(b):>10}" for b in GROWTH_BATCHES)
    print(f"{'':18}{'parameters':>12}{header}{'power of batch':>16}")
    rows = []
    for worker, row in zip(workers, milliseconds, strict=True):
        power = float(np.polyfit(np.log(GROWTH_BATCHES), np.log(row), 1)[0])
        cells = "".join(f"{value:10.1f}" for value in row)
        print(f"{worker.label:18}{worker.about['parameters']:12,d}{cells}{power:16.2f}")
        rows.append({"size": worker.label, **worker.about, "milliseconds": row.tolist(), "power of batch": power})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["nequip", "mace", "growth"], help="one part")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", help="write the figures here")
    options = parser.parse_args()
    figures: dict[str, Any] = {"batch": BATCH, "rounds": options.rounds, "steps per round": STEPS, "comparisons": []}
    for comparison in COMPARISONS:
        if options.only in (None, comparison.peer):
            figures["comparisons"].append(compare(comparison, options.rounds))
    if options.only in (None, "growth"):
        figures["growth"] = growth(options.rounds)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
