"""Small finished sweeps on small data sets that have names, to make submissions of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from scisci.data.samples import CloudSample, TreeSample
from scisci.data.store import Store
from scisci.data.writer import StoreWriter
from scisci.sweep.cli import main


@contextmanager
def found_by_name(library: Path) -> Iterator[None]:
    """Have the data sets of a folder found by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCISCI_DATASETS", str(library))
        yield


def name_store(library: Path, name: str, path: Path) -> None:
    """Give a store a name: a folder with a card and a link to it."""
    store = Store(path)
    card = {
        "schema_version": 1,
        "title": f"{name}, for tests",
        "domain": store.domain,
        "source": "made by tests",
        "citation": [],
        "licence": "CC0-1.0",
        "units": {},
        "method": "as tests make it",
        "splits": {split.name: {"samples": len(split), "shift": split.shift} for split in store.splits.values()},
        "fingerprint": store.fingerprint,
        "caveats": [],
    }
    (library / name).mkdir()
    (library / name / "card.yaml").write_text(yaml.safe_dump(card))
    os.link(path, library / name / "data.h5")


def clouds(path: Path) -> Path:
    """A store of clouds of 40 points with masses, which fall towards their middle; velocities and parameters."""
    rng = np.random.default_rng(0)
    with StoreWriter(path, "cloud") as writer:
        for name, count in (("train", 12), ("val", 6), ("test", 8)):
            rows = []
            for k in range(count):
                offsets, side = rng.normal(0, 5, (40, 3)), np.full(3, 40.0)
                positions, masses = np.mod(20 + offsets, 40), rng.pareto(2, 40) + 1
                sample = CloudSample(
                    positions, side, -20 * offsets, masses, omega_m=rng.uniform(), sigma_8=rng.uniform()
                )
                rows.append(writer.append(sample, f"{name} {k}"))
            writer.split(name, np.array(rows), "none", disjoint=name != "train")
    return path


def trees(path: Path) -> Path:
    """A store of chains of halos with a virtual node of either label at every second one."""
    rng = np.random.default_rng(0)
    with StoreWriter(path, "tree") as writer:
        for name in ("train", "val", "test"):
            rows = []
            for k in range(6):
                parent = np.array([-1, 0, 1, 2, 3, 0, 2])
                label = np.array([-1] * 5 + [k % 2, 1])
                features = rng.normal(size=(7, 4))
                features[:, 3] = [1.0, 0.9, 0.8, 0.7, 0.6, 0.9, 0.7]
                rows.append(writer.append(TreeSample(features, parent, label=label), f"{name} {k}"))
            writer.split(name, np.array(rows), "none", disjoint=name != "train")
    return path


def study(dataset: str, architectures: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A study of a few steps; `changes` are to its top level."""
    return {
        "study": "small",
        "dataset": dataset,
        "architectures": architectures,
        "data": [16, 32],
        "optimization": {"steps": 4, "batch_size": 4, "validations": 2},
        "evaluation": {"splits": ["val", "test"], "max_samples": 11, "symmetry_samples": 2, "predictions": True},
    } | changes


def swept(content: dict[str, Any], out: Path) -> Path:
    """Carry a study out, and collect its results table; returns the sweep's folder."""
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(content))
    main(["run", str(path), "--out", str(out), "--engine", "inline"])
    main(["collect", str(out)])
    return out
