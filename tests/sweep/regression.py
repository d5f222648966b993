"""A real training, small enough for tests: linear regression by gradient descent.

`overrides` ask for what can go wrong in a run; `SWEEP_JOURNAL` names a folder that gets a file per start and
end of a training, so that a test can count them.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from scisci.contracts.errors import UserError
from scisci.contracts.files import write_text
from scisci.contracts.run import MetricValue, RunResult, RunSpec, SplitResult


def execute(spec: RunSpec, folder: Path, accumulation: int = 1) -> RunResult:
    """Fit `size` coefficients to `data` samples; the learning rate decides whether it converges."""
    started = time.perf_counter()
    note(spec, "start")
    rng = np.random.default_rng(spec.seed)
    features = rng.normal(size=(spec.data, int(spec.size)))
    labels = features @ rng.normal(size=int(spec.size)) + 0.1 * rng.normal(size=spec.data)
    weights = np.zeros(int(spec.size))
    losses: list[float] = []
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(spec.optimization.steps):
            residual = features @ weights - labels
            losses.append(float(np.mean(residual**2)))
            weights -= spec.optimization.learning_rate * features.T @ residual / spec.data
            if step == spec.optimization.steps // 2:
                go_wrong(spec, accumulation)
    diverged = not np.isfinite(losses[-1])
    pq.write_table(pa.table({"step": range(len(losses)), "loss": losses}), folder / "curve.parquet")
    save_file({"weights": weights}, folder / "model.safetensors")
    write_text(folder / "model.json", spec.model_dump_json())
    error = MetricValue(value=losses[-1], se=0.0, n=spec.data)
    note(spec, "end")
    return RunResult(
        run=spec.run,
        status="diverged" if diverged else "ok",
        reason=f"the loss was not finite after {np.argmin(np.isfinite(losses))} steps" if diverged else None,
        domain="atoms",
        params=int(spec.size),
        samples_seen=spec.optimization.steps * spec.data,
        unique_samples=spec.data,
        learning_rate=spec.optimization.learning_rate,
        accumulation=accumulation,
        seconds=time.perf_counter() - started,
        device="cpu",
        splits={} if diverged else {name: SplitResult(metrics={"force_mae": error}) for name in spec.evaluation.splits},
    )


def go_wrong(spec: RunSpec, accumulation: int = 1) -> None:
    """Do what `overrides` say, in the middle of the training."""
    if "brake" in spec.overrides and Path(spec.overrides["brake"]).exists():
        time.sleep(0.4)
    while "gate" in spec.overrides and Path(spec.overrides["gate"]).exists():
        time.sleep(0.02)
    fault = spec.overrides.get("fault")
    if fault == "signal":
        os.kill(os.getpid(), getattr(signal, spec.overrides["signal"]))
        time.sleep(60)
    elif fault == "none but report":
        print(os.environ["OMP_NUM_THREADS"], os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    elif fault == "raise":
        print("about to fail")
        raise ValueError("the matrix is singular\nsecond line")
    elif fault == "user error":
        raise UserError("the data set is missing; fetch it")
    elif fault == "memory" or (fault == "memory of whole batches" and accumulation == 1):
        np.empty(2**60, dtype=np.uint8)
    elif fault == "disk":
        raise OSError(28, "No space left on device")
    elif fault == "until" and not Path(spec.overrides["path"]).exists():
        raise RuntimeError("not yet")


def nan_metric(spec: RunSpec, folder: Path) -> RunResult:
    """An `execute` whose result cannot be written as JSON."""
    result = execute(spec, folder)
    bad = {"test": SplitResult(metrics={"force_mae": MetricValue(value=float("nan"), n=1)})}
    return result.model_copy(update={"splits": bad})


def note(spec: RunSpec, event: str) -> None:
    journal = os.environ.get("SWEEP_JOURNAL")
    if journal:
        write_text(Path(journal) / f"{spec.run}.{event}.{uuid.uuid4().hex}", str(os.getpid()))
