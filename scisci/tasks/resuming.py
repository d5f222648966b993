"""What a run of a sweep goes on from that was interrupted, in one file that is whole or not there."""

from __future__ import annotations

import os
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from scisci.contracts.errors import UserError
from scisci.contracts.files import atomic_path
from scisci.tasks.checkpoints import read_checkpoint
from scisci.tasks.curve import Curve

VERSION = 1
# Tiny runs, which begin anew faster than that, never write one.
KEEP_SECONDS = 300.0
RESUME_FILE, BEST_FILE = "resume.ckpt", "best.ckpt"


class Keep(Checkpoint):
    """Keeps where training is in `path`, with the best checkpoint so far, at validations.

    Not more often than every `seconds`. `made_by` says which run it is of and what decides its batches. The file is a
    sha256 and the checkpoint that it is of, since PyTorch does not look for altered bytes; it is on the disk before it
    takes the place of the last one.
    """

    def __init__(
        self, path: Path, scratch: Path, best: ModelCheckpoint, curve: Curve, made_by: dict[str, Any], seconds: float
    ) -> None:
        self._path, self._scratch, self._best, self._curve = path, scratch, best, curve
        self._made_by, self._seconds = made_by, seconds
        self._latest, self._keeping = time.monotonic(), False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep a checkpoint if it is time; all processes have a part in it."""
        due = trainer.state.fn == "fit" and time.monotonic() - self._latest >= self._seconds
        if not trainer.strategy.broadcast(due):
            return
        plain = self._scratch / "kept.ckpt"
        self._keeping = True
        trainer.save_checkpoint(plain)
        self._keeping = False
        if trainer.is_global_zero:
            write_checked(plain, self._path)
        self._latest = time.monotonic()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what only the kept checkpoint has."""
        if self._keeping:
            path = self._best.best_model_path
            checkpoint["kept"] = {
                "version": VERSION,
                "made_by": self._made_by,
                "seconds": self._curve.seconds,
                "best": read_checkpoint(path) if path else None,
            }


def write_checked(plain: Path, path: Path) -> None:
    """Write a checkpoint with its sha256 to `path`, at once and for good."""
    content = plain.read_bytes()
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(sha256(content).digest() + content)
        file.flush()
        os.fsync(file.fileno())
    plain.unlink()


class Taken(NamedTuple):
    """Seconds that an interrupted run had been trained for, and what is to be said of its checkpoint."""

    seconds: float = 0.0
    notes: tuple[str, ...] = ()


def take_up(path: Path, scratch: Path, made_by: dict[str, Any]) -> Taken:
    """Put what training goes on from into `scratch`, if there is something in `path` that can be used.

    What cannot, since it is damaged or was made under other conditions, is no error: the run begins anew.
    """
    if not path.exists():
        return Taken()
    try:
        checkpoint = _read_checked(path, scratch)
        if (version := checkpoint["kept"]["version"]) != VERSION:
            raise UserError(f"of version {version}, not {VERSION}")
        if (made := checkpoint["kept"]["made_by"]) != made_by:
            raise UserError(f"made by {made}, not {made_by}")
    except (UserError, KeyError, TypeError) as error:
        return Taken(notes=(f"began anew, since the checkpoint of an interrupted attempt cannot be used: {error}",))
    kept = checkpoint.pop("kept")
    if kept["best"] is not None:
        torch.save(kept["best"], scratch / BEST_FILE)
    for name, state in checkpoint["callbacks"].items():
        if name.startswith(ModelCheckpoint.__qualname__):
            _move(state, scratch / BEST_FILE)
    torch.save(checkpoint, scratch / RESUME_FILE)
    return Taken(seconds=kept["seconds"])


def _read_checked(path: Path, scratch: Path) -> dict[str, Any]:
    content = path.read_bytes()
    digest, plain = content[:32], scratch / RESUME_FILE
    if sha256(content[32:]).digest() != digest:
        raise UserError("it is damaged")
    plain.write_bytes(content[32:])
    try:
        return read_checkpoint(plain)
    finally:
        plain.unlink()


def _move(state: dict[str, Any], best: Path) -> None:
    """Have Lightning's record of the best checkpoint say where that is now."""
    state["dirpath"] = str(best.parent)
    state["best_k_models"] = {str(best): score for score in state["best_k_models"].values()}
    for name in ("best_model_path", "kth_best_model_path"):
        state[name] = str(best) if state[name] else ""
