"""The data set `chaos`: trajectories of published chaotic flows, for data ladders that measured records cannot fill.

The equations, their parameters, periods and a point near each attractor are those of the package dysts (Gilpin,
"Chaos as an interpretable benchmark for forecasting and data-driven modelling", NeurIPS 2021, datasets track); they are
integrated here, with DOP853 at a relative tolerance of 1e-9, and sampled 32 times in a dominant period. Values are raw.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from scisci.contracts.errors import UserError
from scisci.data.samples import SeriesSample
from scisci.data.writer import StoreWriter
from scisci.generate import silent

SEED = 20260
POINTS_PER_PERIOD = 32
LENGTH = 1024
TRANSIENT = (20.0, 40.0)
"""periods before the first recorded point, drawn uniformly"""
NUDGE = 1e-3
"""of the initial condition, in standard deviations of each variable; chaos does the rest"""
NUDGES = 8
AT_REST = 1e-3
"""the standard deviation below which a variable does not move, relative to that on the attractor"""
TOLERANCE = 1e-9
# A step has no unit of time; of the units that a frequency can have, this one has no season.
FREQ = "ms"
# Systems that an explicit method cannot follow in seconds, being stiff or jumping from one field to another.
LEFT_OUT = frozenset(
    {
        *("AtmosphericRegime", "BeerRNN", "BelousovZhabotinsky", "BlinkingRotlet", "BlinkingVortex", "CellCycle"),
        *("ForcedVanDerPol", "Hopfield", "InteriorSquirmer", "JerkCircuit", "LidDrivenCavityFlow", "MacArthur"),
        *("SprottMore", "Torus"),
    }
)
# Names that systems of one family share: they differ in a term or a parameter, so none of them is held out.
FAMILIES = (
    *("Lorenz", "Sprott", "Hyper", "Lu", "Chen", "Rossler", "Chua", "Thomas", "Forced", "Duffing", "Tsucs", "Jerk"),
    *("CaTwoPlus", "Wang", "Vallis"),
)
HELD_OUT = 24
"""systems that are not in training"""


@dataclass(frozen=True)
class Part:
    """How many systems a split has, how many trajectories of each, and how it differs from `train`."""

    systems: int | None
    shift: str
    disjoint: bool = False


PARTS = {
    "train": Part(None, "none: one trajectory a system, then a second one of each, and so on"),
    "val": Part(12, "none: trajectories of training systems from other initial conditions"),
    "test": Part(24, "none: trajectories of training systems from other initial conditions"),
    "ood_system": Part(HELD_OUT, "system: trajectories of systems that are not in training", disjoint=True),
}


@dataclass(frozen=True)
class Flow:
    """One system: `rhs` [D] of state [D] at a time; `observe` maps states [D, T] to what is recorded, all bounded."""

    name: str
    rhs: Callable[[float, np.ndarray], Any]
    observe: Callable[[np.ndarray], np.ndarray]
    near: np.ndarray
    """[D] a point near the attractor"""
    spread: np.ndarray
    """[D] standard deviation of each variable on it"""
    period: float


@cache
def flows() -> dict[str, Flow]:
    """All systems of ordinary differential equations that dysts defines; `UserError` where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where numba is not installed, which is not needed here
            module, base = import_module("dysts.flows"), import_module("dysts.base")
    except ImportError as error:
        raise UserError(f"chaos needs dysts ({error}); install it with 'pip install scisci[chaos]'") from error
    kinds = (kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, base.DynSys))
    return {kind.__name__: _flow(kind()) for kind in kinds if kind is not base.DynSys}


def _flow(system: Any) -> Flow:
    recorded = getattr(system, "_postprocessing", None)
    spread = np.where(np.asarray(system.std, dtype=np.float64) > 0, system.std, 1.0)
    return Flow(
        type(system).__name__,
        lambda time, state: system.rhs(state, time),
        (lambda states: np.stack(recorded(*states))) if recorded else (lambda states: states),
        np.asarray(system.ic, dtype=np.float64),
        spread,
        float(system.period),
    )


def divided(names: Iterable[str], seed: int) -> dict[str, list[str]]:
    """Which systems are in each split, in random order; those of `ood_system` are related to none in training."""
    kept = sorted(set(names) - LEFT_OUT)
    rng = np.random.default_rng([seed, 1])
    alone = [name for name in kept if not any(family in name for family in FAMILIES)]
    held_out = set(rng.permutation(alone)[:HELD_OUT].tolist())
    trained = rng.permutation([name for name in kept if name not in held_out]).tolist()
    return {split: sorted(held_out) if part.disjoint else trained[: part.systems] for split, part in PARTS.items()}


class LeftAttractorError(RuntimeError):
    """A trajectory grew without bound, or came to rest."""


def integrate(flow: Flow, start: np.ndarray, times: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """States [D, T] at `times`, the first of which may be after 0, from `start` [D] at time 0."""
    with np.errstate(all="ignore"):
        absolute = tolerance * flow.spread
        found = solve_ivp(flow.rhs, (0.0, times[-1]), start, "DOP853", times, rtol=tolerance, atol=absolute)
    if not found.success or not np.isfinite(found.y).all():
        raise LeftAttractorError(f"{flow.name} left its attractor: {found.message}")
    return found.y


def trajectory(flow: Flow, rng: np.random.Generator, length: int = LENGTH) -> np.ndarray:
    """A trajectory [D, length] on the attractor, from a nudged initial condition and after a transient, as recorded.

    Where a nudge leads off the attractor, the next one is taken.
    """
    for _ in range(NUDGES):
        start = flow.near + NUDGE * flow.spread * rng.standard_normal(len(flow.near))
        begin = rng.uniform(*TRANSIENT) * flow.period
        try:
            states = integrate(flow, start, begin + np.arange(length) * flow.period / POINTS_PER_PERIOD)
        except LeftAttractorError:
            continue
        if (states[:, length // 2 :].std(axis=1) > AT_REST * flow.spread).any():
            return flow.observe(states)
    raise LeftAttractorError(f"{flow.name} left its attractor {NUDGES} times")


def generate(
    out: Path,
    seed: int = SEED,
    trajectories: int = 1,
    log: Callable[[str], None] = silent,
    length: int = LENGTH,
    only: Mapping[str, int] | None = None,
) -> None:
    """Write `trajectories` training trajectories of each system, and those of the other splits, to `out`.

    About two seconds a trajectory. More trajectories leave those before them as they are, so that the training splits
    of larger data sets begin with those of smaller ones. `log` gets a line for each. `only`: these splits alone, with
    so many trajectories each, of the systems that they have by `SEED`.
    """
    if trajectories < 1:
        raise UserError(f"{trajectories} trajectories of each system leave nothing to train on; give at least 1")
    systems = flows()
    division = divided(systems, seed if only is None else SEED)
    if only is None:
        only = {split: len(names) * (trajectories if split == "train" else 1) for split, names in division.items()}
    members: dict[str, list[int]] = {split: [] for split in only}
    with StoreWriter(out, "series") as writer:
        for split, total in only.items():
            for i in range(total):
                k, name = i // len(division[split]), division[split][i % len(division[split])]
                rng = np.random.default_rng([seed, zlib.crc32(f"{split} {name}".encode()), k])
                sample = SeriesSample(trajectory(systems[name], rng, length), 0, FREQ)
                members[split].append(writer.append(sample, name))
                log(f"{split}: {name}, {i + 1} of {total}")
        for split, indices in members.items():
            writer.split(split, np.array(indices), PARTS[split].shift, disjoint=PARTS[split].disjoint)
