"""A submission that nothing is wrong with, on the data set tiny-molecules: fixtures, and what makes them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from scisci.data.library import open_dataset
from scisci.data.store import Store
from scisci.tasks.predictions import writing_predictions

from .sweeps import found_by_name

SPLITS = {"test": 12, "ood_600K": 10}
RUNS = {"small-0": 0.3, "large-0": 0.1}
Write = Callable[..., Path]


def predict(store: Store, path: Path, split: str, samples: int, noise: float, seed: int) -> None:
    """Write labels with an error of `noise` eV/Å in forces, and of a hundredth of that per atom in energies."""
    rng, ids = np.random.default_rng(seed), store.split(split).indices(samples)
    ragged = store.take(ids)
    forces = ragged.items["forces"] + noise * rng.normal(size=ragged.items["forces"].shape)
    energy = ragged.samples["energy"] + 0.01 * noise * ragged.lengths * rng.normal(size=samples)
    with writing_predictions(path, store.fingerprint, split) as writer:
        writer.append(ids, ragged.lengths, {"energy": energy}, {"forces": forces.astype(np.float32)})


def described(store: Store, runs: Mapping[str, float], splits: Mapping[str, int]) -> dict[str, Any]:
    """What `submission.yaml` says of runs on tiny-molecules."""
    about = {"dataset": "tiny-molecules", "fingerprint": store.fingerprint, "data": 96, "samples_seen": 960}
    about |= {"flops": 1e12, "seed": 0, "lr": 0.01, "seconds": 60.0, "device": "a CPU"}
    return {
        "schema_version": 1,
        "name": "Tiny",
        "family": "equivariant",
        "symmetry": {"rotation": "exact"},
        "summary": "Labels with noise.",
        "authors": [{"name": "Ada Lovelace"}],
        "date": "2026-11-22",
        "licence": "MIT",
        "training_data": {"description": "tiny", "contamination": "none known", "statement": "none was found"},
        "tuning": {"trials": 3, "selected_on": "val, force_mae"},
        "hardware": {"description": "one CPU core", "device_hours": 0.1},
        "runs": [
            {"run": run, "size": run[:5], "params": 10_000 * (k + 1), **about, "splits": dict(splits)}
            for k, run in enumerate(runs)
        ],
    }


def write_submission(
    folder: Path, runs: Mapping[str, float] = RUNS, splits: Mapping[str, int] = SPLITS, seed: int = 0
) -> Path:
    """Write a valid submission into a folder: runs (name → noise), splits (name → samples); returns the folder."""
    store = open_dataset("tiny-molecules")
    for k, (run, noise) in enumerate(runs.items()):
        for split, samples in splits.items():
            predict(store, folder / "predictions" / run / f"{split}.h5", split, samples, noise, 100 * seed + k)
    description = yaml.safe_dump(described(store, runs, splits), sort_keys=False)
    (folder / "submission.yaml").write_text(description, encoding="utf-8")
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what a submission's description says."""
    path = folder / "submission.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


@pytest.fixture(scope="session")
def _valid(library_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with found_by_name(library_folder):
        return write_submission(tmp_path_factory.mktemp("valid") / "tiny-model")


@pytest.fixture
def submission(_valid: Path, library: Path, tmp_path: Path) -> Path:
    """A valid submission by itself in `tmp_path / "submissions"`, to be altered at will."""
    return Path(shutil.copytree(_valid, tmp_path / "submissions" / "tiny-model"))
