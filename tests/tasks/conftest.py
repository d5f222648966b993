"""A small store of charged particles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scisci.data.samples import ParticlesSample
from scisci.data.writer import StoreWriter
from scisci.generate.charged_nbody import Population, initial_states, simulate

SPLITS = {
    "train": Population(192, "none"),
    "val": Population(48, "none"),
    "test": Population(64, "none"),
    "ood_bodies8": Population(32, "size", 8.0, bodies=8),
}


def samples(population: Population, seed: int) -> Iterator[ParticlesSample]:
    before, after = simulate(initial_states(population, [seed]), [200, 1200])
    for k in range(population.systems):
        yield ParticlesSample(before.positions[k], before.velocities[k], before.charges[k], after.positions[k])


@pytest.fixture(scope="session")
def particle_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a store of simulated particles, with the splits train, val, test and ood_bodies8."""
    path, start = tmp_path_factory.mktemp("particles") / "small.h5", 0
    with StoreWriter(path, "particles") as writer:
        for seed, (name, population) in enumerate(SPLITS.items()):
            for k, sample in enumerate(samples(population, seed)):
                writer.append(sample, f"{name} {k}")
            members = np.arange(start, start + population.systems)
            writer.split(name, members, population.shift, population.severity, disjoint=name != "train")
            start += population.systems
    return path
