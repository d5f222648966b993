"""Memory and speed of `scisci data import` from 10⁴ to 10⁶ frames: every size in a process of its own.

Growth is the peak of the resident memory over the import less what the process held once it had loaded its modules;
its slope is what a frame costs. Frames are molecules of three atoms with energy and forces, in few groups.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZES = (10_000, 100_000, 1_000_000)
DISTINCT = 1000


def write_extxyz(path: Path, frames: int) -> None:
    """Water in `DISTINCT` random shapes, over and over."""
    rng, made = np.random.default_rng(0), []
    for _ in range(DISTINCT):
        rows = rng.normal(scale=3.0, size=(3, 6))
        lines = [f"{s} " + " ".join(f"{x:.6f}" for x in row) for s, row in zip("OHH", rows, strict=True)]
        made.append(f'3\nProperties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy={rng.normal():.6f} pbc="F F F"\n')
        made.append("\n".join(lines) + "\n")
    block = "".join(made)
    with path.open("w") as file:
        for _ in range(frames // DISTINCT):
            file.write(block)


def write_rmd17(path: Path, frames: int) -> None:
    """Arrays in the layout of revised MD17."""
    rng = np.random.default_rng(0)
    np.savez(
        path,
        nuclear_charges=np.array([8, 1, 1]),
        coords=rng.normal(scale=3.0, size=(frames, 3, 3)),
        energies=rng.normal(size=frames),
        forces=rng.normal(size=(frames, 3, 3)),
    )


WRITERS = {"extxyz": ("frames.xyz", write_extxyz), "rmd17": ("frames.npz", write_rmd17)}


def resident(what: str) -> float:
    """MiB of memory that this process holds: `VmRSS` now, `VmHWM` at its peak.

    `getrusage` would not do: its peak is never below that of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) / 2**10


def measure(kind: str, path: str, out: str) -> None:
    """Import one file in this process; print what it took as JSON."""
    import rich.progress  # noqa: F401

    import scisci.sources.packing  # noqa: F401
    from scisci.cli_data import main as data
    from scisci.sources.registry import source

    source(kind).reader()
    before, start = resident("VmRSS"), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        data(["import", path, "--format", kind, "--out", out])
    seconds = time.perf_counter() - start
    print(json.dumps({"before": before, "growth": resident("VmHWM") - before, "seconds": seconds}))


def main() -> None:
    """Print one row per format and number of frames."""
    print(f"{'format':8} {'frames':>9} {'at start':>9} {'growth':>8} {'frames/s':>9}   (memory in MiB)")
    for kind, (name, write) in WRITERS.items():
        for frames in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / name
                write(path, frames)
                command = [sys.executable, "-m", "benchmarks.importing", kind, str(path), f"{folder}/store.h5"]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(
                f"{kind:8} {frames:9,d} {found['before']:9.1f} {found['growth']:8.1f}"
                f" {frames / found['seconds']:9,.0f}",
                flush=True,
            )


if __name__ == "__main__":
    measure(*sys.argv[1:]) if len(sys.argv) > 1 else main()
