"""How well a trained model keeps the symmetries of a data set, as numbers with intervals.

Beside the tasks, since these rebuild a trained model and know which labels its outputs stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from scisci.contracts.errors import UserError
from scisci.data.batch import graph_batch
from scisci.data.library import open_dataset
from scisci.data.samples import layout
from scisci.data.series import SeriesDataset
from scisci.data.store import Store
from scisci.symmetry.actions import Outputs
from scisci.symmetry.forecasts import series_group
from scisci.symmetry.groups import group_named
from scisci.symmetry.measure import batch_as, measure
from scisci.symmetry.summary import Row, summary
from scisci.tasks.base import Task
from scisci.tasks.baselines.linear import Baseline
from scisci.tasks.checkpoints import load_task
from scisci.tasks.run import accelerator
from scisci.tasks.series import SeriesTask

SCHEMA_VERSION = 1
BATCH = 32


def measured(
    checkpoint: str,
    dataset: str,
    splits: Sequence[str] = ("test",),
    groups: Sequence[str] = (),
    samples: int = 64,
    elements: int = 8,
    dtype: str = "float32",
    seed: int = 0,
) -> pd.DataFrame:
    """All figures, one a row: split, group, quantity, statistic, `at`, value and its intervals.

    `checkpoint` is what `load_task` takes. The first `samples` of each split are measured under `elements` random
    elements each, or all of a finite group; without `groups`, under those of the model's task. `UserError` where names
    are unknown, or model, data and group do not fit.
    """
    store = open_dataset(dataset)
    indices = {name: store.split(name).indices(samples) for name in splits}
    for group in groups:
        series_group(group) if store.domain == "series" else group_named(group)
    task = load_task(checkpoint)
    if task.domain != store.domain:
        raise UserError(f"the model is for samples of {task.domain!r}, not of {store.domain!r}; give other data")
    rows = [
        {"split": split, **row}
        for split, ids in indices.items()
        for row in split_rows(task, store, ids, groups or task.groups, elements, dtype, seed)
    ]
    of_all = {"schema_version": SCHEMA_VERSION, "checkpoint": checkpoint, "dataset": dataset, "dtype": dtype}
    return pd.DataFrame(rows).assign(**of_all, fingerprint=store.fingerprint, seed=seed).convert_dtypes()


def split_rows(
    task: Task, store: Store, ids: np.ndarray, groups: Sequence[str], elements: int, dtype: str, seed: int
) -> Iterator[Row]:
    """The figures of the samples `ids` of a store, one a row."""
    precision = getattr(torch, dtype)
    device = "cpu" if isinstance(task.model, Baseline) else accelerator()
    model = task.model.to(device)
    # In float32 a trained model stays as it is, with its energy references in float64.
    model = model.double() if precision == torch.float64 else model
    batches = _batches(task, store, ids, precision, device)
    with torch.no_grad():
        if isinstance(task, SeriesTask):
            found = task.symmetry_found(model, batches, groups, elements, seed)
        else:
            # A potential gives the stress of crystals whether or not it was trained on it.
            found = measure(model, batches, groups, {**task.compared, "stress": "stress"}, elements, seed, _missed)
    rows = task.rows(store, ids)
    units = {field.name: field.unit for field in layout(store.domain)}
    for (group, quantity), errors in found.items():
        if not np.isfinite(errors.squares).all():
            raise UserError(f"the model's {quantity} is not finite on some samples; lower its learning rate")
        for row in summary(errors):
            unit = units.get(quantity, "") if row["statistic"] == "absolute" else ""
            sample = {"sample": int(rows[row["sample"]])} if "sample" in row else {}
            yield {"group": group, "quantity": quantity, "unit": unit, **row, **sample}


def _batches(task: Task, store: Store, ids: np.ndarray, dtype: torch.dtype, device: str) -> Iterator[Any]:
    for batch in _windows(task, store, ids) if isinstance(task, SeriesTask) else _graphs(task, store, ids):
        batch = batch.to(device)
        yield batch if dtype == torch.float32 else batch_as(batch, dtype)


def _windows(task: SeriesTask, store: Store, ids: np.ndarray) -> Iterator[Any]:
    windows = SeriesDataset(store, ids, task.context, task.horizon, rolling=True)
    for start in range(0, len(windows), BATCH):
        yield windows.__getitems__(list(range(start, min(start + BATCH, len(windows)))))


def _graphs(task: Task, store: Store, ids: np.ndarray) -> Iterator[Any]:
    model: Any = task.model
    store, elements = store.numbered(getattr(model, "datasets", ())), getattr(model, "known_elements", None)
    cutoff = getattr(model, "cutoff", task.cutoff)
    for start in range(0, len(ids), BATCH):
        yield task.seen(graph_batch(store.take(ids[start : start + BATCH]), cutoff, elements))


def _missed(outputs: Outputs, batch: Any) -> Outputs:
    """How far outputs are from labels: from fields of the same name, displacements from where particles went."""
    off = {name: values - batch[name] for name, values in outputs.items() if name in batch}
    if "displacement" in outputs and "target_positions" in batch:
        off["positions"] = batch.pos + outputs["displacement"] - batch.target_positions
    return off
