"""Models that travel: weights as safetensors, everything else as JSON; nothing executable."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model as load_weights
from safetensors.torch import save_model as save_weights
from torch import nn

from scisci.contracts.errors import UserError
from scisci.contracts.files import atomic_path, write_text
from scisci.tasks.base import Task
from scisci.tasks.baselines import stored
from scisci.tasks.domains import task_named
from scisci.tasks.version import code_version

SCHEMA_VERSION = 1


def save_model(task: Task, folder: Path) -> None:
    """Write `model.safetensors` and `model.json` (task options and data statistics) into `folder`."""
    with atomic_path(folder / "model.safetensors") as temporary:
        save_weights(task.model, str(temporary))
    description: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "task": task.name,
        "hyperparameters": task.options_given,
        "statistics": task.statistics.as_dict(),
        "fingerprint": task.fingerprint,
        "code_version": code_version(),
    }
    write_text(folder / "model.json", json.dumps(description, indent=1) + "\n")


def _description(folder: Path) -> dict[str, Any]:
    try:
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"no trained model in {folder}; give a run directory that holds model.json") from error
    except (json.JSONDecodeError, OSError) as error:
        raise UserError(f"{folder / 'model.json'} is damaged; train the model again or restore the file") from error
    if description["schema_version"] > SCHEMA_VERSION:
        raise UserError(f"{folder} was written by a newer scisci; update with 'pip install -U scisci'")
    return description


def restore(task: Task, folder: Path) -> Task:
    """Give `task` the trained weights of a run directory; `UserError` where they are damaged or of another model."""
    description = _description(folder)
    task.check_name(description["task"])
    task.build(task.statistics_type.from_dict(description["statistics"]))
    path = folder / "model.safetensors"
    try:
        load_weights(task.model, str(path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is missing or damaged; train the model again or restore the file") from error
    except RuntimeError as error:
        raise UserError(f"{path} holds another model than asked for; leave out options of the model") from error
    return task.eval()


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """A training checkpoint, loaded without executing anything; `UserError` where it is none of ours."""
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise UserError(f"no checkpoint at {path}; give a file of a run directory's checkpoints folder") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise UserError(f"{path} is not a readable checkpoint (truncated, damaged or another format)") from error
    if not isinstance(checkpoint, dict) or not {"statistics", "samples_seen"} <= set(checkpoint):
        raise UserError(f"{path} was not written by scisci; give a file of a run directory's checkpoints folder")
    return checkpoint


def load_task(path: Path | str) -> Task:
    """Rebuild a trained task from a run directory, one of its model files or a training checkpoint.

    `UserError` where there is no model of ours.
    """
    path = Path(path)
    if path.suffix == ".ckpt":
        checkpoint = read_checkpoint(path)
        options = {k: v for k, v in checkpoint["hyper_parameters"].items() if not k.startswith("_")}
        task: Task = task_named(checkpoint.get("task", "atomistic"))(**options)
        task.on_load_checkpoint(checkpoint)
        task.load_state_dict(checkpoint["state_dict"])
        return task.eval()
    folder = path.parent if path.name in ("model.safetensors", "model.json") else path
    if stored.is_baseline(folder):
        return stored.load(folder)
    description = _description(folder)
    return restore(task_named(description["task"])(**description["hyperparameters"]), folder)


def load_model(path: Path | str) -> nn.Module:
    """The trained model of a run directory (or of what else `load_task` takes), ready to predict."""
    return load_task(path).model
