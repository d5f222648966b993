"""One run from its spec to its result; the sweep and `scisci fit` end in the same record."""

from __future__ import annotations

import inspect
import logging
import math
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities import rank_zero_only

from scisci.contracts.errors import UserError
from scisci.contracts.files import write_text
from scisci.contracts.run import CHECKPOINT_FILE, RunResult, RunSpec, SplitResult
from scisci.data.module import StoreDataModule
from scisci.models.potential import parameter_counts
from scisci.tasks.accounting import (
    device_name,
    hardware,
    library_versions,
    peak_memory,
    reset_peak_memory,
    training_flops,
)
from scisci.tasks.base import Task
from scisci.tasks.baselines import registry as baselines
from scisci.tasks.baselines.run import execute as execute_baseline
from scisci.tasks.checkpoints import load_task, read_checkpoint, save_model
from scisci.tasks.curve import Curve
from scisci.tasks.divergence import Divergence
from scisci.tasks.domains import task_for
from scisci.tasks.energy import metered
from scisci.tasks.loggers import tracking
from scisci.tasks.parallel import PARALLEL
from scisci.tasks.predictions import recording
from scisci.tasks.resuming import KEEP_SECONDS, RESUME_FILE, Keep, take_up
from scisci.tasks.version import code_version

NO_ENERGY = "energy was not measured, since the training was interrupted"
TRAINER_DEFAULTS: dict[str, Any] = {
    "devices": 1,
    "max_epochs": -1,
    "check_val_every_n_epoch": None,
    "num_sanity_val_steps": 0,
    # Batches know of processes by themselves.
    "use_distributed_sampler": False,
    "log_every_n_steps": 20,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def accelerator() -> str:
    """The accelerator for runs: CUDA where there is one. Apple's GPUs have no float64, which energies need."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def quiet() -> None:
    """Lightning announces devices and tips at every start; a sweep of thousands of runs must not."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Small validation loaders do not need worker processes; the study decides how many there are.
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=r".*number of training batches .* is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
    # A loss that is not finite is skipped on purpose, and the run ends as diverged.
    warnings.filterwarnings("ignore", message=r"`training_step` returned `None`.*")
    # Which models leave parameters out is not known beforehand, and looking costs next to nothing.
    warnings.filterwarnings("ignore", message=r"find_unused_parameters=True was specified")
    warnings.filterwarnings("ignore", message=r"(?s)Grad strides do not match bucket view strides")
    # All processes log what they have gathered from all of them.
    warnings.filterwarnings("ignore", message=r"It is recommended to use `self.log\(.*sync_dist=True\)`")
    # Lightning 2.6 calls what torch 2.13 has renamed.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")


def task_of(spec: RunSpec, domain: str) -> Task:
    """The task that a run trains, before it has seen any data."""
    task = task_for(domain)
    recipe, accepted = spec.optimization.model_dump(), inspect.signature(task.__init__).parameters
    made: Task = task(
        architecture=spec.architecture,
        size=spec.size,
        overrides=dict(spec.overrides),
        symmetry_treatment=spec.treatment,
        symmetry_samples=spec.evaluation.symmetry_samples,
        **{name: value for name, value in recipe.items() if name in accepted} | spec.task,
    )
    return made


def data_of(spec: RunSpec, devices: int = 1, accumulation: int = 1) -> StoreDataModule:
    """The data that a run is trained and measured on, its batches shared out over devices and divided into parts."""
    size = spec.optimization.batch_size
    return StoreDataModule(
        dataset=spec.dataset,
        train_samples=spec.data,
        batch_size=size // devices,
        step_size=size if accumulation > 1 else None,
        val_samples=spec.evaluation.max_validation_samples,
        test_splits=list(spec.evaluation.splits),
        test_samples=spec.evaluation.max_samples,
    )


def _begin(spec: RunSpec, devices: int = 1, accumulation: int = 1) -> StoreDataModule:
    L.seed_everything(spec.seed, verbose=False)
    data = data_of(spec, devices, accumulation)
    if (data.store.fingerprint, code_version()) != (spec.fingerprint, spec.code_version):
        raise UserError("the data or the code changed since this run was planned; plan the study again")
    return data


def write_config(spec: RunSpec, task: Task, data: StoreDataModule, options: dict[str, Any], folder: Path) -> None:
    """Write `config.yaml`: the same run as a config of `scisci fit`, with these options of the trainer."""
    config = {
        "seed_everything": spec.seed,
        "model": task.options_given,
        "data": dict(data.options),
        "trainer": options,
        "divergence_bound": spec.optimization.divergence_bound,
    }
    write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))


