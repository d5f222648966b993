"""Fixtures shared by all tests: a small store of real molecules, and batches from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from scisci.data.batch import graph_batch
from scisci.data.library import open_dataset
from scisci.data.samples import AtomsSample
from scisci.data.store import Store
from scisci.data.writer import StoreWriter

torch.set_num_threads(1)
# Examples are judged by what they show, not by how busy the machine is.
settings.register_profile("scisci", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scisci")


def copy_samples(source: Store, indices: np.ndarray, writer: StoreWriter) -> None:
    """Append samples of a store to another one."""
    ragged = source.take(indices)
    for k, (a, b) in enumerate(zip(ragged.offsets[:-1], ragged.offsets[1:], strict=True)):
        sample = AtomsSample(
            numbers=ragged.items["numbers"][a:b],
            positions=ragged.items["positions"][a:b],
            forces=ragged.items["forces"][a:b],
            energy=float(ragged.samples["energy"][k]),
        )
        writer.append(sample, source.groups[ragged.samples["group"][k]])


@pytest.fixture(scope="session")
def shipped() -> Store:
    """The shipped data set."""
    return open_dataset("xtb-molecules")


@pytest.fixture(scope="session")
def small_store(shipped: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a store with 96 training, 32 validation, 32 test and 32 `ood_600K` samples of the shipped data set."""
    path = tmp_path_factory.mktemp("store") / "small.h5"
    counts = {"train": 96, "val": 32, "test": 32, "ood_600K": 32}
    with StoreWriter(path, "atoms") as writer:
        start = 0
        for name, count in counts.items():
            split = shipped.split(name)
            copy_samples(shipped, split.indices(count), writer)
            writer.split(name, np.arange(start, start + count), split.shift, split.severity)
            start += count
        writer.reference("energy", shipped.references["energy"])
    return path


@pytest.fixture(scope="session")
def molecules(shipped: Store):
    """A batch of 6 real molecules with neighbours within 5 Å."""
    return graph_batch(shipped.take(shipped.split("ood_1200K").indices(6)), 5.0)
