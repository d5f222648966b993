"""Fitted baselines in run directories: written, read back, and used for what `scisci test` and `predict` ask."""

from __future__ import annotations

import json
from argparse import ArgumentError
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from scisci.contracts.errors import UserError
from scisci.contracts.files import atomic_path, write_text
from scisci.contracts.run import RunSpec
from scisci.data.module import StoreDataModule
from scisci.tasks.arguments import one_sentence
from scisci.tasks.base import Task
from scisci.tasks.baselines.linear import Baseline
from scisci.tasks.baselines.registry import build
from scisci.tasks.domains import task_for

SCHEMA_VERSION = 1
FILE = "baseline.json"


def save(baseline: Baseline, spec: RunSpec, data: StoreDataModule, folder: Path) -> None:
    """Write `model.safetensors` and `baseline.json`: what it is, what was chosen, and the data it was fitted to."""
    with atomic_path(folder / "model.safetensors") as temporary:
        save_model(baseline, str(temporary))
    # Absolute, so that the run can be used from anywhere.
    dataset = str(Path(spec.dataset).resolve()) if Path(spec.dataset).exists() else spec.dataset
    about = {
        "schema_version": SCHEMA_VERSION,
        "baseline": spec.architecture,
        "domain": data.store.domain,
        "size": spec.size,
        "overrides": spec.overrides,
        "task": spec.task,
        "choices": baseline.choices(),
        "data": data.options | {"dataset": dataset, "train_samples": None},
    }
    write_text(folder / FILE, json.dumps(about, indent=1) + "\n")


def is_baseline(folder: Path) -> bool:
    """Whether a run directory holds a baseline."""
    return (folder / FILE).is_file()


def read(folder: Path) -> dict[str, Any]:
    """What `save` wrote about a baseline; `UserError` where it is damaged or of another version."""
    try:
        about: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{folder / FILE} is damaged; fit the baseline again or restore the file") from error
    if about.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{folder} was written by another version of scisci; fit the baseline again")
    return about


def load(folder: Path) -> Task:
    """The task of a run directory with the fitted baseline as its model; `UserError` where the files are damaged."""
    about = read(folder)
    task: Task = task_for(about["domain"])(**about["task"])
    baseline = build(about["baseline"], about["domain"], about["task"], about["size"], about["overrides"])
    path = folder / "model.safetensors"
    try:
        load_model(baseline, str(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(f"{path} is missing or damaged; fit the baseline again or restore the file") from error
    baseline.fitted = True
    task.model = baseline
    return task.eval()


def main(command: str, folder: Path, arguments: list[str], out: Path | None = None) -> None:
    """Run `scisci test` or `scisci predict` on a run directory; the data can be changed by the options `--data.…`.

    Predictions go into the folder `out`, by default `predictions` in the run directory.
    """
    import torch

    from scisci.tasks.baselines.run import evaluated, measured
    from scisci.tasks.predictions import writing_outputs
    from scisci.tasks.tables import show_errors

    if command not in ("test", "predict"):
        raise UserError(f"{folder} holds a baseline, which {command} is not for; use 'scisci baseline fit' to fit one")
    parser = ArgumentParser(prog=f"scisci {command}", exit_on_error=False)
    parser.add_class_arguments(StoreDataModule, "data")
    parser.set_defaults({f"data.{name}": value for name, value in read(folder)["data"].items()})
    try:
        data = StoreDataModule(**parser.parse_args(arguments).data)
    except ArgumentError as error:
        raise UserError(one_sentence(str(error), command)) from error
    task = load(folder)
    data.check(task.domain, training=command == "test")
    with torch.no_grad():
        if command == "test":
            results = {split: measured(task, data, split) for split in data.test_splits}
            show_errors(results, [name for name in next(iter(results.values())) if not name.startswith("symmetry")])
            return
        for split in data.test_splits:
            path = (out or folder / "predictions") / f"{split}.h5"
            with writing_outputs(path, task, data.store, split, data.test_samples) as write:
                for batch in evaluated(task, data, split):
                    outputs = task.predict_step(batch, 0)
                    write(outputs, outputs["ptr"])
            print(f"wrote {path}")