def validation_interval(steps: int, validations: int) -> int:
    """Steps between validations; the final weights are always validated as well."""
    return max(1, math.ceil(steps / validations))


def trainer_options(
    spec: RunSpec, device: str | None = None, devices: int = 1, accumulation: int = 1
) -> dict[str, Any]:
    """How Lightning trains a run, on devices of a kind; by default the fastest that this machine has."""
    steps = spec.optimization.steps
    options = TRAINER_DEFAULTS | {
        "accelerator": device or accelerator(),
        "max_steps": steps,
        "val_check_interval": validation_interval(steps, spec.optimization.validations) * accumulation,
        "accumulate_grad_batches": accumulation,
        "gradient_clip_val": spec.optimization.gradient_clip,
        "precision": spec.optimization.precision,
    }
    return options | ({"devices": devices, "strategy": PARALLEL} if devices > 1 else {})


def execute(
    spec: RunSpec, folder: Path, gpus: int = 1, accumulation: int = 1, keep_seconds: float = KEEP_SECONDS
) -> RunResult:
    """Train and evaluate what `spec` asks for; leave the model, its config and its training curve in `folder`.

    With several `gpus`, one process for each trains on its part of every batch; with `accumulation` that is divided
    once more, into so many parts, one after the other. Where training is, is kept in `folder` every `keep_seconds`, at
    validations, and a run that finds this there goes on, to the same result. A loss that is not finite, or stays far
    above a constant prediction's, ends the run with status `diverged`; any other failure is raised.
    """
    quiet()
    start = time.perf_counter()
    if spec.energy and gpus > 1:
        raise UserError("energy is measured of trainings on one device; leave energy out of the study, or several gpus")
    if spec.architecture in baselines.names():
        return execute_baseline(spec, folder, _begin(spec))
    # On the disk that holds the run, so that it is this one which is full if one is.
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        scratch = Path(inside)
        taken = take_up(folder / CHECKPOINT_FILE, scratch, made_by(spec, gpus, accumulation))
        if gpus > 1:
            from scisci.tasks.several import train_in_processes

            result = train_in_processes(spec, folder, scratch, "cuda", gpus, accumulation, keep_seconds)
        else:
            trained = train(spec, folder, scratch, accelerator(), 1, accumulation, keep_seconds)
            result = cast(RunResult, trained)
    return result.model_copy(
        update={
            "seconds": taken.seconds + time.perf_counter() - start,
            "learning_rate_choice": spec.optimization.learning_rate_choice,
            "accumulation": accumulation,
            "notes": (*taken.notes, *([NO_ENERGY] if spec.energy and taken.seconds else [])),
        }
    )


def made_by(spec: RunSpec, devices: int, accumulation: int) -> dict[str, Any]:
    """What a checkpoint must have been made by for a run to go on from it."""
    return {"run": spec.run, "devices": devices, "accumulation": accumulation}


def train(
    spec: RunSpec,
    folder: Path,
    scratch: Path,
    device: str,
    devices: int = 1,
    accumulation: int = 1,
    keep_seconds: float = KEEP_SECONDS,
) -> RunResult | None:
    """Train on devices of a kind, of which this process has one, and measure; only the first process has the result."""
    data, curve, best = _begin(spec, devices, accumulation), Curve(), best_checkpoint(scratch)
    task = task_of(spec, data.store.domain)
    task.prepare(data)
    options, resume = trainer_options(spec, device, devices, accumulation), scratch / RESUME_FILE
    keep = Keep(folder / CHECKPOINT_FILE, scratch, best, curve, made_by(spec, devices, accumulation), keep_seconds)
    # Not the cluster's, which may know of other processes.
    here: dict[str, Any] = {"plugins": [LightningEnvironment()]} if devices > 1 else {}
    first = devices == 1 or rank_zero_only.rank == 0  # type: ignore[attr-defined]
    with tracking(spec.loggers if first else (), folder, spec.study, spec.run) as loggers:
        callbacks = [curve, Divergence(curve, spec.optimization.divergence_bound), best, keep]
        trainer = L.Trainer(**options, **here, callbacks=callbacks, logger=loggers, inference_mode=False)
        reset_peak_memory(trainer.strategy.root_device)
        with metered(spec.energy and not resume.exists()) as energy:
            trainer.fit(task, data, ckpt_path=resume if resume.exists() else None)
        last = scratch / "last.ckpt"
        if devices > 1:
            trainer.save_checkpoint(last)
        found = alone(task, trainer, curve, last)
        if found is None:
            return None
        result = conclude(found[0], data, found[1], best, curve, folder, spec.run, spec.evaluation.predictions)
    write_config(spec, task, data, options, folder)
    return result.model_copy(update=energy)


