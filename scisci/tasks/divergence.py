"""Ends trainings that come to nothing: those far worse than a prediction that ignores its input."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from statistics import median
from typing import cast

import lightning as L
from lightning.pytorch.callbacks import Callback

from scisci.contracts.errors import UserError
from scisci.tasks.base import Task
from scisci.tasks.curve import Curve

# Early losses may be of any size: one pair of particles that are close is enough.
SETTLING = 0.2
SHARE_LOOKED_AT, LOSSES_AT_LEAST = 0.1, 10
# Of the steps, while the learning rate is still low, but of five at most.
SHARE_FIRST, FIRST_AT_MOST = 0.01, 5


class Divergence(Callback):
    """Ends a training as diverged whose loss is above `bound` times that of the best constant prediction.

    Validations look at the median loss of the last tenth of the steps, or of ten if these are more, once these are
    past the warm-up and the first fifth. What a constant reaches is measured by the same loss on the ID validation
    split (`Task.constant`, `Task.relative_loss`). A model that began worse than a constant, and may be on its way down,
    is held against its first losses instead. All processes see the same numbers, and end together.
    The bound `None` never ends a training.
    """

    def __init__(self, curve: Curve, bound: float | None) -> None:
        if bound is not None and not bound > 1:
            raise UserError(f"divergence_bound is {bound}, but must be above 1; give null for none")
        self._curve, self._bound = curve, bound

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the training if it has to be."""
        task, steps = cast(Task, pl_module), trainer.estimated_stepping_batches
        count = max(LOSSES_AT_LEAST, int(SHARE_LOOKED_AT * steps))
        since = max(SETTLING, task.hparams["warmup"]) * steps + count
        if self._bound is None or task.constant_loss is None or self._curve.steps < since:
            return
        first = self._median(self._curve.rows, max(1, min(FIRST_AT_MOST, int(SHARE_FIRST * steps))))
        loss = self._median(reversed(self._curve.rows), count)
        if task.relative_loss(loss, max(first, task.constant_loss)) > self._bound:
            task.diverged = (
                f"the loss rose from {first:.4g} to {loss:.4g} at step {self._curve.steps}, and a constant prediction"
                f" has {task.constant_loss:.4g}"
            )
            trainer.should_stop = True

    @staticmethod
    def _median(rows: Iterable[dict[str, float]], count: int) -> float:
        return median(float(loss) for loss in islice((row["train/loss"] for row in rows if "train/loss" in row), count))
