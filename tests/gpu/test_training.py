"""Training on GPUs: every architecture in both precisions, and two processes against one. `make gpu-check` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from scisci.contracts.run import EvaluationSpec, OptimizationSpec, RunSpec
from scisci.data.library import open_dataset
from scisci.data.module import StoreDataModule
from scisci.models import registry
from scisci.tasks.curve import Curve
from scisci.tasks.domains import task_for
from scisci.tasks.run import TRAINER_DEFAULTS, execute, quiet
from scisci.tasks.version import code_version

GPUS = torch.cuda.device_count()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(GPUS < 1, reason="needs a CUDA device")]
STEPS, WARM = 60, 20
# Shipped data by domain; an architecture trains on that of its first.
DATASETS = {"atoms": "xtb-molecules", "cloud": "pm-halos", "series": "chaos"}


class Clock(Callback):
    """When each step was over, on the device."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def losses(dataset: str, architecture: str, accelerator: str, precision: str, steps: int) -> tuple[np.ndarray, Clock]:
    quiet()
    L.seed_everything(0, verbose=False)
    data, curve, clock = StoreDataModule(dataset, train_samples=64, val_samples=16), Curve(), Clock()
    sizes = list(registry.get(architecture).SIZES)
    # What architectures without vectors can predict, too.
    options = {"target": "parameters"} if data.store.domain == "cloud" else {}
    task = task_for(data.store.domain)(architecture, "30k" if "30k" in sizes else sizes[0], **options)
    task.prepare(data)
    settings: dict[str, Any] = {"accelerator": accelerator, "precision": precision, "max_steps": steps}
    trainer = L.Trainer(
        **TRAINER_DEFAULTS | settings,
        gradient_clip_val=10.0,
        limit_val_batches=0,
        callbacks=[curve, clock],
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(task, data)
    return np.array([float(row["train/loss"]) for row in curve.rows]), clock


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("architecture", registry.architectures())
def test_architecture_trains(architecture: str, precision: str) -> None:
    dataset = next(DATASETS[domain] for domain in registry.domains(registry.get(architecture)) if domain in DATASETS)
    expected, _ = losses(dataset, architecture, "cpu", "32-true", 1)
    torch.cuda.reset_peak_memory_stats()
    found, clock = losses(dataset, architecture, "cuda", precision, STEPS)
    memory, step = torch.cuda.max_memory_allocated() / 2**20, np.median(np.diff(clock.times[WARM:]))
    cost = f"{memory:8.1f} MiB {1000 * step:8.2f} ms per step of 16 samples of {dataset}"
    print(f"\n{architecture:14} {precision:10} {cost}")
    # The same weights and samples as on the CPU, before anything was learned.
    if (architecture, precision) != ("fernn", "bf16-mixed"):  # whose recurrence makes more of rounding at every time
        assert found[0] == pytest.approx(expected[0], rel=1e-3 if precision == "32-true" else 0.1)
    assert np.isfinite(found).all()
    assert found[-10:].mean() < found[:10].mean()


two_gpus = pytest.mark.skipif(GPUS < 2, reason="needs two CUDA devices")


@two_gpus
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_of_a_sweep_on_two_gpus_is_that_on_one(small_store: Path, tmp_path: Path, precision: str) -> None:
    curves, results = [], []
    spec = RunSpec(
        study="test",
        dataset=str(small_store),
        fingerprint=open_dataset(small_store).fingerprint,
        architecture="egnn",
        size="3k",
        data=64,
        optimization=OptimizationSpec(steps=10, learning_rate=0.005, validations=2, precision=precision),
        evaluation=EvaluationSpec(splits=("test",)),
        code_version=code_version(),
    )
    for gpus in (1, 2):
        folder = tmp_path / str(gpus)
        folder.mkdir()
        results.append(execute(spec, folder, gpus=gpus))
        curves.append(pd.read_parquet(folder / "curve.parquet"))
    pd.testing.assert_frame_equal(*curves, rtol=1e-3 if precision == "32-true" else 5e-2)
    assert results[1].device == f"2 x {results[0].device}"
    assert results[1].samples_seen == results[0].samples_seen == 160


@two_gpus
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_what_one_does(small_store: Path, tmp_path: Path, strategy: str) -> None:
    curves = []
    for devices, batch in ((1, 16), (2, 8)):
        runs = tmp_path / str(devices)
        options = [
            *("fit", f"--data.dataset={small_store}", f"--runs={runs}", f"--data.batch_size={batch}"),
            *(
                "--model.architecture=egnn",
                "--model.size=3k",
                "--trainer.max_steps=10",
                "--trainer.val_check_interval=5",
            ),
            *("--trainer.accelerator=cuda", f"--trainer.devices={devices}", "--trainer.enable_progress_bar=false"),
        ]
        if devices > 1:
            options.append(f"--trainer.strategy={strategy}")
        # Not among the ports that the system hands out, of which one may be taken while processes start.
        environment = os.environ | {"MASTER_PORT": str(10000 + os.getpid() % 20000)}
        command = [sys.executable, "-m", "scisci.cli", *options]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert found.returncode == 0, found.stderr
        (folder,) = runs.iterdir()
        curves.append(pd.read_parquet(folder / "curve.parquet"))
    pd.testing.assert_frame_equal(*curves, rtol=1e-3)
