"""Run directories of `scisci fit`: each new, made once training is about to begin, with checkpoints and logs in it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from scisci.contracts.errors import UserError
from scisci.tasks.loggers import Tracker, trackers


def new_run_folder(root: Path, name: str) -> Path:
    """Create and return a folder that did not exist: `<root>/<name>-<time>`, numbered if need be."""
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count():
        folder = root / (f"{stem}-{number}" if number else stem)
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            if not root.is_dir():
                raise UserError(f"--runs {root} is not a folder; choose another place") from error
            continue
        except OSError as error:
            raise UserError(
                f"cannot make a run directory in {root} ({error.strerror}); choose another place"
            ) from error
        return folder
    raise AssertionError("unreachable")


class RunDirectory(Callback):
    """Has the first process make the run directory as soon as all processes know of each other, and tells the others.

    Checkpoints and logs go there; the last checkpoint is that of the end, since a validation may lie well before it.
    The logs are a CSV file, and whatever `loggers` name besides.
    """

    def __init__(
        self, make: Callable[[], Path], checkpoints: list[ModelCheckpoint], loggers: Sequence[Namespace]
    ) -> None:
        self._make, self._checkpoints, self._named = make, checkpoints, loggers
        self._trackers: list[Tracker] = []
        self.path = Path()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make it."""
        if stage != "fit":
            return
        self.path = trainer.strategy.broadcast(self._make() if trainer.is_global_zero else self.path)
        for checkpoint in self._checkpoints:
            checkpoint.dirpath = str(self.path / "checkpoints")
        if trainer.is_global_zero:
            self._trackers = trackers(self._named, self.path, "scisci", self.path.name)
        trainer.loggers = [CSVLogger(self.path, name="log"), *self._trackers]

    @property
    def last(self) -> Path:
        """The last checkpoint."""
        return self.path / "checkpoints" / "last.ckpt"

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the final weights, from which a finished run can be trained longer."""
        trainer.save_checkpoint(self.last)

    def close(self) -> None:
        """Have all logs written, once the trained model is measured."""
        for tracker in self._trackers:
            tracker.close()
