"""A library of small data sets with names, and a finished sweep on one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .sweeps import found_by_name, name_store, study, swept
from .tiny import _valid, submission  # noqa: F401  (fixtures)


@pytest.fixture(scope="session")
def library_folder(
    small_store: Path, particle_store: Path, series_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of the data sets tiny-molecules, tiny-particles and tiny-series."""
    folder = tmp_path_factory.mktemp("library")
    stores = {"tiny-molecules": small_store, "tiny-particles": particle_store, "tiny-series": series_store}
    for name, path in stores.items():
        name_store(folder, name, path)
    return folder


@pytest.fixture(scope="module")
def library(library_folder: Path) -> Iterator[Path]:
    """The same folder, whose data sets are found by name while the tests of a module run."""
    with found_by_name(library_folder):
        yield library_folder


@pytest.fixture(scope="module")
def finished(swept_once: Path, library: Path) -> Path:
    """A finished sweep of two architectures, of which PaiNN also in turned copies and SchNet once without success."""
    return swept_once


@pytest.fixture(scope="session")
def swept_once(library_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    entries = {
        "painn": {"sizes": ["3k", "10k"], "learning_rate": 0.01},
        "turned": {"architecture": "mpnn", "treatment": "augmentation", "sizes": ["3k"], "learning_rate": 0.01},
        "schnet": {"sizes": ["3k", "10k"], "learning_rate": {"3k": 0.01, "10k": 1e30}},
    }
    evaluation = {
        "splits": ["val", "test", "ood_600K"],
        "max_samples": 11,
        "symmetry_samples": 2,
        "predictions": True,
    }
    content = study("tiny-molecules", entries, evaluation=evaluation, seeds=[0, 1])
    content["optimization"]["gradient_clip"] = 1e30
    with found_by_name(library_folder):
        return swept(content, tmp_path_factory.mktemp("sweep") / "small")
