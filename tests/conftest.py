"""Fixtures shared by all tests: small stores of real molecules and of simulated particles, and batches from them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from scisci.data.batch import graph_batch
from scisci.data.library import open_dataset
from scisci.data.samples import AtomsSample, ParticlesSample, SeriesSample
from scisci.data.store import Store
from scisci.data.writer import StoreWriter
from scisci.generate.charged_nbody import Population, initial_states, simulate

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has its background jobs ignore Ctrl-C, and so would every command that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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


def made_up_series(rng: np.random.Generator, channels: int, times: int, freq: str, period: float) -> SeriesSample:
    """Channels of a sine each, with autoregressive noise and a few missing values, at scales far apart."""
    noise = rng.normal(size=(channels, times))
    for t in range(1, times):
        noise[:, t] += 0.6 * noise[:, t - 1]
    phase, scale = rng.uniform(0, 2 * np.pi, (channels, 1)), 10 ** rng.uniform(-2, 2, (channels, 1))
    target = scale * (5 + np.sin(2 * np.pi * np.arange(times) / period + phase) + 0.1 * noise)
    target[rng.random(target.shape) < 0.03] = np.nan
    return SeriesSample(target, int(rng.integers(10**9)), freq)


@pytest.fixture(scope="session")
def series_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a store of series of one and two channels, with the splits train, val, test and ood_daily."""
    path, start, rng = tmp_path_factory.mktemp("series") / "small.h5", 0, np.random.default_rng(0)
    counts = {"train": 32, "val": 6, "test": 8, "ood_daily": 5}
    with StoreWriter(path, "series") as writer:
        for name, count in counts.items():
            for k in range(count):
                freq, period = ("D", 7.0) if name == "ood_daily" else ("h", 24.0)
                sample = made_up_series(rng, 1 + k % 2, int(rng.integers(120, 260)), freq, period)
                writer.append(sample, f"{name} {k}", source="made up")
            shift = "frequency: daily" if name == "ood_daily" else "none"
            writer.split(name, np.arange(start, start + count), shift, disjoint=name != "train")
            start += count
    return path
