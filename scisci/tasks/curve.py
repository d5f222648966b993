"""What a training leaves of its way: losses and validation metrics by step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch.callbacks import Callback

from scisci.contracts.files import atomic_path
from scisci.tasks.sharing import Sharing, either


class Curve(Callback):
    """Keeps the training loss per step and the validation metrics, for `curve.parquet`, across interruptions.

    It also has the clock, and watches whether the device was shared. The loss of a step is the mean over all its
    samples, whichever process they were in and however many batches.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._losses: list[torch.Tensor] = []
        self._earlier_seconds, self._start = 0.0, time.perf_counter()
        self._earlier_shared: bool | None = False
        self._sharing: Sharing | None = None

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self.rows[-1]["step"] if self.rows else 0

    @property
    def seconds(self) -> float:
        """Wall seconds of training, those before an interruption included."""
        return self._earlier_seconds + time.perf_counter() - self._start

    @property
    def shared(self) -> bool | None:
        """Whether other processes used the device so far, also before an interruption; None where not known."""
        return either(self._earlier_shared, None if self._sharing is None else self._sharing.shared)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()
        self._sharing = Sharing(trainer.strategy.root_device, trainer.world_size)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        """A row per step; the loss stays a tensor until the end so that no device waits for it."""
        if outputs and "whole" in outputs:
            self._losses.append(outputs["whole"])
            if trainer.global_step > self.steps:
                self.rows.append({"step": trainer.global_step, "train/loss": torch.stack(self._losses).mean()})
                self._losses = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A row per validation."""
        logged = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self.rows.append({"step": self.steps, **logged})
        if self._sharing is not None:
            self._sharing.look()

    def state_dict(self) -> dict[str, Any]:
        """Rows and seconds so far, as plain types."""
        self.rows = [{name: v if name == "step" else float(v) for name, v in row.items()} for row in self.rows]
        return {"rows": self.rows, "seconds": self.seconds, "shared": self.shared}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from an earlier part of the same training."""
        self.rows, self._earlier_seconds = list(state_dict["rows"]), state_dict["seconds"]
        self._earlier_shared = state_dict.get("shared")

    def write(self, path: Path) -> None:
        """Write all rows."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        columns = {n: [None if (v := row.get(n)) is None else float(v) for row in self.rows] for n in names}
        with atomic_path(path) as temporary:
            pq.write_table(pa.table(columns), temporary)
