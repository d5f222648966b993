"""One side of a timing: a process that makes training steps, or predictions, whenever it is asked to.

Workers run in different environments, so this file imports nothing but numpy, ASE and torch. The driver starts
`python -m benchmarks._worker_NAME '{"batches": [16], ...}'` and reads one line that describes the model. Then each
line {"batch": 16, "steps": k} gets {"cpu": [...], "wall": [...]}: seconds, one figure per step. With "inference" a
batch is one box of so many water molecules, a step predicts its energy and forces, and the first line tells the memory
that took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from torch import Tensor

CUTOFF, ELEMENTS, NEIGHBORS, SEED, WARM_UP = 5.0, (1, 6, 8), 8.0, 7, 20


class Model(NamedTuple):
    """What a worker trains or predicts with.

    `load` makes the model's input of structures and counts its edges; `predict` gives energies [B] and forces [N, 3].
    """

    load: Callable[[list[Atoms]], tuple[Any, int]]
    predict: Callable[[Any], tuple[Tensor, Tensor]]
    parameters: list[torch.nn.Parameter]
    options: dict[str, Any]


def structures(count: int) -> list[Atoms]:
    """Ethanol, each copy displaced at random: 9 atoms, whose 72 directed pairs all lie within the cutoff."""
    rng = np.random.default_rng(SEED)
    copies = [molecule("CH3CH2OH") for _ in range(count)]
    for atoms in copies:
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    return copies


def training(model: Model, batch: int) -> Iterator[float]:
    """Losses of training steps, without end: forward, forces, loss, backward, Adam. Labels are random."""
    atoms = structures(batch)
    sizes = torch.tensor([len(a) for a in atoms])
    inputs, edges = model.load(atoms)
    if edges != 72 * batch:
        raise RuntimeError(f"{edges} edges in {batch} molecules instead of 72 in each")
    generator = torch.Generator().manual_seed(SEED)
    energies, forces = torch.randn(batch, generator=generator), torch.randn(int(sizes.sum()), 3, generator=generator)
    optimizer = torch.optim.Adam(model.parameters, lr=1e-3)
    while True:
        optimizer.zero_grad()
        energy, force = model.predict(inputs)
        loss = ((energy.float() - energies) / sizes).square().mean() + (force.float() - forces).square().mean()
        loss.backward()
        optimizer.step()
        yield loss.item()


def water(molecules: int) -> Atoms:
    """A periodic box of water of the density of the liquid: oxygens at random, no two closer than 2.6 Å."""
    rng, side = np.random.default_rng(SEED), (molecules / 0.0334) ** (1 / 3)
    oxygens = np.empty((0, 3))
    while len(oxygens) < molecules:
        trial = rng.uniform(0, side, 3)
        apart = (oxygens - trial + side / 2) % side - side / 2
        if (np.linalg.norm(apart, axis=1) > 2.6).all():
            oxygens = np.concatenate([oxygens, trial[None]])
    bonds = rng.normal(size=(molecules, 2, 3))
    hydrogens = oxygens[:, None] + 0.96 * bonds / np.linalg.norm(bonds, axis=2, keepdims=True)
    positions = np.concatenate([oxygens[:, None], hydrogens], axis=1).reshape(-1, 3)
    return Atoms("OH2" * molecules, positions, cell=side * np.eye(3), pbc=True)


def predicting(model: Model, molecules: int, about: dict[str, Any]) -> Iterator[None]:
    """Energies and forces of a box of water, without end; the first time `about` learns edges and MiB of memory."""
    for parameter in model.parameters:
        parameter.requires_grad_(False)
    model.predict(model.load([water(4)])[0])  # what libraries allocate once is none of the box's memory
    inputs, about["edges"] = model.load([water(molecules)])
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the peak, starts anew
    before = _resident("VmRSS")
    while True:
        energy, forces = model.predict(inputs)
        if not (torch.isfinite(energy).all() and torch.isfinite(forces).all()):
            raise RuntimeError("energies or forces are not finite")
        about.setdefault("MiB", _resident("VmHWM") - before)
        yield


def _resident(field: str) -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def serve(build: Callable[[dict[str, Any]], Model]) -> None:
    """Answer the driver until it closes the pipe. Whatever libraries print goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    settings = json.loads(sys.argv[1])
    model = build(settings)
    about: dict[str, Any] = {"options": model.options, "torch": torch.__version__}
    about["parameters"] = sum(p.numel() for p in model.parameters)
    steps: dict[int, Iterator[Any]]
    if settings.get("inference"):
        steps = {batch: predicting(model, batch, about) for batch in settings["batches"]}
        for endless in steps.values():
            next(endless), next(endless)
    else:
        steps = {batch: training(model, batch) for batch in settings["batches"]}
        _warm_up(steps)
    replies.write(json.dumps(about) + "\n")
    for line in sys.stdin:
        request = json.loads(line)
        times = [timed(steps[request["batch"]]) for _ in range(request["steps"])]
        cpu, wall = zip(*times, strict=True)
        replies.write(json.dumps({"cpu": cpu, "wall": wall}) + "\n")


def _warm_up(steps: dict[int, Iterator[float]]) -> None:
    for endless in steps.values():
        losses = [next(endless) for _ in range(WARM_UP)]
        if not losses[-1] < losses[0]:
            raise RuntimeError(f"the loss rose from {losses[0]} to {losses[-1]}")


def timed(steps: Iterator[Any]) -> tuple[float, float]:
    """Seconds of one step: of this process's processor time, and of the clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    next(steps)
    return time.process_time() - cpu, time.perf_counter() - wall
