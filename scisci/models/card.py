"""What is measured of an architecture: parameters, FLOPs per atom or node, symmetry errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scisci.models import registry
from scisci.models.conformance.subject import PARAMETER, Subject
from scisci.models.conformance.systems import batch_of
from scisci.models.flops import forward_flops, step_flops
from scisci.models.potential import Potential, parameter_counts
from scisci.symmetry.actions import ACTIONS
from scisci.symmetry.measure import POTENTIAL, as_dtype, symmetry_errors


@dataclass(frozen=True)
class SizeRow:
    """One size: trainable parameters, and FLOPs per atom of ethanol, or per node or window of what else it is for.

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
    rows = []
    for size in registry.get(name).SIZES:
        options = registry.options(name, size)
        model, batch = Subject(registry.get(name), options).example(np.random.default_rng(0))
        if isinstance(model, Potential):
            batch = batch_of(*[(ethanol.numbers, ethanol.positions)] * 2)
        flops = (count(model, batch) / len(batch.batch) for count in (forward_flops, step_flops))
        rows.append(SizeRow(size, options, parameter_counts(model)[0], *flops))
    return rows


def measure_symmetry(name: str) -> dict[str, tuple[str, float, float]]:
    """By symmetry group: the claim, and the error of the smallest size in float32 and in float64.

    The larger one of energy and forces, or of what else the architecture is for that of a parameter. Nodes of trees can
    only be permuted.
    """
    cls = registry.get(name)
    model, batch = Subject(cls, registry.options(name, next(iter(cls.SIZES)))).example(np.random.default_rng(0))
    quantities = POTENTIAL if isinstance(model, Potential) else {PARAMETER.name: PARAMETER.name}
    groups = [group for group in cls.symmetry if group in ACTIONS and ACTIONS[group].obstacle(batch) is None]
    if not groups:
        return {}
    errors = []
    for dtype in (torch.float32, torch.float64):
        cast, few = as_dtype(model, batch, dtype)
        with torch.no_grad():
            found = symmetry_errors(cast, [few], groups=groups, quantities=quantities)
        errors.append({g: max(found[f"symmetry_{g}_{q}"].value for q in quantities) for g in groups})
    return {group: (cls.symmetry[group], errors[0][group], errors[1][group]) for group in groups}
