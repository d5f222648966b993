"""One run of a baseline from its spec to its result: fitted on the training samples, measured as networks are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scisci.contracts.errors import UserError
from scisci.contracts.run import MetricValue, RunResult, RunSpec, SplitResult
from scisci.data.module import StoreDataModule
from scisci.models.flops import flop_counter
from scisci.tasks.accounting import (
    FLOP_SAMPLES,
    device_name,
    hardware,
    library_versions,
    peak_memory,
    reset_peak_memory,
)
from scisci.tasks.base import Task
from scisci.tasks.baselines.linear import Baseline
from scisci.tasks.baselines.registry import build
from scisci.tasks.baselines.stored import save
from scisci.tasks.domains import task_for
from scisci.tasks.energy import metered
from scisci.tasks.heaviest import check_heaviest
from scisci.tasks.metrics import Accumulator
from scisci.tasks.predictions import recording
from scisci.tasks.sharing import Sharing

BATCH = 8
# Targets whose labels the store calls otherwise.
FIELDS = {"infilling": "label", "forecast": "values"}
CPU = torch.device("cpu")


def execute(spec: RunSpec, folder: Path, data: StoreDataModule) -> RunResult:
    """Fit and measure the baseline that `spec` asks for; leave its coefficients and choices in `folder`.

    A fit in closed form does not depend on the seed. FLOPs are those of the fit, on the first 64 training samples as
    for networks: matrix products, two per multiply-add, and sums over pairs as the matrix products that they are.
    Solving for the coefficients is left out.
    """
    domain = data.store.domain
    task, baseline = unfitted(spec, data)
    train, val = data.train_indices(), data.store.split("val").indices(data.val_samples)
    if absent := {FIELDS.get(name, name) for name in task.compared} - set(data.store.fields):
        raise UserError(f"{data.store.path} has no {' and no '.join(sorted(absent))}, which is to be predicted")
    if (seen := task.hparams.get("heaviest")) is not None:
        check_heaviest(data.store, train, seen)
    reset_peak_memory(CPU)
    with torch.no_grad():
        of = partial(batches, task, data)
        flops = count_flops(task, baseline, data)
        with metered(spec.energy) as energy:
            start, sharing = time.perf_counter(), Sharing(CPU)
            baseline.fit(lambda: of(train), lambda: of(val))
            fitted, shared = time.perf_counter(), sharing.shared
        with recording(folder / "predictions" if spec.evaluation.predictions else None, task, data):
            splits = {
                name: SplitResult(severity=data.store.split(name).severity, metrics=measured(task, data, name))
                for name in data.test_splits
            }
    save(baseline, spec, data, folder)
    seen = len(train) * baseline.steps
    return RunResult(
        run=spec.run,
        status="ok",
        domain=domain,
        params=baseline.params,
        params_body=baseline.params,
        flops_per_sample=flops,
        samples_seen=seen,
        unique_samples=len(train),
        epochs=float(baseline.steps),
        learning_rate_choice="none: a baseline",
        seconds=time.perf_counter() - start,
        training_seconds=fitted - start,
        peak_memory=peak_memory(CPU),
        device=device_name("cpu"),
        hardware=hardware(CPU),
        shared=shared,
        **energy,
        splits=splits,
        versions=library_versions(),
    )


def unfitted(spec: RunSpec, data: StoreDataModule) -> tuple[Task, Baseline]:
    """The task and the baseline of a run. The task knows labels, metrics and what is seen; it builds no network."""
    domain = data.store.domain
    task: Task = task_for(domain)(**spec.task, symmetry_samples=spec.evaluation.symmetry_samples)
    data.check(domain)
    task.model = baseline = build(spec.architecture, domain, spec.task, spec.size, spec.overrides)
    return task, baseline


def count_flops(task: Task, baseline: Baseline, data: StoreDataModule) -> float:
    """FLOPs of one pass of the fit per sample, on the first 64 training samples."""
    with torch.no_grad():
        samples = list(batches(task, data, data.store.split("train").indices(FLOP_SAMPLES)))
        return flops_per_sample(baseline, samples)


def flops_per_sample(baseline: Baseline, samples: list[Any]) -> float:
    """FLOPs of one pass of the fit over a batch, per sample."""
    with flop_counter() as counter:
        for batch in samples:
            baseline.work(batch)
    return (counter.get_total_flops() + baseline.uncounted_flops) / sum(batch.num_graphs for batch in samples)


def batches(task: Task, data: StoreDataModule, indices: np.ndarray) -> Iterator[Any]:
    """The samples at `indices` of the store, as the task sees them; points have no edges."""
    for start in range(0, len(indices), BATCH):
        yield task.collate(data.store, indices[start : start + BATCH], edges=False)


def evaluated(task: Task, data: StoreDataModule, split: str) -> Iterator[Any]:
    """The test samples of a split, or the windows of its series, as the task sees them; points have no edges."""
    data.context, data.horizon = task.context, task.horizon
    for batch in data.loader(split, data.test_samples, BATCH):
        yield task.seen(batch)


def measured(task: Task, data: StoreDataModule, split: str) -> dict[str, MetricValue]:
    """Metrics and symmetry errors of `task.model` on one split."""
    errors = Accumulator(task.errors)
    for batch in evaluated(task, data, split):
        task.evaluate(batch, split, errors)
    metrics = errors.compute()
    if samples := task.hparams["symmetry_samples"]:
        indices = data.store.split(split).indices(data.test_samples)[:samples]
        metrics |= task.measure_symmetry(task.collate(data.store, indices))
    return metrics
