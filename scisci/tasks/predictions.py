"""The predictions file: what a model says of every sample of a split, written by runs, `predict` and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import torch
from torch import Tensor

from scisci.contracts.files import atomic_path
from scisci.data.module import GraphDataset, StoreDataModule
from scisci.data.series import SeriesDataset
from scisci.data.store import Store

if TYPE_CHECKING:
    from scisci.tasks.base import Task

SCHEMA_VERSION = 1
ROWS_PER_CHUNK, BATCH = 4096, 128
# Options of a task without which its predictions cannot be held against labels.
OPTIONS = ("heaviest", "context", "horizon")


class PredictionsWriter:
    """Appends predictions batch by batch, so that memory does not grow with the split."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self._extend("offsets", np.zeros(1, dtype=np.int64))

    def append(
        self,
        ids: np.ndarray,
        lengths: np.ndarray,
        per_system: Mapping[str, np.ndarray],
        per_point: Mapping[str, np.ndarray],
    ) -> None:
        """Add samples: their `ids` [n] in the store, how many points each has, and what was predicted of them.

        `per_system`: a row per sample, kept in float64 (`energy` [n] eV; `stress` [n, 3, 3] eV/Å³, NaN where a sample
        has none; `omega_m`, `sigma_8`; `start`). `per_point`: a row per point, samples one after the other, kept in
        float32 (`forces` [sum of lengths, 3] eV/Å; `velocities` km/s; `infilling` [sum of lengths] log-odds; `mean`
        and `quantiles` [sum of lengths, 9]) or, if given so, in float64 (`positions`).
        """
        self._extend("ids", ids.astype(np.int64))
        self._extend("offsets", self._file["offsets"][-1] + np.cumsum(lengths, dtype=np.int64))
        for name, values in per_system.items():
            assert len(values) == len(ids)
            self._extend(name, values.astype(np.float64))
        for name, values in per_point.items():
            assert len(values) == lengths.sum()
            self._extend(name, values.astype(np.float64 if values.dtype == np.float64 else np.float32))

    def _extend(self, name: str, values: np.ndarray) -> None:
        if name not in self._file:
            row = values.shape[1:]
            layout = {"maxshape": (None, *row), "chunks": (ROWS_PER_CHUNK, *row), "shuffle": True, "compression": 4}
            self._file.create_dataset(name, (0, *row), values.dtype, **layout)
        node, start = self._file[name], len(self._file[name])
        node.resize(start + len(values), axis=0)
        node[start:] = values


@contextmanager
def writing_predictions(path: Path, fingerprint: str, split: str, **attributes: str) -> Iterator[PredictionsWriter]:
    """Write the predictions for a split of the store with this `fingerprint`; nothing is there until all of it is.

    The file holds `ids` [n], CSR `offsets` [n + 1] into what is per point, and an array per quantity.
    """
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(format="scisci-predictions", schema_version=SCHEMA_VERSION)
        file.attrs.update(fingerprint=fingerprint, split=split, **attributes)
        yield PredictionsWriter(file)


@contextmanager
def writing_outputs(
    path: Path, task: Task, store: Store, split: str, samples: int | None = None
) -> Iterator[Callable[[Mapping[str, Tensor], Tensor], None]]:
    """Write what a task predicts of a split's first `samples`: yields what takes outputs and `ptr` batch by batch.

    Attributes say what rebuilds the samples as the model saw them: `heaviest` where it saw so many heaviest points
    alone, of which there is a row each, and `context` and `horizon` of the windows of series.
    """
    ids = task.rows(store, store.split(split).indices(samples))
    options = {name: str(value) for name in OPTIONS if (value := task.hparams.get(name)) is not None}
    written = 0
    with writing_predictions(path, store.fingerprint, split, **options) as writer:

        def write(outputs: Mapping[str, Tensor], ptr: Tensor) -> None:
            nonlocal written
            lengths = ptr.diff().cpu().numpy()
            parts: dict[str, dict[str, np.ndarray]] = {"system": {}, "point": {}}
            for name, kind in task.predicted.items():
                if name in outputs:
                    parts[kind][name] = outputs[name].detach().cpu().numpy()
            writer.append(ids[written : written + len(lengths)], lengths, parts["system"], parts["point"])
            written += len(lengths)

        yield write


@contextmanager
def recording(folder: Path | None, task: Task, data: StoreDataModule) -> Iterator[None]:
    """Meanwhile, have a task that is tested on `data` write `<split>.h5` into `folder`; nothing where that is None."""
    if folder is None:
        yield
        return
    with ExitStack() as files:
        writing = {
            split: files.enter_context(
                writing_outputs(folder / f"{split}.h5", task, data.store, split, data.test_samples)
            )
            for split in data.test_splits
        }
        task.record = lambda split, told: writing[split](told, told["ptr"])
        try:
            yield
        finally:
            task.record = None


def write_predictions(task: Task, store: Store, split: str, path: Path, samples: int | None = None) -> None:
    """Write what a trained task says of the first `samples` of a split; the store need not have labels."""
    indices, model = store.split(split).indices(samples), task.model
    rows: SeriesDataset | GraphDataset
    if store.domain == "series":
        rows = SeriesDataset(store, indices, task.context, task.horizon, rolling=True)
    else:
        source, elements = store.numbered(getattr(model, "datasets", ())), getattr(model, "known_elements", None)
        rows = GraphDataset(source, indices, getattr(model, "cutoff", 0.0), elements)
    with torch.no_grad(), writing_outputs(path, task, store, split, samples) as write:
        for start in range(0, len(rows), BATCH):
            told = task.predict_step(rows.__getitems__(list(range(start, min(start + BATCH, len(rows))))), 0)
            write(told, told["ptr"])
