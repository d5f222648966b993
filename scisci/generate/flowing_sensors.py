"""The data set `flowing-sensors`: patterns that travel around a ring of sensors, some faster than in training.

The one-dimensional counterpart of the moving images of Keller, "Flow equivariant recurrent neural networks" (2025).
What sensor c measures at step t is the sum over patterns of p_k(c - v_k t), on a ring of N sensors and with velocities
v_k that are whole numbers of sensors a step. A pattern is a sum of smooth bumps a (1 - d² / w²)³ within a distance w.
Faster patterns are slower ones seen from a frame that moves, and nothing else is new about them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scisci.data.samples import SeriesSample
from scisci.data.writer import StoreWriter
from scisci.generate import silent

SEED = 20260
SENSORS, PATTERNS, BUMPS = 24, 1, 3
HALF_WIDTH, SIZE = (2.5, 5.0), (0.5, 1.5)
CONTEXT, HORIZON, LONG = 10, 20, 60
SLOW, FAST = (-1, 1), (2, 3)
FREQ = "ms"


@dataclass(frozen=True)
class Population:
    """Series of one split: how many, of how many steps, and from which velocities on to which their patterns have."""

    series: int
    shift: str
    steps: int = CONTEXT + HORIZON
    velocities: tuple[int, int] = SLOW


_FASTER = "velocity: patterns move by 2 or 3 sensors a step"
POPULATIONS: dict[str, Population] = {
    "train": Population(2_000, "none: patterns move by -1, 0 or 1 sensors a step, fixed order"),
    "val": Population(250, "none: other patterns of the same population"),
    "test": Population(500, "none: other patterns of the same population"),
    "ood_velocity": Population(500, _FASTER, velocities=FAST),
    "ood_length": Population(500, f"length: {LONG} steps to forecast in place of {HORIZON}", CONTEXT + LONG),
    "ood_velocity_length": Population(500, f"{_FASTER}; length: {LONG} steps to forecast", CONTEXT + LONG, FAST),
}


def draw_patterns(series: int, rng: np.random.Generator, patterns: int = PATTERNS) -> np.ndarray:
    """[B, K, N] random patterns: sums of smooth bumps around the ring, up or down."""
    shape = (series, patterns, BUMPS, 1)
    centre, width = rng.uniform(0, SENSORS, shape), rng.uniform(*HALF_WIDTH, shape)
    size = rng.uniform(*SIZE, shape) * rng.choice([-1.0, 1.0], shape)
    apart = np.abs((np.arange(SENSORS) - centre + SENSORS / 2) % SENSORS - SENSORS / 2)
    bump = np.maximum(1 - np.square(apart / width), 0)
    return (size * bump * bump * bump).sum(axis=2)


def draw_velocities(
    series: int, between: tuple[int, int], rng: np.random.Generator, patterns: int = PATTERNS
) -> np.ndarray:
    """[B, K] whole velocities from `between[0]` to `between[1]`, one way around the ring or all the other way."""
    way = rng.choice([-1, 1], (series, 1))
    return way * rng.integers(*between, (series, patterns), endpoint=True)


def travel(patterns: np.ndarray, velocities: np.ndarray, steps: int) -> np.ndarray:
    """[B, N, steps] what the sensors measure of patterns [B, K, N] with velocities [B, K] in sensors a step."""
    moved = velocities[:, :, None, None] * np.arange(steps)
    place = (np.arange(patterns.shape[2])[:, None] - moved) % patterns.shape[2]
    return np.take_along_axis(patterns[..., None], place, axis=2).sum(axis=1)


def generate(
    out: Path,
    seed: int = SEED,
    log: Callable[[str], None] = silent,
    patterns: int = PATTERNS,
    only: Mapping[str, int] | None = None,
) -> None:
    """Write the whole data set to `out`; seconds. `patterns` of a series are superposed, with velocities of their own.

    `only`: these splits alone, with so many series each.
    Only operations that IEEE 754 rounds exactly are used, so the same seed gives the same store on every machine.
    """
    if only is None:
        only = {name: population.series for name, population in POPULATIONS.items()}
    populations = {name: replace(POPULATIONS[name], series=count) for name, count in only.items()}
    with StoreWriter(out, "series") as writer:
        for name, population in populations.items():
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            shapes = draw_patterns(population.series, rng, patterns)
            velocities = draw_velocities(population.series, population.velocities, rng, patterns)
            speed = np.abs(velocities).max(axis=1)
            first = len(writer)
            for k, target in enumerate(travel(shapes, velocities, population.steps)):
                writer.append(SeriesSample(target, 0, FREQ), f"{name} {k}", speed=int(speed[k]))
            severity = float(speed.mean()) if population.velocities == FAST else None
            column = None if severity is None else "speed"
            members = np.arange(first, len(writer))
            writer.split(name, members, population.shift, severity, name != "train", column)
            log(f"{name:20s} {population.series:5,} series of {population.steps} steps")
