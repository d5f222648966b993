"""The predictions file: what a model says of every sample of a split, written by `predict` and read by scoring."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from scisci.contracts.files import atomic_path

SCHEMA_VERSION = 1


def write_predictions(
    path: Path, fingerprint: str, split: str, ids: np.ndarray, energy: np.ndarray, forces: list[np.ndarray]
) -> None:
    """Write one split's predictions.

    `ids` [n] are sample indices of the store with this `fingerprint`; `energy` [n] eV; `forces`: one [N, 3] array in
    eV/Å per sample, stored one after the other with CSR `offsets` [n + 1].
    """
    lengths = [len(f) for f in forces]
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(format="scisci-predictions", schema_version=SCHEMA_VERSION)
        file.attrs.update(fingerprint=fingerprint, split=split)
        file["ids"] = ids.astype(np.int64)
        file["energy"] = energy.astype(np.float64)
        file["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        file["forces"] = np.concatenate(forces).astype(np.float32)
