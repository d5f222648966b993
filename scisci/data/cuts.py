"""Splits by severity: what lies within a level of every shift is in distribution, what lies beyond one is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scisci.contracts.errors import UserError
from scisci.data.shifts import SHIFTS, Setting, measure, shift_named
from scisci.data.splits import Part, Plan


@dataclass(frozen=True)
class Cut:
    """One shift with its severity [n] of every sample; samples up to `levels[0]` are in distribution.

    Those beyond it are one OOD split per level, the last without an upper end.
    """

    name: str
    values: np.ndarray
    levels: tuple[float, ...]
    text: str
    unit: str
    column: str | None
    """metadata column with `values`; `None` if they grade nothing"""

    @property
    def step(self) -> np.ndarray:
        """[n] how many levels each sample is beyond."""
        return np.searchsorted(self.levels, self.values, side="left")

    def range(self, step: int) -> str:
        """Which severities are `step` levels beyond, in words."""
        above = f" above {self.levels[step - 1]:.6g}" if step else ""
        below = f" up to {self.levels[step]:.6g}" if step < len(self.levels) else ""
        return f"{self.name}{above}{below}{' ' if self.unit else ''}{self.unit}"

    def part(self, step: int, indices: np.ndarray) -> Part:
        """The samples at `indices`, which are `step` levels beyond."""
        severity = float(self.values[indices].mean()) if self.column and len(indices) else None
        shift = f"{'' if step else 'none: '}{self.range(step)} ({self.text})"
        return Part(indices, shift, severity, self.column)


def cut(setting: Setting, name: str, levels: Sequence[str]) -> Cut:
    """Measure a shift over the whole store and resolve its levels: values ("2.5"), or shares of the samples ("90%").

    Without levels, the shift's own. A shift of the registry has the column `severity_<name>`.
    """
    shift = shift_named(name, setting.store)
    values = measure(setting, name)
    if not np.isfinite(values).all():
        raise UserError(
            f"{name!r} is not finite for sample {int(np.argmin(np.isfinite(values)))}; choose another shift"
        )
    resolved = sorted(_level(entry, values) for entry in levels or [shift.level])
    if len(set(resolved)) < len(resolved):
        raise UserError(f"two of the levels {resolved} of {name!r} are the same; leave one of them out")
    column = f"severity_{name}" if name in SHIFTS else name
    return Cut(name, values, tuple(resolved), shift.text, shift.unit, column if shift.graded else None)


def _level(entry: str, values: np.ndarray) -> float:
    try:
        share = float(entry[:-1]) / 100 if entry.endswith("%") else None
        if share is None:
            return float(entry)
    except ValueError as error:
        raise UserError(f"level {entry!r} is not understood; write a number, or a share such as 90%") from error
    if not 0 < share < 1:
        raise UserError(f"level {entry} is not possible; give a share above 0% and below 100%")
    return float(np.quantile(values, share, method="lower"))


def cut_splits(cuts: Sequence[Cut], seed: int = 0) -> Plan:
    """`train`: all samples in distribution for every cut; `ood_<shift>[_<level>]`: those beyond one cut alone.

    What is beyond several cuts is `ood_both` (of two) or `ood_several`, without a severity. Every sample is in exactly
    one split, in random order.
    """
    steps = np.stack([one.step for one in cuts])
    order = np.random.default_rng([seed, 2]).permutation(steps.shape[1])
    beyond = (steps > 0).sum(axis=0)[order]
    inside = order[beyond == 0]
    ranges = ", ".join(one.range(0) for one in cuts)
    parts = {"train": cuts[0].part(0, inside) if len(cuts) == 1 else Part(inside, f"none: {ranges}")}
    for own, one in zip(steps, cuts, strict=True):
        for step in range(1, len(one.levels) + 1):
            name = f"ood_{one.name}" + (f"_{step}" if len(one.levels) > 1 else "")
            parts[name] = one.part(step, order[(own[order] == step) & (beyond == 1)])
    if (beyond > 1).any():
        together = "both" if len(cuts) == 2 else "several"
        parts[f"ood_{together}"] = Part(order[beyond > 1], f"beyond {together} of: {ranges}")
    if empty := [name for name, part in parts.items() if not len(part.indices)]:
        ends = ", ".join(f"{one.name} from {one.values.min():.4g} to {one.values.max():.4g}" for one in cuts)
        raise UserError(f"no sample is left for the split {empty[0]!r} (the store has {ends}); give other levels")
    return Plan(parts, {one.column: one.values for one in cuts if one.column})
