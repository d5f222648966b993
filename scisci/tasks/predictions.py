"""The predictions file: what a model says of every sample of a split, written by `predict` and read by scoring."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from scisci.contracts.files import atomic_path

SCHEMA_VERSION = 1


def write_predictions(
    path: Path,
    fingerprint: str,
    split: str,
    ids: np.ndarray,
    lengths: np.ndarray,
    per_system: Mapping[str, np.ndarray],
    per_point: Mapping[str, np.ndarray],
) -> None:
    """Write one split's predictions.

    `ids` [n] are sample indices of the store with this `fingerprint`, `lengths` [n] how many points each has.
    `per_system`: one value per sample (`energy` eV). `per_point`: a row per point, samples one after the other
    (`forces` [sum of lengths, 3] eV/Å; `positions` [.., 3]), with CSR `offsets` [n + 1].
    """
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(format="scisci-predictions", schema_version=SCHEMA_VERSION)
        file.attrs.update(fingerprint=fingerprint, split=split)
        file["ids"] = ids.astype(np.int64)
        file["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        for name, values in per_system.items():
            file[name] = values.astype(np.float64)
        for name, values in per_point.items():
            assert len(values) == lengths.sum()
            file[name] = values.astype(np.float32)
