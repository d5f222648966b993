"""Symmetry as a measured quantity: how far f(g x) is from g f(x)."""

from __future__ import annotations

import copy
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scisci.contracts.run import MetricValue
from scisci.data.batch import PER_POINT, PER_SYSTEM
from scisci.symmetry.actions import ACTIONS, Outputs, apply
from scisci.symmetry.groups import Element, Group, require

Model = Callable[[Any], Outputs]
# Quantity → the output that is compared. Energies are without their element references, and positions without where
# the points were, whose size would hide any error.
POTENTIAL = {"energy": "interaction", "forces": "forces"}
PARTICLES = {"positions": "displacement"}


@dataclass(frozen=True)
class Errors:
    """What was found for one quantity under one group, on n samples by K elements each.

    `squares` [n, K]: |g⁻¹ f(g x) - f(x)|², summed over the entries of f(x), as are `signals` [n]: |f(x)|², and
    `missed` [n]: |f(x) - label|²; `entries` [n] says how many they are. `samples` [n]: which samples, counted through
    all batches; `groups` [n]: of which molecule or simulation; `matrices` [n, K, 3, 3] and `shifts` [n, K, 3]: the
    elements, where they act on space.
    """

    squares: np.ndarray
    signals: np.ndarray
    entries: np.ndarray
    samples: np.ndarray
    groups: np.ndarray
    matrices: np.ndarray | None = None
    shifts: np.ndarray | None = None
    missed: np.ndarray | None = None


def as_dtype(model: nn.Module, batch: Any, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """Copies of a model and a batch whose floating-point parameters and fields have `dtype`."""
    return copy.deepcopy(model).to(dtype), batch_as(batch, dtype)


def batch_as(batch: Any, dtype: torch.dtype) -> Any:
    """A copy of a batch whose floating-point fields have `dtype`."""
    cast = copy.copy(batch)
    for name in ("edge_shift", "past", "future", *PER_POINT, *PER_SYSTEM):
        if name in batch and batch[name].is_floating_point():
            cast[name] = batch[name].to(dtype)
    return cast


def _sums(values: Tensor, batch: Any) -> Tensor:
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


def _drawn(group: Group, batch: Any, count: int, rng: np.random.Generator) -> list[Element]:
    return [group.draw(batch, rng) for _ in range(count)] if group.elements is None else list(group.every(batch))


def _compared(plain: Tensor, backs: list[Tensor], missed: Tensor | None, batch: Any) -> dict[str, Tensor]:
    sums = {
        "squares": torch.stack([_sums(back - plain, batch) for back in backs], dim=1),
        "signals": _sums(plain, batch),
        "entries": _sums(torch.ones_like(plain), batch),
    }
    return sums if missed is None else sums | {"missed": _sums(missed, batch)}


def measure(
    model: Model,
    batches: Iterable[Any],
    groups: Iterable[str] = tuple(ACTIONS),
    quantities: Mapping[str, str] = POTENTIAL,
    elements: int = 1,
    seed: int = 0,
    missed: Callable[[Outputs, Any], Outputs] | None = None,
) -> dict[tuple[str, str], Errors]:
    """Errors by (group, quantity): each system under `elements` random elements, or all of a finite group.

    `quantities` maps names to the model's outputs ([B], [N], [N, 3] or [B, 3, 3]), of which the model may lack some;
    `missed` gives, for those that have labels, by how much the outputs miss them. A group's draws depend on the seed
    and its own name alone. A group that cannot act on a batch is a `UserError`.
    """
    streams = {group: np.random.default_rng([seed, zlib.crc32(group.encode())]) for group in groups}
    parts: dict[tuple[str, str], list[dict[str, Tensor]]] = defaultdict(list)
    start = 0
    for batch in batches:
        plain = model(batch)
        off = {} if missed is None else missed(plain, batch)
        for group, rng in streams.items():
            drawn = _drawn(require(group, batch), batch, elements, rng)
            backs = [undo(model(acted)) for acted, undo in (apply(element, batch) for element in drawn)]
            acting = {
                "samples": torch.arange(start, start + batch.num_graphs, device=batch.batch.device),
                "groups": batch.group,
                "matrices": torch.stack([element.matrices for element in drawn], dim=1),
                "shifts": torch.stack([element.shifts for element in drawn], dim=1),
            }
            for quantity, key in quantities.items():
                if key in plain:
                    found = _compared(plain[key], [back[key] for back in backs], off.get(quantity), batch) | acting
                    # Only what is periodic in all three directions has a stress.
                    kept = batch.pbc.all(dim=1) if plain[key].dim() == 3 else slice(None)
                    parts[group, quantity].append({name: values[kept] for name, values in found.items()})
        start += batch.num_graphs
    gathered = {
        name: {column: torch.cat([part[column] for part in found]).cpu().numpy() for column in found[0]}
        for name, found in parts.items()
    }
    return {name: Errors(**columns) for name, columns in gathered.items() if len(columns["samples"])}


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
    return {
        f"symmetry_{group}_{quantity}": relative_rms(errors.squares.mean(axis=1), errors.signals)
        for (group, quantity), errors in measure(model, batches, groups, quantities, seed=seed).items()
    }
