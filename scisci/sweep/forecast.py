"""How long runs will take, from how long finished ones took."""

from __future__ import annotations

import math
from collections.abc import Iterable

from scisci.sweep.plan import Cell

# Fixed costs per step weigh more in small models, so time grows slower than parameters do.
TIME_EXPONENT = 0.5
STEEPEST = 1.5
STEP_OF_UNNAMED_SIZES = 4.0


def nominal_size(size: str) -> float:
    """The number a size's name states ("3k" → 3,000, "1.2M" → 1,200,000); NaN where it states none."""
    units = {"k": 1e3, "m": 1e6, "b": 1e9}
    text = size.strip().lower()
    unit = units.get(text[-1:], 1.0)
    try:
        number = float(text[:-1] if unit > 1 else text) * unit
    except ValueError:
        return math.nan
    return number if 0 < number < math.inf else math.nan


class Forecast:
    """Predicted cost of a run, by cell: in seconds once any run was measured, in unknown units before that.

    A cell with finished runs is predicted by their mean. Another is scaled from the nearest measured size of
    its entry by the power of the size that its two nearest show, or else by `TIME_EXPONENT`; an entry without any
    from the geometric mean over all measured cells. A size whose name states no number counts as
    `STEP_OF_UNNAMED_SIZES` times the one listed before it.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._measured: dict[Cell, tuple[int, float]] = {}
        self._nominal: dict[Cell, float] = {}
        label, size = None, 1.0
        for cell in cells:
            unnamed = size * STEP_OF_UNNAMED_SIZES if cell.label == label else 1.0
            stated = nominal_size(cell.size)
            label, size = cell.label, unnamed if math.isnan(stated) else stated
            self._nominal[cell] = size

    @property
    def knows(self) -> bool:
        """Whether any run was measured."""
        return bool(self._measured)

    def observe(self, cell: Cell, seconds: float) -> None:
        """Take in a finished run."""
        count, total = self._measured.get(cell, (0, 0.0))
        self._measured[cell] = (count + 1, total + seconds)

    def cost(self, cell: Cell) -> float:
        """Predicted cost of one run in the cell."""
        if cell in self._measured:
            return self._mean(cell)
        nominal = self._nominal[cell]
        siblings = [known for known in self._measured if known.label == cell.label]
        if siblings:
            nearest, *others = sorted(siblings, key=lambda known: abs(math.log(self._nominal[known] / nominal)))
            return self._mean(nearest) * (nominal / self._nominal[nearest]) ** self._exponent(nearest, others)
        logs = [math.log(self._mean(known) / self._nominal[known] ** TIME_EXPONENT) for known in self._measured]
        return nominal**TIME_EXPONENT * math.exp(sum(logs) / max(1, len(logs)))

    def _exponent(self, nearest: Cell, others: list[Cell]) -> float:
        """How time grows with size between the two nearest sizes, held to what training can do."""
        for other in others:
            if ratio := math.log(self._nominal[other] / self._nominal[nearest]):
                return min(max(math.log(self._mean(other) / self._mean(nearest)) / ratio, 0.0), STEEPEST)
        return TIME_EXPONENT

    def _mean(self, cell: Cell) -> float:
        count, total = self._measured[cell]
        return max(total / count, 1e-3)