def best_checkpoint(folder: Path | None = None) -> ModelCheckpoint:
    """Keeps the checkpoint with the lowest ID validation loss; test splits never choose."""
    return ModelCheckpoint(folder, filename="best", monitor="val/loss", enable_version_counter=False)


def conclude(
    task: Task,
    data: StoreDataModule,
    trainer: L.Trainer,
    best: ModelCheckpoint,
    curve: Curve,
    folder: Path,
    run: str,
    predictions: bool = False,
) -> RunResult:
    """Measure the best weights on every test split and write model and curve: what all training ends in.

    With `predictions`, what was measured is kept too, in `predictions/<split>.h5`.
    """
    device, seconds, shared = trainer.strategy.root_device, curve.seconds, curve.shared
    params, params_body = parameter_counts(task.model)
    samples = len(data.train_indices())
    update: dict[str, Any] = {} if task.diverged else choose_weights(task, data, trainer, best, curve)
    curve.write(folder / "curve.parquet")
    result = RunResult(
        run=run,
        status="diverged" if task.diverged else "ok",
        reason=task.diverged,
        domain=task.domain,
        params=params,
        params_body=params_body,
        samples_seen=task.samples_seen,
        unique_samples=samples,
        epochs=task.samples_seen / samples,
        learning_rate=task.hparams["learning_rate"],
        device=device_name(device.type),
        hardware=hardware(device),
        shared=shared,
        training_seconds=seconds,
        peak_memory=peak_memory(device),
        versions=library_versions(),
    )
    if task.diverged:
        return result
    with recording(folder / "predictions" if predictions else None, task, data):
        trainer.test(task, data, verbose=False)
    save_model(task, folder)
    splits = {
        name: SplitResult(severity=data.store.split(name).severity, metrics=metrics)
        for name, metrics in task.test_results.items()
    }
    update |= {"flops_per_sample": training_flops(task, data.store), "splits": splits}
    return result.model_copy(update=update)


def alone(task: Task, trainer: L.Trainer, curve: Curve, last: Path) -> tuple[Task, L.Trainer] | None:
    """With what to measure after training: on several devices, the first process by itself, the others with nothing.

    That process takes the final weights from the checkpoint `last`, since parts of them may have been elsewhere.
    """
    if trainer.world_size == 1:
        return task, trainer
    trainer.strategy.barrier()
    torch.distributed.destroy_process_group()
    if not trainer.is_global_zero:
        return None
    whole, device = load_task(last), trainer.strategy.root_device
    whole.diverged = task.diverged
    one = L.Trainer(
        **TRAINER_DEFAULTS | {"devices": [device.index] if device.type == "cuda" else 1},
        accelerator=device.type,
        precision=trainer.precision,
        max_steps=int(trainer.estimated_stepping_batches),
        callbacks=[curve, *(one for one in trainer.callbacks if isinstance(one, Divergence))],  # type: ignore[attr-defined]
        logger=trainer.loggers,
        enable_checkpointing=False,
        inference_mode=False,
        # Not the cluster's, which knows of as many processes as there were.
        plugins=[LightningEnvironment()],
    )
    return whole, one


def choose_weights(
    task: Task, data: StoreDataModule, trainer: L.Trainer, best: ModelCheckpoint, curve: Curve
) -> dict[str, Any]:
    """Validate the final weights if that was not done, and go back to the best checkpoint if that was better."""
    steps = curve.steps
    if "val/loss" not in curve.rows[-1]:
        trainer.validate(task, data, verbose=False)
    final = curve.rows[-1]["val/loss"]
    if best.best_model_score is not None and not final <= float(best.best_model_score):
        checkpoint = read_checkpoint(best.best_model_path)
        task.load_state_dict(checkpoint["state_dict"])
        return {"best_step": int(checkpoint["global_step"])}
    if not math.isfinite(final):
        task.diverged = f"the validation loss became {final} at step {steps}"
    return {"best_step": steps}
