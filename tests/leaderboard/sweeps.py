"""Small finished sweeps on small data sets that have names, to make submissions of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from scisci.data.store import Store
from scisci.sweep.cli import main


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
