"""Fixtures of training tests: strained copper with stress, and small models trained on it and on molecules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from scisci.data.samples import AtomsSample
from scisci.data.writer import StoreWriter
from scisci.tasks.cli import main


@pytest.fixture(scope="session")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of strained and rattled copper, with the effective-medium theory of ASE."""
    path, rng = tmp_path_factory.mktemp("crystals") / "copper.h5", np.random.default_rng(0)
    energies = []
    with StoreWriter(path, "atoms") as writer:
        for k in range(96):
            atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
            atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
            atoms.positions += rng.normal(scale=0.05, size=(4, 3))
            atoms.calc = EMT()
            energies.append(atoms.get_potential_energy() / 4)
            sample = AtomsSample(
                atoms.numbers,
                atoms.positions,
                np.asarray(atoms.cell),
                atoms.pbc,
                atoms.get_potential_energy(),
                atoms.get_forces(),
                atoms.get_stress(voigt=False),
            )
            writer.append(sample, f"cell {k}")
        for name, rows in {"train": range(64), "val": range(64, 80), "test": range(80, 96)}.items():
            writer.split(name, np.array(rows), "none", disjoint=name != "train")
        references = np.full(119, np.nan)
        references[29] = np.mean(energies)
        writer.reference("energy", references)
    return path


def train(store: Path, runs: Path, *options: str) -> Path:
    """Train a small potential for a short time; returns its run directory."""
    main(
        [
            "fit",
            f"--data.dataset={store}",
            f"--runs={runs}",
            "--trainer.max_steps=150",
            "--trainer.val_check_interval=75",
            "--trainer.enable_progress_bar=false",
            "--model.symmetry_samples=0",
            *options,
        ]
    )
    (folder,) = runs.iterdir()
    return folder


@pytest.fixture(scope="session")
def molecule_run(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a small potential for molecules."""
    return train(small_store, tmp_path_factory.mktemp("molecules"), "--model.architecture=painn", "--model.size=10k")


@pytest.fixture(scope="session")
def copper_run(crystals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a small potential for copper, trained on stress too."""
    return train(
        crystals,
        tmp_path_factory.mktemp("copper"),
        "--model.architecture=schnet",
        "--model.size=3k",
        "--model.stress_weight=100",
    )
