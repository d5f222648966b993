"""Trackers of training that a config or a study names: TensorBoard, W&B, MLflow and other loggers of Lightning.

None of them is the source of truth: results, curves and the tables made of them never come from a tracker.
"""

from __future__ import annotations

import copy
import inspect
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from scisci.contracts.errors import UserError
from scisci.tasks.arguments import allow_imports, one_sentence

# Modules of which a logger needs one; the first is the package to install.
MODULES = {
    "TensorBoardLogger": ("tensorboardX", "tensorboard"),
    "WandbLogger": ("wandb",),
    "MLFlowLogger": ("mlflow",),
    "CometLogger": ("comet_ml",),
    "LitLogger": ("litlogger",),
}
# Arguments that say where a logger writes.
PLACES = ("save_dir", "root_dir", "offline_directory")


def _parser() -> ArgumentParser:
    allow_imports()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--loggers", type=list[Logger])
    return parser


def in_config(logger: Any) -> list[Namespace]:
    """The loggers of a trainer's config, which has one, a list, or none."""
    return [logger] if isinstance(logger, Namespace) else list(logger) if isinstance(logger, list) else []


def parse(named: Sequence[str | dict[str, Any]]) -> list[Namespace]:
    """Loggers as a study names them: class names, or class_path with init_args; `UserError` for what is none."""
    try:
        loggers: list[Namespace] = _parser().parse_object({"loggers": list(named)}).loggers
    except ArgumentError as error:
        raise UserError(one_sentence(str(error), "fit")) from error
    check(loggers)
    return loggers


def check(loggers: Sequence[Namespace]) -> None:
    """Raise `UserError` where a package that a logger needs is not installed."""
    for logger in loggers:
        name = logger.class_path.rpartition(".")[2]
        needed = MODULES.get(name, ())
        if needed and not any(map(find_spec, needed)):
            raise UserError(f"{name} needs the package {needed[0]}; install it or leave this logger out")


def placed(logger: Namespace, folder: Path, project: str, run: str) -> Namespace:
    """The logger with relative paths taken within `folder`, and named by project and run where it has no names."""
    folder, placed, arguments = folder.resolve(), copy.deepcopy(logger), logger.init_args
    for name in PLACES:
        if name in arguments:
            placed.init_args[name] = str(folder / (arguments[name] or "."))
    names: dict[type[Logger], dict[str, str]] = {
        TensorBoardLogger: {"name": "tensorboard"},
        WandbLogger: {"name": run, "project": project},
        MLFlowLogger: {"run_name": run, "experiment_name": project},
    }
    if "tracking_uri" in arguments and not arguments.tracking_uri:
        names[MLFlowLogger] |= {
            "tracking_uri": f"sqlite:///{folder}/mlflow.db",
            "artifact_location": f"{folder}/mlruns",
        }
    for kind, ours in names.items():
        if logger.class_path.endswith(f".{kind.__name__}"):
            defaults = inspect.signature(kind).parameters
            untold = {name: value for name, value in ours.items() if arguments[name] == defaults[name].default}
            for name, value in untold.items():
                placed.init_args[name] = value
    return placed


class Tracker(Logger):
    """Passes everything on to another logger; when that fails, training goes on without it, and a warning says so."""

    def __init__(self, logger: Namespace) -> None:
        super().__init__()
        self._title = logger.class_path.rpartition(".")[2]
        self._logger: Logger | None = None
        self._guarded(lambda: setattr(self, "_logger", _made(logger)))

    def _guarded(self, act: Callable[[], Any]) -> None:
        try:
            act()
        # Whatever a tracker or the network may raise: it decides nothing about the run.
        except Exception as error:
            self._logger, cause = None, error
            while isinstance(cause.__cause__, Exception):
                cause = cause.__cause__
            reason = " ".join(str(cause).split()) or type(cause).__name__
            warnings.warn(f"{self._title} failed and is left out from here on: {reason}", RuntimeWarning, stacklevel=2)

    def _pass_on(self, method: str, *args: Any, **kwargs: Any) -> None:
        logger = self._logger
        if logger is not None:
            self._guarded(lambda: getattr(logger, method)(*args, **kwargs))

    @property
    def name(self) -> str | None:
        """That of the other logger."""
        return None if self._logger is None else self._logger.name

    @property
    def version(self) -> int | str | None:
        """That of the other logger."""
        return None if self._logger is None else self._logger.version

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Pass metrics on."""
        self._pass_on("log_metrics", metrics, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Pass the options of task and data on."""
        self._pass_on("log_hyperparams", params, *args, **kwargs)

    def save(self) -> None:
        """Have it written."""
        self._pass_on("save")

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Tell of a checkpoint, which some keep."""
        self._pass_on("after_save_checkpoint", checkpoint_callback)

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Pass the model on."""
        self._pass_on("log_graph", model, input_array)

    def finalize(self, status: str) -> None:
        """Have it written after training, and end it after a failure: measurements are logged after training, too."""
        if status == "success":
            self.save()
        else:
            self.close(status)

    def close(self, status: str = "success") -> None:
        """End the run; what comes afterwards changes nothing, such as how it ended."""
        if self._logger is None:
            return
        self._pass_on("finalize", status)
        self._logger = None
        wandb = sys.modules.get("wandb")
        if self._title == "WandbLogger" and wandb is not None:
            # It would go on with this run when the next one begins in this process.
            self._guarded(lambda: wandb.finish(exit_code=int(status != "success")))


def _made(logger: Namespace) -> Logger:
    (made,) = _parser().instantiate_classes(Namespace(loggers=[logger])).loggers
    return made


def trackers(loggers: Sequence[Namespace], folder: Path, project: str, run: str) -> list[Tracker]:
    """The loggers at work on a run of a project, whose files go into the run's folder unless they say otherwise."""
    return [Tracker(placed(logger, folder, project, run)) for logger in loggers]


@contextmanager
def tracking(named: Sequence[str | dict[str, Any]], folder: Path, project: str, run: str) -> Iterator[list[Tracker]]:
    """The loggers that a study names while a run of it lasts."""
    made = trackers(parse(named), folder, project, run) if named else []
    try:
        yield made
    finally:
        for tracker in made:
            tracker.close()
