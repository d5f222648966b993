"""One run from its spec to its result; the sweep and `scisci fit` end in the same record."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from scisci.contracts.files import write_text
from scisci.contracts.run import RunResult, RunSpec, SplitResult
from scisci.data.module import StoreDataModule
from scisci.models.potential import parameter_counts
from scisci.tasks.accounting import (
    code_version,
    device_name,
    library_versions,
    peak_memory,
    reset_peak_memory,
    training_flops,
)
from scisci.tasks.atomistic import AtomisticTask, Diverged
from scisci.tasks.checkpoints import save_model

__all__ = ["code_version", "execute"]


class Curve(Callback):
    """Keeps the training loss per step and the validation metrics, for `curve.parquet`."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        """A row per step; the loss stays a tensor until the end so that no device waits for it."""
        self.rows.append({"step": trainer.global_step, "train/loss": outputs["loss"].detach()})

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A row per validation."""
        logged = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self.rows.append({"step": trainer.global_step, **logged})

    def write(self, path: Path) -> None:
        """Write all rows."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        columns = {n: [None if (v := row.get(n)) is None else float(v) for row in self.rows] for n in names}
        pq.write_table(pa.table(columns), path)


def quiet() -> None:
    """Lightning announces devices and tips at every start; a sweep of thousands of runs must not."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Small validation loaders do not need worker processes; the study decides how many there are.
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=r".*number of training batches .* is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
    # Lightning 2.6 calls what torch 2.13 has renamed.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")


def _task(spec: RunSpec) -> AtomisticTask:
    o = spec.optimization
    return AtomisticTask(
        architecture=spec.architecture,
        size=spec.size,
        overrides=dict(spec.overrides),
        symmetry_treatment=spec.treatment,
        learning_rate=o.learning_rate,
        schedule=o.schedule,
        warmup=o.warmup,
        weight_decay=o.weight_decay,
        energy_weight=o.energy_weight,
        force_weight=o.force_weight,
        symmetry_samples=spec.evaluation.symmetry_samples,
    )


def _data(spec: RunSpec) -> StoreDataModule:
    return StoreDataModule(
        dataset=spec.dataset,
        train_samples=spec.data,
        batch_size=spec.optimization.batch_size,
        val_samples=spec.evaluation.max_validation_samples,
        test_splits=list(spec.evaluation.splits),
        test_samples=spec.evaluation.max_samples,
    )


def write_config(spec: RunSpec, folder: Path) -> None:
    """Write `config.yaml`: the same run as a config of `scisci fit`."""
    task, data = _task(spec), _data(spec)
    config = {
        "seed_everything": spec.seed,
        "model": task.options_given,
        "data": dict(data.options),
        "trainer": _trainer_options(spec),
    }
    write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))


def _trainer_options(spec: RunSpec) -> dict[str, Any]:
    steps = spec.optimization.steps
    return {
        "accelerator": "auto",
        "devices": 1,
        "max_steps": steps,
        "max_epochs": -1,
        "val_check_interval": max(1, steps // spec.optimization.validations),
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "gradient_clip_val": spec.optimization.gradient_clip,
    }


def execute(spec: RunSpec, folder: Path) -> RunResult:
    """Train and evaluate what `spec` asks for; leave the model, its config and its training curve in `folder`.

    A loss that is not finite ends the run with status `diverged`; any other failure is raised.
    """
    quiet()
    start = time.perf_counter()
    L.seed_everything(spec.seed, verbose=False)
    data, task, curve = _data(spec), _task(spec), Curve()
    task.prepare(data)
    with tempfile.TemporaryDirectory() as scratch:
        best = best_checkpoint(Path(scratch))
        trainer = L.Trainer(
            **_trainer_options(spec),
            callbacks=[curve, best],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,
        )
        reset_peak_memory(trainer.strategy.root_device)
        reason = None
        try:
            trainer.fit(task, data)
        except Diverged as error:
            reason = str(error)
        training_seconds = time.perf_counter() - start
        result = conclude(task, data, trainer, best, curve, folder, spec.run, reason)
    write_config(spec, folder)
    return result.model_copy(
        update={
            "training_seconds": training_seconds,
            "seconds": time.perf_counter() - start,
            "learning_rate_choice": spec.optimization.learning_rate_choice,
        }
    )


def best_checkpoint(folder: Path, **options: Any) -> ModelCheckpoint:
    """Keeps the checkpoint with the lowest ID validation loss; test splits never choose."""
    return ModelCheckpoint(folder, filename="best", monitor="val/loss", enable_version_counter=False, **options)


def conclude(
    task: AtomisticTask,
    data: StoreDataModule,
    trainer: L.Trainer,
    best: ModelCheckpoint,
    curve: Curve,
    folder: Path,
    run: str,
    diverged: str | None = None,
) -> RunResult:
    """Measure the best checkpoint on every test split and write model and curve: what all training ends in."""
    device = trainer.strategy.root_device
    params, params_body = parameter_counts(task.model)
    samples = len(data.train_indices())
    seen = trainer.global_step * min(data.batch_size, samples) * trainer.accumulate_grad_batches * trainer.world_size
    curve.write(folder / "curve.parquet")
    result = RunResult(
        run=run,
        status="diverged" if diverged else "ok",
        reason=diverged,
        domain="atoms",
        params=params,
        params_body=params_body,
        samples_seen=seen,
        unique_samples=samples,
        epochs=seen / samples,
        learning_rate=task.hparams["learning_rate"],
        device=device_name(device.type),
        peak_memory=peak_memory(device),
        versions=library_versions(),
    )
    if diverged:
        return result
    checkpoint = torch.load(best.best_model_path, weights_only=True)
    task.load_state_dict(checkpoint["state_dict"])
    batch = trainer.strategy.batch_to_device(next(iter(data.train_dataloader())))
    flops = training_flops(task, batch)
    trainer.test(task, data, verbose=False)
    save_model(task, folder)
    splits = {
        name: SplitResult(severity=data.store.split(name).severity, metrics=metrics)
        for name, metrics in task.test_results.items()
    }
    return result.model_copy(
        update={"best_step": int(checkpoint["global_step"]), "flops_per_sample": flops, "splits": splits}
    )
