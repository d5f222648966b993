"""Symmetry as a measured quantity: how far f(g x) is from g f(x)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scisci.contracts.run import MetricValue
from scisci.data.batch import PER_POINT, PER_SYSTEM
from scisci.symmetry.actions import ACTIONS, act

Model = Callable[[Any], dict[str, Tensor]]
# Quantity → the output that is compared. Energies are without their element references, and positions without where
# the points were, whose size would hide any error.
POTENTIAL = {"energy": "interaction", "forces": "forces"}
PARTICLES = {"positions": "displacement"}


def as_dtype(model: nn.Module, batch: Any, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """Copies of a model and a batch whose floating-point parameters and fields have `dtype`."""
    cast = copy.copy(batch)
    for name in ("edge_shift", *PER_POINT, *PER_SYSTEM):
        if name in batch and batch[name].is_floating_point():
            cast[name] = batch[name].to(dtype)
    return copy.deepcopy(model).to(dtype), cast


def _squares(values: Tensor, batch: Any) -> Tensor:
    """[B] sum of squares over each system's points and components."""
    rows = values.double().reshape(len(values), -1).square().sum(dim=1)
    if len(rows) == batch.num_graphs:
        return rows
    return rows.new_zeros(batch.num_graphs).index_add(0, batch.batch, rows)


def relative_rms(errors: np.ndarray, signals: np.ndarray) -> MetricValue:
    """sqrt(sum of squared errors / sum of squared signals), with its jackknife standard error over samples.

    `errors` and `signals` [n] are sums of squares per sample.
    """
    n, total_error, total_signal = len(errors), errors.sum(), signals.sum()
    if total_signal == 0:
        return MetricValue(value=0.0 if total_error == 0 else float("inf"), n=n)
    value = float(np.sqrt(total_error / total_signal))
    if n < 2:
        return MetricValue(value=value, n=n)
    rest = np.maximum(total_signal - signals, np.finfo(float).tiny)
    left_out = np.sqrt(np.maximum(total_error - errors, 0.0) / rest)
    se = float(np.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum()))
    return MetricValue(value=value, se=se, n=n)


def symmetry_errors(
    model: Model,
    batches: Iterable[Any],
    seed: int = 0,
    groups: Iterable[str] = tuple(ACTIONS),
    quantities: Mapping[str, str] = POTENTIAL,
) -> dict[str, MetricValue]:
    """Equivariance errors of a model's outputs, by metric name (`symmetry_rotation_forces`, …).

    Each system is acted on by one random element of each group. The error is the rms over systems of
    f(g x) - g f(x), relative to the rms of f(x). `quantities` maps the names that metrics use to the model's outputs,
    [B] or [N, 3].
    """
    groups = tuple(groups)
    rng = np.random.default_rng(seed)
    errors: dict[tuple[str, str], list[Tensor]] = {(g, q): [] for g in groups for q in quantities}
    signals: dict[str, list[Tensor]] = {q: [] for q in quantities}
    for batch in batches:
        plain = model(batch)
        for quantity, key in quantities.items():
            signals[quantity].append(_squares(plain[key], batch))
        for group in groups:
            acted, undo = act(group, batch, rng)
            back = undo(model(acted))
            for quantity, key in quantities.items():
                errors[group, quantity].append(_squares(back[key] - plain[key], batch))
    return {
        f"symmetry_{group}_{quantity}": relative_rms(
            torch.cat(values).cpu().numpy(), torch.cat(signals[quantity]).cpu().numpy()
        )
        for (group, quantity), values in errors.items()
    }
