"""What runs will cost, before there are any: FLOPs counted and steps timed on the real models and samples."""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from scisci.contracts.run import RunSpec
from scisci.data.module import StoreDataModule
from scisci.tasks.accounting import FLOP_SAMPLES, training_flops
from scisci.tasks.baselines import registry as baselines
from scisci.tasks.baselines.run import count_flops, unfitted
from scisci.tasks.run import data_of, quiet, task_of, trainer_options
from scisci.tasks.threads import threads

TIMED_STEPS = 5


def few_samples(spec: RunSpec, count: int = FLOP_SAMPLES) -> StoreDataModule:
    """The data of a run, of which training has the first `count` samples at most."""
    data = data_of(spec)
    data.train_samples = min(count, len(data.store.split("train")))
    return data


def flops_per_sample(spec: RunSpec) -> float:
    """Training FLOPs per sample as the run's result will have them; of a baseline for all passes of its fit.

    Where a baseline finds out by itself when to stop, those of one pass.
    """
    quiet()
    data = few_samples(spec)
    if spec.architecture in baselines.names():
        task, baseline = unfitted(spec, data)
        return count_flops(task, baseline, data) * max(1, baseline.steps)
    with torch.random.fork_rng(devices=[]):
        task = task_of(spec, data.store.domain)
        task.prepare(data)
        return training_flops(task, data.store)


class Pace(NamedTuple):
    """Seconds of an optimisation step and of the evaluation of one sample (of a series: of one window)."""

    step: float
    evaluation: float


class _Stopwatch(Callback):
    def __init__(self) -> None:
        self.ends: list[float] = []
        self.evaluation = 0.0
        self._start = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.ends.append(_now(trainer))

    def on_validation_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._start = _now(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.evaluation = _now(trainer) - self._start


def _now(trainer: L.Trainer) -> float:
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(spec: RunSpec, cores: int = 1) -> Pace:
    """The pace of a run of a network on this machine, by as many threads as `cores`.

    Of the training that the run would be, on its first samples: the median over five steps after two that warm up, and
    one batch of the validation split.
    """
    quiet()
    data, watch = few_samples(spec, max(FLOP_SAMPLES, spec.optimization.batch_size)), _Stopwatch()
    with threads(cores), torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as scratch:
        task = task_of(spec, data.store.domain)
        task.prepare(data)
        steps = TIMED_STEPS + 2
        options = trainer_options(spec) | {"max_steps": steps, "val_check_interval": steps, "limit_val_batches": 1}
        trainer = L.Trainer(
            **options,
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            inference_mode=False,
            default_root_dir=scratch,
        )
        trainer.fit(task, data)
    loader: Any = trainer.val_dataloaders
    evaluated = min(loader.batch_size, len(loader.dataset))
    steps_taken = [end - start for start, end in zip(watch.ends[1:], watch.ends[2:], strict=False)]
    return Pace(statistics.median(steps_taken), watch.evaluation / evaluated)


def samples_evaluated(spec: RunSpec) -> int:
    """How many samples a run evaluates: the ID validation split several times, every test split once."""
    data = data_of(spec)
    limit = spec.evaluation.max_validation_samples
    val = len(data.store.split("val").indices(limit)) * spec.optimization.validations
    return val + sum(len(data.store.split(name).indices(data.test_samples)) for name in data.test_splits)
