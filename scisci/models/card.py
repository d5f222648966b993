"""What is measured of an architecture: parameters, FLOPs per atom, symmetry errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scisci.models import registry
from scisci.models.conformance.subject import Subject
from scisci.models.conformance.systems import batch_of, molecules
from scisci.models.flops import energy_flops, step_flops
from scisci.models.potential import parameter_counts
from scisci.symmetry.measure import as_dtype, symmetry_errors


@dataclass(frozen=True)
class SizeRow:
    """One size: trainable parameters, and FLOPs per atom of ethanol.

    `forward` is of the energy alone, `training` of a step on energies and gradient forces; see `scisci.models.flops`.
    """

    size: str
    options: dict[str, Any]
    parameters: int
    forward: float
    training: float


def measure_sizes(name: str) -> list[SizeRow]:
    """Every size of an architecture, measured."""
    from ase.build import molecule

    ethanol = molecule("CH3CH2OH")
    batch = batch_of(*[(ethanol.numbers, ethanol.positions)] * 2)
    rows = []
    for size in registry.get(name).SIZES:
        options = registry.options(name, size)
        model = Subject(registry.get(name), options).potential()
        atoms = len(batch.pos)
        flops = energy_flops(model, batch) / atoms, step_flops(model, batch) / atoms
        rows.append(SizeRow(size, options, parameter_counts(model)[0], *flops))
    return rows


def measure_symmetry(name: str) -> dict[str, tuple[str, float, float]]:
    """By symmetry group: the claim, and the error of the smallest size in float32 and in float64."""
    cls = registry.get(name)
    model = Subject(cls, registry.options(name, next(iter(cls.SIZES)))).potential()
    batch = molecules(np.random.default_rng(0))
    errors = []
    for dtype in (torch.float32, torch.float64):
        cast, few = as_dtype(model, batch, dtype)
        found = symmetry_errors(cast, [few])
        errors.append({g: max(found[f"symmetry_{g}_{q}"].value for q in ("energy", "forces")) for g in cls.symmetry})
    return {group: (claim, errors[0][group], errors[1][group]) for group, claim in cls.symmetry.items()}
