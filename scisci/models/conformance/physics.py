"""What a potential must satisfy whatever its symmetry: forces, smoothness, locality, periodicity."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scisci.models.conformance.subject import Outcome, Subject
from scisci.models.conformance.systems import CUTOFF, batch_of, crystal, molecules, moved
from scisci.models.potential import Potential


def _derivative(step: float, value: list[Tensor]) -> Tensor:
    """Fourth-order central difference from the values at -2, -1, 1 and 2 steps."""
    return (8 * (value[2] - value[1]) - (value[3] - value[0])) / (12 * step)


def gradient(subject: Subject) -> list[Outcome]:
    """Forces are minus the gradient of the energy, by finite differences along a random direction."""
    if subject.forces == "direct":
        return []
    rng = np.random.default_rng(0)
    model, batch, step = subject.potential(), molecules(rng), 1e-4
    direction = torch.from_numpy(rng.normal(size=batch.pos.shape))
    energies = [model(moved(batch, batch.pos + k * step * direction))["interaction"] for k in (-2, -1, 1, 2)]
    slope = _derivative(step, energies)
    work = torch.zeros_like(slope).index_add(0, batch.batch, (model(batch)["forces"] * direction).sum(1))
    return [Outcome("force against finite differences", float((work + slope).norm() / slope.norm()), 1e-7)]


def stress(subject: Subject) -> list[Outcome]:
    """Stress is the derivative of the energy by strain over the volume, by finite differences."""
    if subject.forces == "direct":
        return []
    rng = np.random.default_rng(2)
    numbers, positions, cell = crystal(rng)
    model, batch, step = subject.potential(), batch_of((numbers, positions), cell=cell), 1e-4
    strain = rng.normal(size=(3, 3))
    direction = torch.from_numpy(strain + strain.T)
    energies = []
    for k in (-2, -1, 1, 2):
        by = torch.eye(3, dtype=torch.float64) + k * step * direction
        energies.append(model(moved(batch, batch.pos @ by, batch.edge_shift @ by))["interaction"])
    slope = _derivative(step, energies)
    found = (model(batch)["stress"] * direction).sum((1, 2)) * torch.linalg.det(batch.cell).abs()
    return [Outcome("stress against finite differences", float((found - slope).norm() / slope.norm()), 1e-7)]


def cutoff(subject: Subject) -> list[Outcome]:
    """Energy, slope and curvature are continuous where an atom crosses the cutoff."""
    if subject.forces == "direct":
        return []
    model = subject.potential()

    def energy(distance: float) -> float:
        system = [6, 8, 1], [[0, 0, 0], [0, 0, distance], [1.0, 0.2, 0.1]]
        return float(model(batch_of(system))["interaction"])

    def curvature(step: float) -> float:
        return abs(energy(CUTOFF - 2 * step) - 2 * energy(CUTOFF - step) + energy(CUTOFF)) / step**2

    scale, step = abs(energy(2.0) - energy(CUTOFF + 0.5)), 2e-3
    beyond, at, inside = energy(CUTOFF + step), energy(CUTOFF), energy(CUTOFF - 1e-4)
    # Below 1e-9 of the scale there is no curvature to speak of, only rounding.
    left = curvature(step / 2) / max(curvature(step), 1e-9 * scale)
    return [
        Outcome("jump at the cutoff", abs(at - beyond) / scale, 1e-10),
        Outcome("slope at the cutoff, Å⁻¹", abs(inside - beyond) / 1e-4 / scale, 1e-3),
        # A curvature that jumps to zero there stays as it is when the step is halved; a continuous one falls with it.
        Outcome("share of curvature left at half the step", left, 0.7),
    ]


def batching(subject: Subject) -> list[Outcome]:
    """A system alone gives what it gives within a batch."""
    model, batch = subject.potential(), molecules(np.random.default_rng(3))
    together, worst = model(batch), 0.0
    for k in range(batch.num_graphs):
        alone = model(type(batch).from_data_list([batch[k]]))
        rows = slice(int(batch.ptr[k]), int(batch.ptr[k + 1]))
        worst = max(worst, _difference(alone["forces"], together["forces"][rows]))
        worst = max(worst, _difference(alone["interaction"], together["interaction"][k : k + 1]))
    return [Outcome("alone against batched", worst, 1e-10)]


def separation(subject: Subject) -> list[Outcome]:
    """The energy of parts far from each other is the sum of theirs."""
    rng, model = np.random.default_rng(4), subject.potential()
    water = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    a, b = (water + rng.normal(scale=0.05, size=(3, 3)) for _ in range(2))
    both = model(batch_of(([8, 1, 1] * 2, np.concatenate([a, b + np.array([50.0, 0, 0])]))))["interaction"][0]
    parts = sum(model(batch_of(([8, 1, 1], part)))["interaction"][0] for part in (a, b))
    return [Outcome("sum of distant parts", _difference(both, torch.as_tensor(parts)), 1e-10)]


def periodicity(subject: Subject) -> list[Outcome]:
    """Atoms moved by lattice vectors, and the cell taken twice, are the same crystal."""
    rng, model = np.random.default_rng(5), subject.potential()
    numbers, positions, cell = crystal(rng)
    one = model(batch_of((numbers, positions), cell=cell))
    wrapped = positions + np.array([[1, 0, -2], [0, 3, 0], [0, 0, 1]]) @ cell
    images = model(batch_of((numbers, wrapped), cell=cell))
    twice = np.concatenate([positions, positions + cell[0]])
    two = model(batch_of((np.tile(numbers, 2), twice), cell=cell * np.array([[2.0], [1.0], [1.0]])))
    found = [
        Outcome("energy of images", _difference(images["interaction"], one["interaction"]), 1e-9),
        Outcome("energy of the double cell", _difference(two["interaction"], 2 * one["interaction"]), 1e-9),
        Outcome("forces of the double cell", _difference(two["forces"][:3], one["forces"]), 1e-8),
    ]
    if "stress" in one:
        found.append(Outcome("stress of the double cell", _difference(two["stress"], one["stress"]), 1e-8))
    return found


def degenerate(subject: Subject) -> list[Outcome]:
    """One atom, symmetric and collinear structures: finite outputs and gradients, through forces too."""
    model = subject.potential().train()
    square = [6] * 4, [[0, 0, 0], [1.5, 0, 0], [1.5, 1.5, 0], [0, 1.5, 0]]
    line = [1, 6, 6, 1], [[0, 0, -1.66], [0, 0, -0.6], [0, 0, 0.6], [0, 0, 1.66]]
    tetrahedron = [6, 1, 1, 1, 1], 0.63 * np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    outputs = model(batch_of(([8], [[0.0, 0, 0]]), square, line, tetrahedron))
    (outputs["forces"].square().sum() + outputs["interaction"].sum()).backward()
    broken = sum(int((~torch.isfinite(v)).sum()) for v in outputs.values())
    found = [
        Outcome("outputs that are not finite", broken, 0),
        Outcome("gradients that are not finite", _not_finite(model), 0),
    ]
    model.zero_grad()
    alone = model(batch_of(([8], [[0.0, 0, 0]])))
    alone["interaction"].sum().backward()
    found.append(Outcome("gradients of one atom alone that are not finite", _not_finite(model), 0))
    if subject.forces == "gradient":
        found.append(Outcome("force on one atom alone", float(alone["forces"].detach().abs().max()), 0))
    return found


def _not_finite(model: Potential) -> int:
    return sum(int((~torch.isfinite(p.grad)).sum()) for p in model.parameters() if p.grad is not None)


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
