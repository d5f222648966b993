"""The predictions file: what a model says of every sample of a split, written by `predict` and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from torch import Tensor

from scisci.contracts.files import atomic_path
from scisci.data.store import Store
from scisci.tasks.base import Task

SCHEMA_VERSION = 1


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

        `per_system`: a row per sample (`energy` [n] eV; `stress` [n, 3, 3] eV/Å³, NaN where a sample has none;
        `omega_m`, `sigma_8`). `per_point`: a row per point, samples one after the other (`forces` [sum of lengths, 3]
        eV/Å; `positions`; `velocities` km/s; `infilling` [sum of lengths] log-odds).
        """
        self._extend("ids", ids.astype(np.int64))
        self._extend("offsets", self._file["offsets"][-1] + np.cumsum(lengths, dtype=np.int64))
        for name, values in per_system.items():
            assert len(values) == len(ids)
            self._extend(name, values.astype(np.float64))
        for name, values in per_point.items():
            assert len(values) == lengths.sum()
            self._extend(name, values.astype(np.float32))

    def _extend(self, name: str, values: np.ndarray) -> None:
        if name not in self._file:
            shape = (0, *values.shape[1:])
            self._file.create_dataset(name, shape, values.dtype, maxshape=(None, *shape[1:]), chunks=(4096, *shape[1:]))
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

    Where the task shows its model the heaviest points alone, the file says how many in its attribute `heaviest`, and
    has a row for each of these.
    """
    ids, heaviest = task.rows(store, store.split(split).indices(samples)), task.hparams.get("heaviest")
    seen = {} if heaviest is None else {"heaviest": str(heaviest)}
    written = 0
    with writing_predictions(path, store.fingerprint, split, **seen) as writer:

        def write(outputs: Mapping[str, Tensor], ptr: Tensor) -> None:
            nonlocal written
            lengths = ptr.diff().cpu().numpy()
            parts: dict[str, dict[str, np.ndarray]] = {"system": {}, "point": {}}
            for name, kind in task.predicted.items():
                if name in outputs:
                    parts[kind][name] = outputs[name].cpu().numpy()
            writer.append(ids[written : written + len(lengths)], lengths, parts["system"], parts["point"])
            written += len(lengths)

        yield write
