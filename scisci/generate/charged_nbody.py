"""The data set `charged-nbody`: free charged particles in three dimensions, and where they are a moment later.

The benchmark of Satorras, Hoogeboom and Welling, "E(n) equivariant graph neural networks" (ICML 2021), after Kipf et
al., "Neural relational inference for interacting systems" (ICML 2018), with the published parameters and shifted
populations beside it. Everything is dimensionless: unit mass, charges ±1, Coulomb forces q_i q_j r / |r|³.

As published, each component of a force is clipped by itself, which singles out the axes: the data is not exactly
symmetric under rotation, and the error of an exactly equivariant model has a floor. Clipping the norm has none.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from scisci.contracts.errors import UserError
from scisci.data.samples import ParticlesSample
from scisci.data.writer import StoreWriter
from scisci.generate import silent

SEED = 20260
TIMESTEP = 0.001
LARGEST_FORCE = 100.0
BODIES, SPEED = 5, 0.5
TRAIN, VAL, TEST, OOD = 3_000, 2_000, 2_000, 1_000
FRAMES, EVERY = (30, 40), 100
SYSTEMS_AT_ONCE = 1_000
Clip = Literal["component", "norm"]


@dataclass(frozen=True)
class Population:
    """From what the initial states of a split are drawn, and how that differs from `train`."""

    systems: int
    shift: str
    severity: float | None = None
    bodies: int = BODIES
    speed: float = SPEED
    like_charges: bool = False


POPULATIONS: dict[str, Population] = {
    "train": Population(TRAIN, "none: 5 bodies with initial speed 0.5, fixed order"),
    "val": Population(VAL, "none: other systems of the same population"),
    "test": Population(TEST, "none: other systems of the same population"),
    "ood_bodies10": Population(OOD, "size: 10 bodies in the same mean density", 10, bodies=10),
    "ood_bodies20": Population(OOD, "size: 20 bodies in the same mean density", 20, bodies=20),
    "ood_speed1": Population(OOD, "velocity: initial speed 1", 1.0, speed=1.0),
    "ood_speed2": Population(OOD, "velocity: initial speed 2", 2.0, speed=2.0),
    "ood_likecharges": Population(OOD, "charge: all charges of a system have one sign", like_charges=True),
}


@dataclass(frozen=True)
class States:
    """B systems of n bodies at one step: positions and velocities [B, n, 3], charges [B, n].

    `clipped` [B] counts the steps so far at which a component of a force was clipped.
    """

    positions: np.ndarray
    velocities: np.ndarray
    charges: np.ndarray
    clipped: np.ndarray


def initial_states(population: Population, seed: Sequence[int]) -> States:
    """Draw the initial states of a population; those of a smaller one are the first of a larger one.

    Positions are normal with standard deviation (n / 5)^(1/3), directions of motion uniform, charges ±1 with equal
    chance.
    """
    systems, bodies = population.systems, population.bodies
    draws = np.random.default_rng([*seed, 0]).standard_normal((systems, 2, bodies, 3))
    signs = np.random.default_rng([*seed, 1]).integers(0, 2, (systems, bodies))
    if population.like_charges:
        signs[:] = signs[:, :1]
    directions = draws[:, 1]
    return States(
        positions=draws[:, 0] * np.cbrt(bodies / 5),
        velocities=population.speed * directions / np.sqrt(np.square(directions).sum(axis=2, keepdims=True)),
        charges=2.0 * signs - 1.0,
        clipped=np.zeros(systems, dtype=np.int64),
    )


def _net_forces(x: np.ndarray, couplings: list[np.ndarray]) -> np.ndarray:
    """Net Coulomb force [3, n, B] on each body at `x` [3, n, B]; `couplings[i]` holds q_i q_j for all j > i."""
    force = np.zeros_like(x)
    for i, coupling in enumerate(couplings):
        pull = x[:, i : i + 1] - x[:, i + 1 :]
        squared = np.square(pull).sum(axis=0)
        pull *= coupling / (squared * np.sqrt(squared))
        force[:, i] += pull.sum(axis=1)
        force[:, i + 1 :] -= pull
    return force


def _clip(force: np.ndarray, by: Clip) -> np.ndarray:
    """Clip net forces [3, n, B] in place; which systems [B] had one that was too large."""
    size = np.abs(force).max(axis=0) if by == "component" else np.sqrt(np.square(force).sum(axis=0))
    clipped = (size > LARGEST_FORCE).any(axis=0)
    if clipped.any():
        if by == "component":
            np.clip(force, -LARGEST_FORCE, LARGEST_FORCE, out=force)
        else:
            force /= np.maximum(size / LARGEST_FORCE, 1.0)
    return clipped


def simulate(start: States, steps: Sequence[int], clip: Clip = "component") -> list[States]:
    """Integrate all systems side by side; their states after each of `steps` (rising).

    Each step adds dt F(x) to the velocities, then dt v to the positions, in float64. Each component of the net force
    on a body, or its norm, is clipped to 100. Only operations that IEEE 754 rounds exactly are used, in a fixed order,
    so the same start gives the same result on every machine.
    """
    # [3, n, B]: systems lie side by side, so that every operation is one pass over contiguous numbers.
    x, v = (np.array(a.T, order="C") for a in (start.positions, start.velocities))
    q = start.charges.T
    couplings = [q[i] * q[i + 1 :] for i in range(len(q) - 1)]
    clipped, states = start.clipped.copy(), []
    for step in range(1, steps[-1] + 1):
        force = _net_forces(x, couplings)
        clipped += _clip(force, clip)
        v += TIMESTEP * force
        x += TIMESTEP * v
        if step in steps:
            states.append(States(x.T.copy(), v.T.copy(), start.charges, clipped.copy()))
    return states


def _chunks(start: States) -> Iterator[States]:
    for at in range(0, len(start.charges), SYSTEMS_AT_ONCE):
        part = slice(at, at + SYSTEMS_AT_ONCE)
        yield States(start.positions[part], start.velocities[part], start.charges[part], start.clipped[part])


def generate(
    out: Path,
    seed: int = SEED,
    log: Callable[[str], None] = silent,
    train: int = TRAIN,
    frames: tuple[int, int] = FRAMES,
    every: int = EVERY,
    clip: Clip = "component",
    only: Mapping[str, int] | None = None,
) -> None:
    """Write the whole data set to `out`; about 20 seconds with the published settings.

    `train` is the number of training systems: the first ones are the same whatever it is, and so are all other
    splits. A frame is kept every `every` steps; `frames` are those of the input and of the target, where frame k is
    the state after (k + 1) `every` steps. Published: frames 30 and 40 of every 100 steps with 3,000 training systems;
    frames 6 and 8 of every 500 with 50,000 for the sweep over training data. `clip`: see `simulate`. `only`: these
    splits alone, with so many systems each.
    """
    first, second = frames
    if not 0 <= first < second or every < 1 or train < 1:
        raise UserError(
            f"--train {train}, --frames {first} {second}, --every {every} are not possible: give at least one training"
            " system, an input frame from 0 up, a later target frame, and at least one step"
        )
    steps = [(first + 1) * every, (second + 1) * every]
    times = {"input_time": steps[0] * TIMESTEP, "target_time": steps[1] * TIMESTEP}
    if only is None:
        only = {name: population.systems for name, population in POPULATIONS.items()} | {"train": train}
    populations = {name: replace(POPULATIONS[name], systems=count) for name, count in only.items()}
    with StoreWriter(out, "particles") as writer:
        for name, population in populations.items():
            drawn = initial_states(population, [seed, zlib.crc32(name.encode())])
            members: list[int] = []
            for part in _chunks(drawn):
                for sample, clipped in _samples(*simulate(part, steps, clip)):
                    members.append(writer.append(sample, f"{name} {len(members)}", clipped_steps=clipped, **times))
            shift, severity = population.shift, population.severity
            writer.split(name, np.array(members), shift, severity, disjoint=name != "train")
            log(f"{name:16s} {population.systems:6,} systems of {population.bodies} bodies")


def _samples(before: States, after: States) -> Iterator[tuple[ParticlesSample, int]]:
    """Each system as a sample, with the number of steps from input to target at which a force was clipped."""
    for k, clipped in enumerate((after.clipped - before.clipped).tolist()):
        sample = ParticlesSample(before.positions[k], before.velocities[k], before.charges[k], after.positions[k])
        yield sample, clipped
