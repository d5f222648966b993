"""Equivariance error of PONITA against the number of orientations in its grid, before and after a short training.

Every grid gets the same initial weights and the same training, and is measured in float64 on test molecules that are
turned and reflected at random. Weights do not depend on the grid, so the ones trained on the default grid are also
measured on every other one. Times are CPU times of one thread.

Run: OMP_NUM_THREADS=1 python -m benchmarks.ponita_grid [--size 3k] [--steps 200] [--orientations 8 20 32 64 128]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings

import numpy as np
import torch

from scisci.data.batch import graph_batch
from scisci.data.library import open_dataset
from scisci.data.statistics import measure_statistics
from scisci.data.store import Store
from scisci.models.blocks.sphere import orientation_grid
from scisci.models.potential import Potential
from scisci.symmetry.measure import as_dtype, symmetry_errors
from scisci.tasks.atomistic import AtomisticTask
from scisci.tasks.base import relative_rate

DEFAULT, SAMPLES, BATCH, MEASURED, RATE = 20, 1024, 16, 32, 0.01


def build(size: str, orientations: int, store: Store) -> AtomisticTask:
    """A task with PONITA on a grid; the same initial weights whatever the grid."""
    torch.manual_seed(0)
    task = AtomisticTask("ponita", size, {"orientations": orientations})
    task.build(measure_statistics(store, store.split("train").indices(SAMPLES), task.cutoff))
    return task


def train(task: AtomisticTask, store: Store, steps: int) -> float:
    """AdamW on energies and forces with warm-up and cosine decay; returns the median CPU ms of a step."""
    ragged, rng = store.take(store.split("train").indices(SAMPLES)), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(task.parameters(), lr=RATE, weight_decay=0.0)
    times = []
    task.model.train()
    for step in range(steps):
        batch = graph_batch(ragged.take(rng.choice(SAMPLES, BATCH, replace=False)), task.cutoff)
        start = time.thread_time()
        for group in optimizer.param_groups:
            group["lr"] = RATE * relative_rate(step, steps, 0.1, "cosine")
        optimizer.zero_grad()
        task.loss(task.model(batch), batch).backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 10.0)
        optimizer.step()
        times.append(1000 * (time.thread_time() - start))
    return statistics.median(times)


def errors(model: Potential, store: Store) -> dict[str, float]:
    """Relative rms errors under rotations and reflections, and the force MAE in meV/Å."""
    batch = graph_batch(store.take(store.split("test").indices(MEASURED)), float(model.cutoff))  # type: ignore[arg-type]
    exact, double = as_dtype(model.eval(), batch, torch.float64)
    found = symmetry_errors(exact, [double], groups=("rotation", "reflection"))
    mae = (exact(double)["forces"] - batch.forces).abs().mean()
    return {name.removeprefix("symmetry_"): metric.value for name, metric in found.items()} | {"mae": 1000 * float(mae)}


def on_grid(model: Potential, orientations: int) -> Potential:
    """A copy of the model with the same weights on another grid."""
    moved = copy.deepcopy(model)
    moved.backbone.grid = torch.tensor(orientation_grid(orientations))
    return moved


def row(orientations: int | str, found: dict[str, float], *more: str) -> str:
    """A row of a Markdown table."""
    names = ("rotation_energy", "rotation_forces", "reflection_energy", "reflection_forces")
    return " | ".join([f"| {orientations}", *(f"{found[name]:.1e}" for name in names), *more]) + " |"


def head(*names: str) -> str:
    """The head of a Markdown table."""
    return f"| {' | '.join(names)} |\n|{' --: |' * len(names)}"


def main() -> None:
    """Print three tables: at initialisation, after training on each grid, and with one model's weights on each."""
    warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="3k")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--orientations", type=int, nargs="+", default=[8, 20, 32, 64, 128])
    given = parser.parse_args()
    torch.set_num_threads(1)
    store = open_dataset("xtb-molecules")
    columns = ("orientations", "rotation, energy", "forces", "reflection, energy", "forces")
    tasks = {count: build(given.size, count, store) for count in {*given.orientations, DEFAULT}}
    print(f"\nAt initialisation\n\n{head(*columns)}")
    for count in given.orientations:
        print(row(count, errors(tasks[count].model, store)), flush=True)
    print(f"\nTrained on each grid\n\n{head(*columns, 'force MAE, meV/Å', 'CPU ms per step')}")
    for count in sorted(tasks):
        milliseconds = train(tasks[count], store, given.steps)
        found = errors(tasks[count].model, store)
        print(row(count, found, f"{found['mae']:.0f}", f"{milliseconds:.0f}"), flush=True)
    print(f"\nWeights trained on {DEFAULT} orientations\n\n{head(*columns, 'force MAE, meV/Å')}")
    for count in given.orientations:
        found = errors(on_grid(tasks[DEFAULT].model, count), store)
        print(row(count, found, f"{found['mae']:.0f}"), flush=True)


if __name__ == "__main__":
    main()
