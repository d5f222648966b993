"""Errors of a model, accumulated over batches into estimates with standard errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scisci.contracts.run import MetricValue

MILLI = 1000.0
# Outputs and batch → per-sample (numerator, weight) of each metric.
SampleErrors = Callable[[dict[str, Tensor], Any], dict[str, tuple[Tensor, Tensor]]]


def ratio_estimate(numerators: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> MetricValue:
    """The weighted mean sum(numerators) / sum(weights) over n samples, with standard errors.

    `numerators` and `weights` [n] are per-sample sums (of errors, and of what they are averaged over). The standard
    errors are the linearised ones of a ratio (Cochran, "Sampling techniques", eq. 6.13), over samples and, with
    whole groups as the sampling units, over groups.
    """
    total = weights.sum()
    value = numerators.sum() / total
    residuals = numerators - value * weights

    def error(parts: np.ndarray) -> float | None:
        n = len(parts)
        return float(np.sqrt(n / (n - 1) * np.square(parts).sum()) / total) if n > 1 else None

    by_group = np.bincount(np.unique(groups, return_inverse=True)[1], weights=residuals)
    return MetricValue(value=float(value), se=error(residuals), se_groups=error(by_group), n=len(numerators))


def _per_system(values: Tensor, batch: Any) -> Tensor:
    return values.new_zeros(batch.num_graphs).index_add(0, batch.batch, values)


def potential_errors(outputs: dict[str, Tensor], batch: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Per-sample (numerator, weight) of `energy_mae` meV/atom, `force_mae` meV/Å, `force_cosine`.

    Where the data have stress and the model gives it, also `stress_mae` meV/Å³ of systems periodic in all directions.
    """
    atoms = (batch.ptr[1:] - batch.ptr[:-1]).double()
    energy = (outputs["energy"] - batch.energy).abs() / atoms * MILLI
    predicted, true = outputs["forces"].double(), batch.forces.double()
    force = _per_system((predicted - true).abs().sum(dim=1), batch) * MILLI
    cosine = _per_system(torch.nn.functional.cosine_similarity(predicted, true, dim=1, eps=1e-12), batch)
    errors = {
        "energy_mae": (energy, torch.ones_like(energy)),
        "force_mae": (force, 3 * atoms),
        "force_cosine": (cosine, atoms),
    }
    if "stress" in batch and "stress" in outputs:
        missed = (outputs["stress"].double() - batch.stress.double()).abs().sum(dim=(1, 2)) * MILLI
        has_stress = torch.isfinite(missed)
        errors["stress_mae"] = (torch.where(has_stress, missed, 0.0), 9 * has_stress.double())
    return errors


def particle_errors(outputs: dict[str, Tensor], batch: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Per-sample (numerator, weight) of `position_mse`."""
    particles = (batch.ptr[1:] - batch.ptr[:-1]).double()
    missed = outputs["displacement"].double() - (batch.target_positions.double() - batch.pos.double())
    return {"position_mse": (_per_system(missed.square().sum(dim=1), batch), 3 * particles)}


class Accumulator:
    """Collects per-sample errors of one split, batch by batch."""

    def __init__(self, errors: SampleErrors) -> None:
        self._errors = errors
        self._parts: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self._groups: list[Tensor] = []

    def update(self, outputs: dict[str, Tensor], batch: Any) -> None:
        """Add a batch."""
        for name, parts in self._errors(outputs, batch).items():
            self._parts[name].append((parts[0].detach().cpu(), parts[1].cpu()))
        self._groups.append(batch.group.cpu())

    def compute(self) -> dict[str, MetricValue]:
        """The estimate of each metric over all samples so far."""
        groups = torch.cat(self._groups).numpy()
        estimates = {}
        for name, parts in self._parts.items():
            numerators, weights = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
            estimates[name] = ratio_estimate(numerators, weights, groups)
        return estimates
