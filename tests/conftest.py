"""Fixtures shared by all tests: small stores of real molecules and of simulated particles, and batches from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from scisci.data.batch import graph_batch
from scisci.data.library import open_dataset
from scisci.data.samples import AtomsSample, ParticlesSample
from scisci.data.store import Store
from scisci.data.writer import StoreWriter
from scisci.generate.charged_nbody import Population, initial_states, simulate

torch.set_num_threads(1)
# Examples are judged by what they show, not by how busy the machine is.
settings.register_profile("scisci", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scisci")

PARTICLES = {
    "train": Population(192, "none"),
    "val": Population(48, "none"),
    "test": Population(64, "none"),
    "ood_bodies8": Population(32, "size", 8.0, bodies=8),
}


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


def particles(population: Population, seed: int) -> Iterator[ParticlesSample]:
    before, after = simulate(initial_states(population, [seed]), [200, 1200])
    for k in range(population.systems):
        yield ParticlesSample(before.positions[k], before.velocities[k], before.charges[k], after.positions[k])


@pytest.fixture(scope="session")
def particle_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a store of simulated particles, with the splits train, val, test and ood_bodies8."""
    path, start = tmp_path_factory.mktemp("particles") / "small.h5", 0
    with StoreWriter(path, "particles") as writer:
        for seed, (name, population) in enumerate(PARTICLES.items()):
            for k, sample in enumerate(particles(population, seed)):
                writer.append(sample, f"{name} {k}")
            members = np.arange(start, start + population.systems)
            writer.split(name, members, population.shift, population.severity, disjoint=name != "train")
            start += population.systems
    return path
