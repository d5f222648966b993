"""How long runs will take, from how long finished ones took and how many FLOPs they all take."""

from __future__ import annotations

import math
from collections.abc import Mapping

from scisci.sweep.plan import Cell, Work

# Fixed costs of a step weigh more in small models, so time grows slower than FLOPs do.
TIME_EXPONENT = 0.5
STEEPEST = 1.5


class Forecast:
    """Predicted cost of a run, by cell: in seconds once any run was measured, in unknown units before that.

    A cell with finished runs is predicted by their mean. Another is scaled, step for step, from the measured cell of
    its entry nearest to it in FLOPs of a step, by the power of these that the two nearest show, or else by
    `TIME_EXPONENT`; an entry without any from the geometric mean over all measured cells. Where FLOPs were not counted
    (a plan of an earlier version), all models count as equally heavy until they are measured.
    """

    def __init__(self, work: Mapping[Cell, Work]) -> None:
        counted = all(math.isfinite(one.flops) for one in work.values())
        self._steps = {cell: one.steps for cell, one in work.items()}
        # what needs no products at all, such as a mean, still takes a moment
        self._flops = {cell: max(one.flops / one.steps, 1.0) if counted else 1.0 for cell, one in work.items()}
        self._measured: dict[Cell, tuple[int, float]] = {}

    @property
    def knows(self) -> bool:
        """Whether any run was measured."""
        return bool(self._measured)

    @property
    def measured(self) -> Mapping[Cell, int]:
        """How many finished runs were taken in, by cell."""
        return {cell: count for cell, (count, _) in self._measured.items()}

    def observe(self, cell: Cell, seconds: float) -> None:
        """Take in a finished run."""
        count, total = self._measured.get(cell, (0, 0.0))
        self._measured[cell] = (count + 1, total + seconds)

    def cost(self, cell: Cell) -> float:
        """Predicted cost of one run in the cell."""
        if cell in self._measured:
            return self._mean(cell)
        flops, steps = self._flops[cell], self._steps[cell]
        siblings = [known for known in self._measured if known.label == cell.label]
        if siblings:
            nearest, *others = sorted(siblings, key=lambda known: self._distance(known, cell))
            return steps * self._step(nearest) * (flops / self._flops[nearest]) ** self._exponent(nearest, others)
        logs = [math.log(self._step(known) / self._flops[known] ** TIME_EXPONENT) for known in self._measured]
        return steps * flops**TIME_EXPONENT * math.exp(sum(logs) / max(1, len(logs)))

    def _distance(self, one: Cell, other: Cell) -> tuple[float, float]:
        """How far apart two cells are in FLOPs of a step, then in steps."""
        return (
            abs(math.log(self._flops[one] / self._flops[other])),
            abs(math.log(self._steps[one] / self._steps[other])),
        )

    def _exponent(self, nearest: Cell, others: list[Cell]) -> float:
        """How the time of a step grows with its FLOPs between the two nearest models, held to what training can do."""
        for other in others:
            if ratio := math.log(self._flops[other] / self._flops[nearest]):
                return min(max(math.log(self._step(other) / self._step(nearest)) / ratio, 0.0), STEEPEST)
        return TIME_EXPONENT

    def _step(self, cell: Cell) -> float:
        return self._mean(cell) / self._steps[cell]

    def _mean(self, cell: Cell) -> float:
        count, total = self._measured[cell]
        return max(total / count, 1e-3)
